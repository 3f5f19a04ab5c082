"""The build context of images: its files, and one hash of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from conformance.errors import UsageError
from conformance.matrix.stacks import checkout

DOCKERFILE = "images/Dockerfile"
IGNORE_FILE = "images/Dockerfile.dockerignore"


def checkout_root() -> Path:
    """The root of the checkout.

    Raises:
        UsageError: the suite runs from an installed wheel, which has no Dockerfile.
    """
    root = checkout()
    if root is None or not (root / DOCKERFILE).is_file():
        raise UsageError(
            "images are built from a checkout of the suite, but this one is installed: clone the "
            "repository and run `make install` in it"
        )
    return root


def context_files(root: Path) -> list[Path]:
    """The files of the build context, sorted.

    The ignore file excludes everything, re-includes top-level names (``!NAME``), and excludes names
    at any depth (``**/NAME``). No other syntax is used.
    """
    lines = (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    tops = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    excluded = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    return sorted(
        file for top in tops for file in _walk(root / top) if not _hidden(file, root, excluded)
    )


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _hidden(file: Path, root: Path, excluded: list[str]) -> bool:
    return any(fnmatch(part, rule) for part in file.relative_to(root).parts for rule in excluded)


@cache
def sources_hash(root: Path) -> str:
    """A hash of every file of the context, its name, content and executable bit: 16 hex digits."""
    digest = hashlib.sha256()
    for file in context_files(root):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        runs = "x" if os.access(file, os.X_OK) else "-"
        digest.update(f"{file.relative_to(root)} {runs} {content}\n".encode())
    return digest.hexdigest()[:16]
