"""Searches every file of a tree for a name; reports file and line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# vLLM's AMD CI: https://github.com/vllm-project/vllm/tree/v0.19.0/.buildkite
CI_SCRIPTS = (".buildkite", ".github", "docker", "tests", "setup.py")
# The parts of this repository that configure a run for its users.
REPOSITORY_PARTS = ("images", "buildkite", "tox.ini", "Makefile", "README.md", ".ci")
SKIPPED_FOLDERS = {".git", "__pycache__", ".venv", ".tox", "node_modules"}


@dataclass(frozen=True)
class Occurrence:
    """A line that contains the name; ``line`` is 0 for a binary file."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path} (binary)"


def scan(root: Path, parts: Iterable[Path], name: str) -> tuple[list[Occurrence], int]:
    """Every occurrence of ``name`` below ``parts``, and the number of files read.

    Binary files (shared objects, bytecode of a removed source) are searched too. Paths are relative
    to ``root``. A file that cannot be read is an error: it is never skipped silently.
    """
    wanted = name.encode()
    occurrences: list[Occurrence] = []
    read = 0
    for path in sorted(_files(parts)):
        read += 1
        data = path.read_bytes()
        if wanted in data:
            occurrences += _occurrences(str(path.relative_to(root)), data, wanted)
    return occurrences, read


def _files(parts: Iterable[Path]) -> Iterator[Path]:
    for part in parts:
        if part.is_file():
            yield part
        for folder, folders, names in os.walk(part):
            folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
            yield from (path for name in names if (path := Path(folder, name)).is_file())


def _occurrences(path: str, data: bytes, wanted: bytes) -> Iterator[Occurrence]:
    if b"\0" in data:
        yield Occurrence(path, 0, "")
        return
    for number, line in enumerate(data.splitlines(), 1):
        if wanted in line:
            yield Occurrence(path, number, line.decode(errors="replace").strip()[:160])
