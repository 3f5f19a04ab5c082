"""What to install beside a torch that is there already: the suite's needs, and constraints.

    python pins.py PYPROJECT CONSTRAINTS FOLDER

writes FOLDER/requirements.txt and FOLDER/constraints.txt. What is installed wins over the suite's
own constraints: an image's torch and Triton, and what they pin, are never replaced. Standard
library only, because it runs before anything is installed. Without PYPROJECT there are no
requirements, without CONSTRAINTS nothing but what is installed is held.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import tomllib

NEVER_INSTALLED = {"torch", "triton"}
# What no dependency of the suite names: the build of its editable install, and tox for users who
# call it in a container.
ALSO = ("setuptools", "tox")


def name_of(requirement: str) -> str:
    """The canonical name of a requirement's package."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def requirements(pyproject: str) -> list[str]:
    """The suite's dependencies of a pyproject.toml's text, less torch and Triton."""
    listed = tomllib.loads(pyproject)["project"]["dependencies"]
    return [*(entry for entry in listed if name_of(entry) not in NEVER_INSTALLED), *ALSO]


def constraints(wanted: Iterable[str], installed: dict[str, str]) -> list[str]:
    """The wanted constraints, with what is installed in their place where they differ."""
    kept = [line for line in wanted if name_of(line) and name_of(line) not in installed]
    return sorted([*kept, *(f"{name}=={version}" for name, version in installed.items())])


def installed_versions() -> dict[str, str]:
    """Every installed package but those that install others."""
    found = {name_of(dist.name): dist.version for dist in distributions() if dist.name}
    return {name: found[name] for name in found if name not in ("pip", "setuptools", "wheel")}


def _lines(path: str) -> list[str]:
    text = Path(path).read_text(encoding="utf-8") if path else ""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def main(pyproject: str, wanted: str, folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    needs = requirements(Path(pyproject).read_text(encoding="utf-8")) if pyproject else []
    held = constraints(_lines(wanted), installed_versions())
    (target / "requirements.txt").write_text("\n".join(needs) + "\n", encoding="utf-8")
    (target / "constraints.txt").write_text("\n".join(held) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
