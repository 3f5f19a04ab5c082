"""The package index that the user's pip is set up for: what it holds, and whole downloads from it.

pip's index, credentials and certificates are honoured, so that a mirror behind a company's wall
works for this suite when it works for pip. Credentials go to the index's own host alone and never
into a message.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from packaging.version import InvalidVersion, Version
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util.retry import Retry

from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.vllm.progress import Percentage, Progress

TIMEOUT = (10.0, 60.0)
ATTEMPTS = 3
BACKOFF = 0.5
_CHUNK = 1 << 20
_PASSING_ERRORS = (429, 500, 502, 503, 504)

T = TypeVar("T")

OTHER_WAY = (
    "Or judge a vLLM that is installed already, through its own interpreter: "
    "--subject PATH/TO/python"
)


@dataclass(frozen=True)
class PipSettings:
    """What pip is told about the index: its address (None: the default one) and its CA bundle."""

    index_url: str | None = None
    cert: str | None = None


def pip_settings(
    environment: Mapping[str, str] = os.environ,
    configured: Callable[[], Mapping[str, str]] | None = None,
) -> PipSettings:
    """pip's own order: the environment, then the ``install`` section, then ``global``."""
    files = (configured or _pip_configuration)()

    def setting(name: str) -> str | None:
        return (
            environment.get(f"PIP_{name.upper().replace('-', '_')}")
            or files.get(f"install.{name}")
            or files.get(f"global.{name}")
            or None
        )

    return PipSettings(setting("index-url"), setting("cert"))


def _pip_configuration() -> dict[str, str]:
    """The merged configuration files, as pip reads them; empty where pip is not installed."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    settings = {}
    for line in listed.stdout.splitlines() if listed.returncode == 0 else ():
        name, _, value = line.partition("=")
        try:
            settings[name.strip()] = str(ast.literal_eval(value.strip()))
        except (SyntaxError, ValueError):
            continue
    return settings


def redacted(text: str) -> str:
    """``text`` without what URLs may hide: user names, passwords and signed queries."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"\?[^\s'\")]+", "?…", text)


class TornError(requests.exceptions.ChunkedEncodingError):
    """What arrived is not what was asked for."""


@contextmanager
def reaching(what: str, address: str) -> Iterator[None]:
    """Turns a failed request into an :class:`InfrastructureError` without secrets.

    The original exception is dropped: its text can hold a password.
    """
    place = redacted(address)
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code
        hint = (
            "Check the credentials in pip's index address (or ~/.netrc)."
            if status in (401, 403)
            else "Try again later, or check pip's index address (PIP_INDEX_URL)."
        )
        message = f"cannot fetch {what}: {place} answered {status}. {hint}"
    except requests.exceptions.ChunkedEncodingError as error:
        message = (
            f"{what} did not arrive whole from {place}: {redacted(str(error))}. Try again; if it "
            "stays so, the index holds a damaged file."
        )
    except requests.RequestException as error:
        message = (
            f"cannot fetch {what}: {place} could not be reached ({redacted(str(error))}). Check "
            "the network, the proxy and pip's index address (PIP_INDEX_URL)."
        )
    else:
        return
    raise InfrastructureError(f"{message} {OTHER_WAY}") from None


def persistently(what: str, address: str, fetch: Callable[[], T]) -> T:
    """``fetch()``, again if its body broke off: the retries of the session end with the headers."""
    with reaching(what, address):
        for _ in range(ATTEMPTS - 1):
            with suppress(requests.exceptions.ChunkedEncodingError):
                return fetch()
        return fetch()


class _OneHost(AuthBase):
    """Basic authentication for one host: files may lie on another, which must not see it."""

    def __init__(self, host: str, user: str, password: str) -> None:
        self._host = host
        self._basic = HTTPBasicAuth(user, password)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return self._basic(request) if urlsplit(request.url or "").netloc == self._host else request


class PackageIndex:
    """A simple package index (PEP 503, PEP 691) and the connection to it."""

    def __init__(self, settings: PipSettings) -> None:
        parts = urlsplit(settings.index_url or PYPI_SIMPLE_ENDPOINT)
        credentials, _, host = parts.netloc.rpartition("@")
        self.address = urlunsplit(parts._replace(netloc=host))
        self.session = _session(settings.cert)
        if credentials:
            user, _, password = credentials.partition(":")
            self.session.auth = _OneHost(host, unquote(user), unquote(password))

    @classmethod
    def of_pip(cls) -> PackageIndex:
        """The index that ``pip install`` would use here."""
        return cls(pip_settings())

    def release(self, project: str, version: Version) -> list[DistributionPackage]:
        """The files of one release; a :class:`UsageError` if there is no such release."""
        files: dict[Version, list[DistributionPackage]] = {}
        for file in self._files(project):
            try:
                files.setdefault(Version(file.version or ""), []).append(file)
            except InvalidVersion:
                continue
        if version not in files:
            raise _never_released(project, version, sorted(files), self.address)
        return files[version]

    def _files(self, project: str) -> list[DistributionPackage]:
        client = PyPISimple(self.address, session=self.session)
        try:
            with reaching(f"the list of {project} releases", self.address):
                return client.get_project_page(project, timeout=TIMEOUT).packages
        except NoSuchProjectError:
            message = f"{redacted(self.address)} has no {project}. Check pip's index address"
        except (UnsupportedContentTypeError, UnsupportedRepoVersionError) as error:
            message = f"this is no package index that pip can use: {redacted(str(error))}. Check it"
        raise InfrastructureError(f"{message} (PIP_INDEX_URL). {OTHER_WAY}")

    def download(self, file: DistributionPackage, into: Path, progress: Progress) -> None:
        """The whole of ``file``, checked against the size and hash that the index gives."""
        persistently(file.filename, file.url, lambda: self._download(file, into, progress))

    def _download(self, file: DistributionPackage, into: Path, progress: Progress) -> None:
        digest, received = hashlib.sha256(), 0
        with self.session.get(
            file.url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}
        ) as response:
            response.raise_for_status()
            total = file.size or int(response.headers.get("Content-Length", 0))
            percentage = Percentage(file.filename, total, progress)
            with into.open("wb") as target:
                for chunk in response.iter_content(_CHUNK):
                    target.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    percentage.add(len(chunk))
        if file.size is not None and received != file.size:
            raise TornError(f"{received} of {file.size} bytes")
        expected = file.digests.get("sha256", digest.hexdigest())
        if digest.hexdigest() != expected:
            raise TornError(f"its sha256 is {digest.hexdigest()}, the index says {expected}")


def _session(cert: str | None) -> requests.Session:
    session = requests.Session()
    retry = Retry(
        total=ATTEMPTS,
        backoff_factor=BACKOFF,
        status_forcelist=_PASSING_ERRORS,
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    if cert is not None:
        # requests puts REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE before this.
        session.verify = cert
    return session


def _never_released(
    project: str, version: Version, known: Sequence[Version], address: str
) -> UsageError:
    stable = [v for v in known if not v.is_prerelease] or list(known)
    at = bisect(stable, version)
    nearest = ", ".join(map(str, stable[max(at - 2, 0) : at + 2]))
    newest = ", ".join(map(str, stable[-3:]))
    return UsageError(
        f"{project} {version} is not a release on {redacted(address)}. Nearest: {nearest}. "
        f"Newest: {newest}. {OTHER_WAY}"
    )
