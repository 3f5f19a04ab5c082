"""Extracts the Python files of a wheel, and what else is named, without downloading the rest.

A vLLM wheel has hundreds of megabytes of CUDA libraries and a few megabytes of Python. If the
server answers range requests, only the table of contents and the ranges with the wanted files are
fetched, in a few large pieces: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import requests
from pypi_simple import DistributionPackage

from conformance.errors import InfrastructureError
from conformance.subjects.vllm.package_index import (
    TIMEOUT,
    PackageIndex,
    TornError,
    persistently,
)
from conformance.subjects.vllm.progress import Percentage, Progress, silent

BLOCK = 1 << 18
BLOCKS_PER_REQUEST = 16
BLOCKS_KEPT = 64
_MEMBER_HEADER = 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_UNSOUND = (zipfile.BadZipFile, zlib.error, csv.Error, EOFError, RuntimeError, UnicodeError)
_NOTHING = re.compile(r"(?!)")
_UNSIGNED = (".dist-info/RECORD", ".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")


class NoRangesError(Exception):
    """The server does not answer range requests."""


class RangedFile(io.RawIOBase):
    """A remote file fetched in blocks as it is read, with planned read-ahead."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """``fetch(start, end)`` returns the bytes from ``start`` up to, not including, ``end``."""
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._at = 0
        self._planned: set[int] = set()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def plan(self, stretches: Iterable[tuple[int, int]]) -> None:
        """Announces ranges (start, end) that will be read: neighbours are fetched together."""
        for start, end in stretches:
            self._planned.update(range(start // BLOCK, (min(end, self._size) - 1) // BLOCK + 1))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        rest = max(self._size - self._at, 0)
        wanted = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while wanted:
            block, offset = divmod(self._at, BLOCK)
            piece = self._block(block)[offset : offset + wanted]
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            last = number + 1
            while last in self._planned and last - number < BLOCKS_PER_REQUEST:
                last += 1
            data = self._fetch(number * BLOCK, min(last * BLOCK, self._size))
            for at in range(number, last):
                start = (at - number) * BLOCK
                self._blocks[at] = data[start : start + BLOCK]
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[number]


def extract_python(
    index: PackageIndex,
    wheel: DistributionPackage,
    folder: Path,
    progress: Progress,
    also: re.Pattern[str] = _NOTHING,
) -> None:
    """Extracts the ``.py`` files and the ``.dist-info`` of ``wheel`` into ``folder``, and the files
    whose names match ``also``.

    Each file is checked against the wheel's own RECORD. No other file is ever stored.
    """
    try:
        _extract(open_ranged(index.session, wheel), wheel.filename, folder, progress, also)
    except NoRangesError:
        size = f" ({wheel.size / 1e6:.0f} MB)" if wheel.size else ""
        progress(f"{wheel.filename}: this index gives whole files only, downloading all{size}")
        whole = folder / ".whole.whl"
        index.download(wheel, whole, progress)
        with whole.open("rb") as local:
            _extract(local, wheel.filename, folder, silent, also)
        whole.unlink()


def open_ranged(session: requests.Session, wheel: DistributionPackage) -> RangedFile:
    """``wheel`` as a file that is fetched as it is read, or :class:`NoRangesError`."""
    _, total = _fetch_range(session, wheel, 0, 1)
    if wheel.size not in (None, total):
        raise InfrastructureError(
            f"{wheel.filename} has {total} bytes on the server, the index says {wheel.size}: the "
            "mirror holds a damaged file"
        )
    return RangedFile(lambda start, end: _fetch_range(session, wheel, start, end)[0], total)


def _fetch_range(
    session: requests.Session, wheel: DistributionPackage, start: int, end: int
) -> tuple[bytes, int]:
    """The bytes from ``start`` to ``end`` of a remote file, and the file's size."""
    return persistently(wheel.filename, wheel.url, lambda: _ask_range(session, wheel, start, end))


def _ask_range(
    session: requests.Session, wheel: DistributionPackage, start: int, end: int
) -> tuple[bytes, int]:
    headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with session.get(wheel.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        sent = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != requests.codes.partial_content or sent is None:
            raise NoRangesError
        data = response.content
    if int(sent[1]) != start or len(data) != end - start:
        raise TornError(f"{len(data)} bytes from {sent[1]} on, not {end - start} from {start} on")
    return data, int(sent[3])


def _extract(
    file: RangedFile | io.BufferedReader,
    name: str,
    folder: Path,
    say: Progress,
    also: re.Pattern[str],
) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            wanted = (member for member in archive.infolist() if _wanted(member, also))
            members = sorted(wanted, key=lambda m: m.header_offset)
            if isinstance(file, RangedFile):
                file.plan((m.header_offset, _end(m)) for m in members)
            hashes = _record(archive, name)
            percentage = Percentage(name, sum(m.compress_size for m in members), say)
            for member in members:
                _store(archive.read(member), member.filename, hashes, folder, name)
                percentage.add(member.compress_size)
    except _UNSOUND as error:
        raise InfrastructureError(
            f"{name} is not a sound wheel: {error}. Try again; if it stays so, the mirror holds a "
            "damaged file."
        ) from error


def _wanted(member: zipfile.ZipInfo, also: re.Pattern[str]) -> bool:
    top, name = member.filename.partition("/")[0], member.filename
    is_python = name.endswith(".py") or top.endswith(".dist-info")
    return not member.is_dir() and (is_python or also.match(name) is not None)


def _end(member: zipfile.ZipInfo) -> int:
    return member.header_offset + _MEMBER_HEADER + len(member.filename) + member.compress_size


def _record(archive: zipfile.ZipFile, wheel: str) -> dict[str, str]:
    """Each file's hash as RECORD writes it: ``sha256=`` and unpadded URL-safe base64."""
    names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", n)]
    if len(names) != 1:
        raise InfrastructureError(f"{wheel} has {len(names)} RECORD files: expected one")
    rows = csv.reader(archive.read(names[0]).decode("utf-8").splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _store(data: bytes, name: str, hashes: dict[str, str], folder: Path, wheel: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise InfrastructureError(f"{wheel} holds {name!r}, a path outside of it: nothing was kept")
    if not name.endswith(_UNSIGNED):
        _verify(data, name, hashes.get(name, ""), wheel)
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _verify(data: bytes, name: str, recorded: str, wheel: str) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if recorded != f"sha256={digest}":
        raise InfrastructureError(
            f"{name} in {wheel} has sha256={digest}, but the wheel's RECORD says "
            f"{recorded or 'nothing about it'}: the mirror holds a damaged or altered file"
        )
