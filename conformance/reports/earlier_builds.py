"""An earlier build's results: in a folder, a results file, an archive, or at an address."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from conformance.errors import InfrastructureError, UsageError
from conformance.reports.collect import Collected, collect, kind_of
from conformance.results.folder import RESULTS

# A token for addresses that ask for one: Buildkite's and GitHub's artifacts do.
TOKEN_VARIABLE = "ROCM_CONFORMANCE_BASELINE_TOKEN"
SIZE_LIMIT = 256 * 1024**2  # of a download, and of all that an archive holds
TIMEOUT = 60.0


@contextmanager
def opened(origin: str, option: str = "--baseline") -> Iterator[Collected]:
    """The results of an earlier build; ``option`` is what it was named with, for messages.

    Raises:
        UsageError: there is nothing of that name, or it holds no results.
        InfrastructureError: the address does not answer, or gives something else.
    """
    name = f"{option} {origin}"
    path = Path(origin)
    if urlsplit(origin).scheme in ("http", "https"):
        data = _fetched(origin, name)
    elif path.is_dir():
        yield _whole(collect(path.resolve()), name)
        return
    elif path.is_file():
        data = _read(path, name)
    else:
        raise UsageError(
            f"{name}: no such folder or file. Give an earlier run's folder, its {RESULTS}, an "
            "archive of either, or the address of its artifact"
        )
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as folder:
        _unpack(data, Path(folder), name)
        yield _whole(collect(Path(folder)), name)


def _whole(collected: Collected, name: str) -> Collected:
    if not any(each.run.cases for each in collected.inputs):
        why = f": {collected.problems[0]}" if collected.problems else ""
        raise UsageError(f"{name}: holds no results{why}")
    return collected


def _read(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise UsageError(f"{name}: larger than {SIZE_LIMIT:,} bytes; name its folder")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror or error}") from error


def _fetched(address: str, name: str) -> bytes:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with requests.get(address, stream=True, timeout=TIMEOUT, headers=headers) as response:
            if response.status_code in (401, 403):
                raise InfrastructureError(
                    f"{name}: answers {response.status_code}: set {TOKEN_VARIABLE} to a token that "
                    "may read it"
                )
            response.raise_for_status()
            data = bytearray()
            for chunk in response.iter_content(1 << 20):
                data += chunk
                if len(data) > SIZE_LIMIT:
                    raise InfrastructureError(f"{name}: larger than {SIZE_LIMIT:,} bytes")
    except requests.RequestException as error:
        raise InfrastructureError(f"{name}: cannot be fetched: {error}") from error
    return bytes(data)


class _Member(NamedTuple):
    """A file of an archive: its name, and its bytes if it is one to read."""

    name: str
    data: bytes


def _unpack(data: bytes, folder: Path, name: str) -> None:
    """Writes the results files of an archive, or the one that the data is.

    Names inside an archive are not trusted: each file gets a folder of its own number. JUnit files
    are taken where there is no results file: they hold the same cases.
    """
    try:
        if data.startswith(b"PK"):
            members = list(_zipped(data, name))
        elif data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or data[257:262] == b"ustar":
            members = list(_tarred(data, name))
        else:
            junit = data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")
            members = [_Member("junit-file.xml" if junit else RESULTS, data)]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, OSError) as error:
        raise UsageError(f"{name}: is no sound archive: {error}") from error
    results = [member for member in members if kind_of(member.name) == "results"]
    for number, member in enumerate(results or members):
        (folder / str(number)).mkdir()
        (folder / str(number) / member.name).write_bytes(member.data)


def _zipped(data: bytes, name: str) -> Iterator[_Member]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rest = SIZE_LIMIT
        for member in archive.infolist():
            file = _basename(member.filename)
            if kind_of(file):
                rest = _left(rest, member.file_size, name)
                yield _Member(file, archive.read(member))


def _tarred(data: bytes, name: str) -> Iterator[_Member]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        rest = SIZE_LIMIT
        for member in archive:
            file = _basename(member.name)
            stream = archive.extractfile(member) if member.isfile() and kind_of(file) else None
            if stream is not None:
                rest = _left(rest, member.size, name)
                yield _Member(file, stream.read())


def _basename(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _left(rest: int, size: int, name: str) -> int:
    if size > rest:
        raise UsageError(f"{name}: holds more than {SIZE_LIMIT:,} bytes of results")
    return rest - size
