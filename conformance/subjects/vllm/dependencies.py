"""What vLLM's platform and attention classes import besides torch, by release.

Installing vLLM pulls in about 150 packages, with torch and CUDA. A few dozen are enough to ask the
ROCm selector; ``releases.toml`` pins them. They are installed into a folder of their own, shared
by releases with the same pins, so the suite's own environment is not changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.toml_rows import read_rows
from conformance.subjects.vllm.package_index import OTHER_WAY, redacted

# A user's pip constraints, targets and so on may contradict the pins: they are for other
# environments.
_NOT_OURS = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")

Install = Callable[[tuple[str, ...], Path], None]


@dataclass(frozen=True)
class Needs:
    """A row of ``releases.toml``: ``pins`` (pip requirements) that hold for the vLLM ``releases``.

    ``releases`` and ``python`` are version specifiers (PEP 440); ``like`` names the row whose
    other pins hold too.
    """

    name: str
    releases: str
    python: str
    pins: tuple[str, ...]
    like: str = ""

    def cover(self, version: Version) -> bool:
        return SpecifierSet(self.releases).contains(version, prereleases=True)

    @property
    def key(self) -> str:
        """A key that is equal for equal pins in the same kind of interpreter."""
        abi = f"{sys.implementation.cache_tag}{sys.abiflags}-{sysconfig.get_platform()}"
        digest = hashlib.sha256("\n".join(sorted(self.pins)).encode()).hexdigest()
        return f"{abi}-{digest[:16]}"


@cache
def table() -> Mapping[str, Needs]:
    """All rows of ``releases.toml``, with inherited pins."""
    text = files(__package__).joinpath("releases.toml").read_text(encoding="utf-8")
    rows = read_rows(text, "releases.toml", Needs)
    return {name: replace(row, pins=_all_pins(row, rows), like="") for name, row in rows.items()}


def _all_pins(row: Needs, rows: Mapping[str, Needs]) -> tuple[str, ...]:
    if not row.like:
        return row.pins
    own = {Requirement(pin).name for pin in row.pins}
    other = _all_pins(rows[row.like], rows)
    return tuple(sorted([*row.pins, *(p for p in other if Requirement(p).name not in own)]))


def needs_of(version: Version) -> Needs:
    """What ``version`` needs; of a release newer than all that are covered, what the newest needs.

    Raises:
        UsageError: the release is older than all that are covered, or not for this Python.
    """
    row = nearest_needs(version)
    if not row.cover(version) and not is_newer(version):
        covered = "; ".join(row.releases for row in table().values())
        raise UsageError(
            f"this suite does not know what vLLM {version} needs to be imported. Releases it "
            f"fetches by itself: {covered}, and later ones. {OTHER_WAY}"
        )
    if not SpecifierSet(row.python).contains(platform.python_version(), prereleases=True):
        raise UsageError(
            f"vLLM {version} runs on Python {row.python}, and this is Python "
            f"{platform.python_version()}: run the suite with another one. {OTHER_WAY}"
        )
    return row


def nearest_needs(version: Version) -> Needs:
    """The row that covers ``version``, else the newest of those before it, else the oldest."""
    rows = list(table().values())
    covering = [row for row in rows if row.cover(version)]
    older = [row for row in rows if version.release[:2] >= _first_of(row)]
    return (covering or older or rows[:1])[-1]


def is_newer(version: Version) -> bool:
    """Whether a release is newer than all that the table covers."""
    newest = list(table().values())[-1]
    return not newest.cover(version) and version.release[:2] >= _first_of(newest)


def _first_of(row: Needs) -> tuple[int, ...]:
    """The series from which on a row holds."""
    bounds = [spec for spec in SpecifierSet(row.releases) if spec.operator == ">="]
    return Version(bounds[0].version).release[:2]


def pip_install(pins: tuple[str, ...], folder: Path) -> None:
    """Installs exactly ``pins`` into ``folder``, from wheels only, with the user's pip settings."""
    if find_spec("pip") is None:
        raise InfrastructureError(
            f"vLLM's imports have to be installed, and {sys.executable} has no pip. Run "
            f"'{sys.executable} -m ensurepip' (in an environment of uv: uv pip install pip)."
        )
    flags = ["--no-deps", "--only-binary=:all:", "--no-compile", "--no-input", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, "--target", str(folder), *pins],
        env=_pip_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InfrastructureError(
            f"pip could not install what vLLM imports (exit code {done.returncode}). Check the "
            f"network and pip's settings ('{sys.executable} -m pip config list'). {OTHER_WAY}",
            redacted(done.stderr or done.stdout),
        )


def _pip_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    return {
        **kept,
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
