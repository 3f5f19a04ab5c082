"""Compiled kernels on disk, by what they were made from; the least recently used go first."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

CACHE_VARIABLE = "ROCM_CONFORMANCE_CACHE"
# A kernel's object has 100 to 900 KiB: some hundreds of kernels on each of six targets.
LIMIT_BYTES = 1 << 30
_MAGIC = b"rocm-conformance native 1\n"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compiled:
    """An object and what running it needs to know.

    ``modes`` are the bits of MODE in each block; ``whole``: it takes every lane to run.
    """

    data: bytes
    starts: list[int]
    ends: list[int]
    modes: list[int]
    slots: int
    whole: bool


def folder() -> Path:
    """Where objects are kept: below the suite's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute() / "native"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rocm-attention-conformance" / "native"


@lru_cache(maxsize=1)
def sources() -> str:
    """A digest of everything that decides what a kernel becomes: the emulator's own text."""
    room = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(np.__version__.encode())
    for path in (*sorted(room.rglob("*.py")), room.parent / "assembly.py"):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def key(text: str, target: str, host: str, mode: str = "") -> str:
    """The name of a kernel's object."""
    parts = (text, target, host, mode, sources())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read(name: str) -> Compiled | None:
    """A stored object; one that is damaged is removed, with a message."""
    path = folder() / name
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        found = _parse(content)
    except (ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s: a damaged native object (%s): it is compiled again", path, error)
        path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)
    return found


def _parse(content: bytes) -> Compiled:
    magic, head, data = content[: len(_MAGIC)], *content[len(_MAGIC) :].split(b"\n", 1)
    if magic != _MAGIC:
        raise ValueError("it does not begin as one")
    facts = json.loads(head)
    if facts.pop("sha256") != hashlib.sha256(data).hexdigest():
        raise ValueError("its checksum is another")
    return Compiled(data=data, **facts)


def write(name: str, compiled: Compiled) -> None:
    """Stores an object, then brings the folder under its limit. A full disk is no error."""
    facts = {k: v for k, v in compiled.__dict__.items() if k != "data"}
    facts["sha256"] = hashlib.sha256(compiled.data).hexdigest()
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, prefix=".new-", delete=False) as out:
            out.write(_MAGIC + json.dumps(facts).encode() + b"\n" + compiled.data)
        Path(out.name).replace(place / name)
        prune(place, LIMIT_BYTES)
    except OSError as error:
        _LOG.warning("%s: native objects are not kept: %s", place, error)


def prune(place: Path, limit: int) -> None:
    """Removes what was not used for longest, until no more than ``limit`` bytes are left."""
    entries = []
    for path in place.iterdir():
        try:
            facts = path.stat()
        except OSError:
            continue
        entries.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
