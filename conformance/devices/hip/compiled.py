"""Compilations, kept in a folder: made once for a source, its headers, the flags and the compiler.

An entry names every file that the compiler read and the digest it had; it holds as long as all of
them are what they were. Entries are written whole and then named, so that processes may share the
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from .clang import Clang, run_clang

_ROOT = "<root>"


class Compilations:
    """The compiler and its folder."""

    def __init__(self, clang: Clang, folder: Path) -> None:
        self.clang = clang
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def made(
        self,
        source: str,
        flags: Callable[[Path], list[str]],
        root: Path,
        suffix: str,
        what: str,
        linked: tuple[Path, ...] = (),
    ) -> Path:
        """The file that ``source`` compiles to, from the folder or made now.

        ``flags`` are the compiler's arguments for the source tree at ``root``, whose place does
        not matter; ``what`` names the compilation in an error; ``linked`` are files that it takes
        in beside the source and its headers.

        Raises:
            CompileError: clang refuses it.
        """
        asked = [self.clang.version, source, suffix, *flags(Path(_ROOT))]
        entry = self.folder / f"{_digest(json.dumps(asked).encode())}.json"
        found = self._entry(entry, root)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".making-") as scratch:
            result, read = self._compile(Path(scratch), source, flags(root), what)
            data = result.read_bytes()
            made = self.folder / f"{_digest(data)}{suffix}"
            files = {_unplaced(path, root): _file_digest(path) for path in (*read, *linked)}
            told = Path(scratch) / "entry.json"
            told.write_text(json.dumps({"made": made.name, "files": files}), encoding="utf-8")
            result.replace(made)
            told.replace(entry)
            return made

    def _entry(self, entry: Path, root: Path) -> Path | None:
        try:
            told = json.loads(entry.read_text(encoding="utf-8"))
            files = told["files"].items()
            same = all(_file_digest(_placed(name, root)) == digest for name, digest in files)
            made = self.folder / told["made"]
            return made if same and made.is_file() else None
        except (OSError, ValueError, KeyError):
            return None

    def _compile(
        self, scratch: Path, source: str, flags: list[str], what: str
    ) -> tuple[Path, list[Path]]:
        """The compiler's output, and the files that it read besides ``source``."""
        given, result, depends = (scratch / name for name in ("unit.hip", "made", "depends"))
        given.write_text(source, encoding="utf-8")
        # The driver's own -MD writes nothing for device code.
        asked = ("-sys-header-deps", "-dependency-file", str(depends), "-MT", "made")
        told = [part for word in asked for part in ("-Xclang", word)]
        arguments = [*flags, *told, str(given), "-o", str(result)]
        run_clang(self.clang, arguments, what)
        read = [Path(name) for name in _read_depends(depends.read_text(encoding="utf-8"))]
        return result, [path for path in read if path != given]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _file_digest(path: Path) -> str:
    about = path.stat()
    return _known_digest(str(path), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1 << 14)
def _known_digest(path: str, _changed: int, _size: int) -> str:
    return _digest(Path(path).read_bytes())


def _unplaced(path: Path, root: Path) -> str:
    """A file's name wherever the source tree lies."""
    absolute = Path(os.path.normpath(path))
    inside = absolute.is_relative_to(root)
    return f"{_ROOT}/{absolute.relative_to(root)}" if inside else str(absolute)


def _placed(name: str, root: Path) -> Path:
    return root / name.removeprefix(f"{_ROOT}/") if name.startswith(f"{_ROOT}/") else Path(name)


def _read_depends(text: str) -> list[str]:
    """The prerequisites of a make rule; a space in a name is escaped."""
    _, _, after = text.replace("\\\n", " ").partition(": ")
    return [name.replace("\0", " ") for name in after.replace("\\ ", "\0").split()]
