"""The GPU architectures that the suite knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from conformance.errors import one_of
from conformance.matrix.toml_rows import read_rows

TABLE = "targets.toml"


@dataclass(frozen=True)
class Target:
    """One GPU architecture, with the facts that matter to attention kernels.

    ``wave_size`` is in lanes; ``lds_bytes`` is the most that one workgroup can allocate;
    ``matrix`` names the matrix instructions, ``fp8`` the encoding they read ("none" where the
    hardware has no fp8 arithmetic). ``queue`` is vLLM's Buildkite queue with one such GPU, or
    empty where there is none. ``source`` is the page behind the family, products and wave size.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^gfx[0-9a-f]+$")]
    family: Literal["CDNA2", "CDNA3", "CDNA4", "RDNA3", "RDNA3.5", "RDNA4"]
    products: Annotated[str, Field(min_length=1)]
    wave_size: Literal[32, 64]
    lds_bytes: Annotated[int, Field(gt=0)]
    matrix: Literal["mfma", "wmma"]
    fp8: Literal["none", "fnuz", "ocp"]
    queue: str
    source: Annotated[str, Field(pattern=r"^https://")]

    def __str__(self) -> str:
        return self.name


@cache
def _targets() -> dict[str, Target]:
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return read_rows(text, f"conformance/matrix/{TABLE}", Target)


TARGETS: Mapping[str, Target] = MappingProxyType(_targets())


def target(name: str) -> Target:
    """The target of that name, such as ``gfx942``; a UsageError lists the known names."""
    if name not in TARGETS:
        raise one_of("target", name, list(TARGETS))
    return TARGETS[name]
