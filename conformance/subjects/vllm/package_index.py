"""The package index that the user's pip is configured for: its files, and verified downloads.

pip's index, credentials and certificates are used, so that a company's mirror works for this suite
if it works for pip. Credentials are sent to the index's own host only, and never shown.
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
    """pip's settings of the index: its address (None: the default) and CA bundle."""

    index_url: str | None = None
    cert: str | None = None


def pip_settings(
    environment: Mapping[str, str] = os.environ,
    configured: Callable[[], Mapping[str, str]] | None = None,
) -> PipSettings:
    """Reads them in pip's order: the environment, then the ``install`` section, then ``global``."""
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
    """pip's merged configuration files; empty if pip is not installed."""
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
    """``text`` without the user names, passwords and signed queries of URLs."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"\?[^\s'\")]+", "?…", text)


class TornError(requests.exceptions.ChunkedEncodingError):
    """A download is incomplete or damaged."""


@contextmanager
def reaching(what: str, address: str) -> Iterator[None]:
    """Turns a failed request into an :class:`InfrastructureError` that contains no secrets.

    The original exception is dropped, because its text may contain a password.
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
    """Repeats ``fetch()`` if the body breaks off: the session retries the headers only."""
    with reaching(what, address):
        for _ in range(ATTEMPTS - 1):
            with suppress(requests.exceptions.ChunkedEncodingError):
                return fetch()
        return fetch()


class _OneHost(AuthBase):
    """Basic authentication for one host only: files may lie on another."""

    def __init__(self, host: str, user: str, password: str) -> None:
        self._host = host
        self._basic = HTTPBasicAuth(user, password)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return self._basic(request) if urlsplit(request.url or "").netloc == self._host else request


class PackageIndex:
    """A connection to a simple package index (PEP 503, PEP 691)."""

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
        """The index that ``pip install`` would use."""
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
        """Downloads ``file`` and checks it against the index's size and hash."""
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
        # REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE take precedence in requests.
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
