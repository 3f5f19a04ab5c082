"""What sessions of a worker would find out again about the same source files.

Every platform imports vLLM anew, in a fork that has seen none of it. Its modules' compiled code is
read again, and Triton looks for the end of every kernel by Python's tokenizer, which is written in
Python: that is a third of the import of a newer release. Both follow from the files alone, so the
server keeps them, and its forks have them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from hashlib import blake2b
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, TypedDict

Stamp = tuple[int, int]


class Known(TypedDict):
    """What an import came to know: the files of modules by name, and the length of blocks."""

    files: dict[str, str]
    blocks: dict[str, int]


# The number of lines of the block at the top of some lines, by the hash of these.
_blocks: dict[str, int] = {}
_new_blocks: dict[str, int] = {}
_told: set[str] = set()
# By path: the file's state, and its code.
_codes: dict[str, tuple[Stamp, Any]] = {}
_find_block: Any = inspect.getblock
_read_code: Any = SourceFileLoader.get_code


def install() -> None:
    """Lets this process and its forks use what :func:`keep` keeps."""
    inspect.getblock = _block
    SourceFileLoader.get_code = _code  # type: ignore[method-assign,assignment] # no other place


def come_to_know(before: Iterable[str]) -> Known:
    """What this process knows that it has not told yet; ``before`` are the modules that it had.

    Of modules: only those that Python's own loader read from a file.
    """
    files = {}
    for name in sys.modules.keys() - set(before) - _told:
        _told.add(name)
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is not None and type(spec.loader) is SourceFileLoader and spec.name == name:
            files[name] = str(spec.origin)
    blocks = dict(_new_blocks)
    _new_blocks.clear()
    return {"files": files, "blocks": blocks}


def keep(known: Known) -> None:
    """Keeps what an import in a fork came to know, for the forks after it."""
    _blocks.update(known["blocks"])
    for name, path in known["files"].items():
        if name in sys.modules or path in _codes:
            continue
        before = stamp(path)
        try:
            code = _read_code(SourceFileLoader(name, path), name)
        except (OSError, ImportError, SyntaxError, ValueError):
            continue
        if before is not None and before == stamp(path):
            _codes[path] = before, code


def _block(lines: Any) -> Any:
    """``inspect.getblock``."""
    text = "".join(lines).encode("utf-8", "surrogatepass")
    key = blake2b(text, digest_size=16).hexdigest()
    if key not in _blocks:
        _blocks[key] = _new_blocks[key] = len(_find_block(lines))
    return lines[: _blocks[key]]


def _code(loader: SourceFileLoader, fullname: str) -> Any:
    """``SourceFileLoader.get_code``: another state of the file is read anew."""
    kept = _codes.get(loader.path)
    if kept is not None and loader.name == fullname and kept[0] == stamp(loader.path):
        return kept[1]
    return _read_code(loader, fullname)


def stamp(path: str) -> Stamp | None:
    """A file's time and size; None where it is gone."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
