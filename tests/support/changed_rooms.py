"""The tests that a change calls for: those of the rooms that it touched.

    python -m tests.support.changed_rooms [BASE]

Prints the test folders, one a line, for what differs from BASE (the default: what is not committed,
or the last commit where nothing is) together with files that git does not know yet.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = "tests"
ARCHITECTURE = "tests/architecture"
# The longest prefix of a path decides. Rooms with a folder of the same name in tests/ need no line.
FOLDERS_OF = {
    "conformance/": ["tests/commands"],
    "conformance/benchmarks/": ["tests/commands"],
    "conformance/devices/": ["tests/devices", "tests/emulator"],
    "conformance/devices/isa/": ["tests/emulator"],
    "kernels/": ["tests/kernels"],
    "vllm_editions/": ["tests/kernels/test_selector.py", "tests/requirements"],
    "images/": ["tests/containers"],
    "buildkite/": ["tests/containers"],
    "docs/": ["tests/docs"],
    ".ci/": ["tests/containers"],
    "tox.ini": ["tests/matrix"],
    "toxfile.py": ["tests/matrix"],
    "README.md": ["tests/docs"],
    "pyproject.toml": [ARCHITECTURE],
    "constraints/": [ARCHITECTURE],
    "tests/support/": [EVERYTHING],
    "tests/conftest.py": [EVERYTHING],
}


def folders_for(paths: Iterable[str]) -> list[str]:
    """The test folders and files for changed paths, each once, none inside another."""
    wanted: set[str] = set()
    for path in paths:
        wanted.update(name for name in _folders_of(path) if (ROOT / name).exists())
        if path.endswith(".py"):
            wanted.add(ARCHITECTURE)
    return sorted(name for name in wanted if not any(_inside(name, other) for other in wanted))


def _folders_of(path: str) -> list[str]:
    parts = Path(path).parts
    named = max((prefix for prefix in FOLDERS_OF if path.startswith(prefix)), key=len, default="")
    room = f"tests/{parts[1]}" if parts[0] == "conformance" and len(parts) > 2 else ""
    if room and (ROOT / room).is_dir() and named == "conformance/":
        return [room]
    if named:
        return FOLDERS_OF[named]
    return [str(Path(*parts[:2]))] if parts[0] == "tests" and len(parts) > 2 else []


def _inside(name: str, other: str) -> bool:
    return name != other and Path(name).is_relative_to(other)


def changed(base: str = "") -> list[str]:
    """Paths that differ from a commit, and those that git does not know; see the module."""
    new = _git("ls-files", "--others", "--exclude-standard")
    if base:
        return [*_git("diff", "--name-only", base), *new]
    return [*_git("diff", "--name-only", "HEAD"), *new] or _git("diff", "--name-only", "HEAD~1")


def _git(*arguments: str) -> list[str]:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).splitlines()


if __name__ == "__main__":
    print("\n".join(folders_for(changed(*sys.argv[1:2]))))  # noqa: T201 - this is its answer
