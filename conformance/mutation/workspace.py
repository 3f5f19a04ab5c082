"""A copy of a package whose files are put wrong one at a time, and right again."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

# Python recognises bytecode of another text by its size and its time in seconds: each text that a
# workspace writes has a second of its own, long past.
_SECONDS = itertools.count(1_000_000_000)


class Workspace:
    """A copy of ``original`` at ``folder``; its files are links until one is edited."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.original = original
        self.folder = folder
        self._edited = ""
        self._right: dict[str, str] = {}
        ignored = shutil.ignore_patterns("__pycache__", ".*", "*.so")
        shutil.copytree(original, folder, ignore=ignored, copy_function=_link)

    def edit(self, file: str, text: str) -> None:
        """Gives a file another text, and the file that was edited before its own."""
        self.restore()
        self._write(file, text)
        self._edited = file

    def restore(self) -> None:
        """Puts the edited file right."""
        if self._edited:
            self._write(self._edited, self._right.get(self._edited, self.source(self._edited)))
            self._edited = ""

    def replace(self, file: str, text: str) -> None:
        """Gives a file another text for good, which counts as right."""
        self._right[file] = text
        self._write(file, text)

    def source(self, file: str) -> str:
        """The original's text of a file."""
        return (self.original / file).read_text(encoding="utf-8")

    def _write(self, file: str, text: str) -> None:
        path = self.folder / file
        path.unlink()  # it may be a link to the original
        path.write_text(text, encoding="utf-8")
        second = next(_SECONDS)
        os.utime(path, (second, second))


def _link(source: str, copy: str) -> str:
    try:
        os.link(source, copy)
    except OSError:  # another file system
        shutil.copy2(source, copy)
    return copy
