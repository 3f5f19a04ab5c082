"""The GPU architectures that the suite knows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from conformance.errors import UsageError
from conformance.matrix.toml_rows import read_rows

TABLE = "targets.toml"


@dataclass(frozen=True)
class Target:
    """One GPU architecture, with the facts that matter to attention kernels.

    ``wave_size`` is in lanes; ``lds_bytes`` is the most that one workgroup can allocate;
    ``matrix`` names the matrix instructions, ``fp8`` the encoding they read ("none" where the
    hardware has no fp8 arithmetic). ``queue`` is vLLM's Buildkite queue with one such GPU, or
    empty where there is none. ``source`` is the page behind the family, products and wave size.
    ``products`` and ``also_called`` are the names that people know it by.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^gfx[0-9a-f]+$")]
    family: Literal["CDNA2", "CDNA3", "CDNA4", "CDNA5", "RDNA3", "RDNA3.5", "RDNA4"]
    products: Annotated[str, Field(min_length=1)]
    wave_size: Literal[32, 64]
    lds_bytes: Annotated[int, Field(gt=0)]
    matrix: Literal["mfma", "wmma"]
    fp8: Literal["none", "fnuz", "ocp"]
    queue: str
    source: Annotated[str, Field(pattern=r"^https://")]
    also_called: tuple[str, ...] = ()

    @property
    def market_names(self) -> tuple[str, ...]:
        """What shops and people call it: ``MI300X``, ``Strix Halo``."""
        products = re.sub(r"\s*\([^)]*\)", "", self.products)
        return (*products.split(", "), *self.also_called)

    def __str__(self) -> str:
        return self.name


@cache
def _targets() -> dict[str, Target]:
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return read_rows(text, f"conformance/matrix/{TABLE}", Target)


TARGETS: Mapping[str, Target] = MappingProxyType(_targets())


# Words of a card's name that nobody needs: "AMD Radeon RX 9070 XT" is "RX 9070 XT".
_FILLER = ("amd", "instinct", "radeon", "graphics", "gpu", "tm", "r")


def target(name: str) -> Target:
    """The target of a name, such as ``gfx942``, ``MI300X`` or ``Radeon RX 9070 XT``.

    Raises:
        UsageError: no target has that name; says which is nearest, and all that are known.
    """
    if name in TARGETS:
        return TARGETS[name]
    called = _called()
    if (plain := _plain(name)) in called:
        return TARGETS[called[plain][0]]
    spoken = {_plain(known): known for known in TARGETS}
    spoken |= {plain_name: market for plain_name, (_, market) in called.items()}
    close = difflib.get_close_matches(plain, spoken, n=1)
    hint = f" Did you mean {spoken[close[0]]!r}?" if close else ""
    known = "; ".join(f"{row.name} ({', '.join(row.market_names)})" for row in TARGETS.values())
    raise UsageError(f"unknown target {name!r}.{hint} Allowed: {known}")


@cache
def _called() -> dict[str, tuple[str, str]]:
    """Every market name in its plain form: the target, and the name as it is written."""
    return {
        _plain(market): (row.name, market)
        for row in TARGETS.values()
        for market in row.market_names
    }


def _plain(name: str) -> str:
    """A name without case, spaces, signs, a series, and words that only say whose it is."""
    words = re.findall(r"[a-z0-9]+\+?", name.lower())
    joined = "".join(word.rstrip("+") for word in words if word not in _FILLER)
    return re.sub(r"^(rx|pro)(?=.*\d)", "", joined)
