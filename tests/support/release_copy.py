"""A copy of a release's files, of which one at a time is another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conformance.subjects.vllm.environment import prepare


class TextFault(Protocol):
    """Text of a file that is replaced."""

    @property
    def path(self) -> str: ...
    @property
    def old(self) -> str: ...
    @property
    def new(self) -> str: ...


@dataclass
class Copy:
    """The copy is in ``folder``."""

    folder: Path
    edits: int = 0

    @classmethod
    def of(cls, release: str, folder: Path) -> Copy:
        """A copy made of links, so it takes no time and no room."""
        left = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(prepare(release).path[0], folder, ignore=left, copy_function=os.link)
        return cls(folder)

    @contextmanager
    def with_fault(self, fault: TextFault) -> Iterator[None]:
        file = self.folder / fault.path
        right = file.read_text(encoding="utf-8")
        assert right.count(fault.old) == 1, f"{fault.path} has no single {fault.old!r}"
        self._write(file, right.replace(fault.old, fault.new))
        try:
            yield
        finally:
            self._write(file, right)

    def _write(self, file: Path, text: str) -> None:
        """Compiled files are known by time and size: each edit has a time of its own."""
        self.edits += 1
        file.unlink()  # a link to the release in the cache, which stays as it is
        file.write_text(text, encoding="utf-8")
        second = int(file.stat().st_mtime) + 10 * self.edits
        os.utime(file, (second, second))
