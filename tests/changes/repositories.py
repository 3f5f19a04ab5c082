"""Git repositories of a few files."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write(tree: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")


def commit(tree: Path, files: dict[str, str]) -> str:
    write(tree, files)
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "a change")
    return git(tree, "rev-parse", "HEAD")
