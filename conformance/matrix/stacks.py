"""The table of stacks, and the cells and platforms made from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from conformance.errors import InfrastructureError, SuiteError, UsageError, one_of
from conformance.matrix.requests import AITER, MHA, Platform
from conformance.matrix.targets import target
from conformance.matrix.toml_rows import read_rows

TABLE = "conformance/matrix/matrix.toml"
AITER_FACTORS = {"aiter": True, "noaiter": False}
MHA_FACTORS = {"mha": True, "nomha": False}
CELL_FORM = "<stack>-<aiter|noaiter>[-<mha|nomha>]"

Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=r"^https://")]


def _known_target(name: str) -> str:
    try:
        return target(name).name
    except UsageError as error:
        raise ValueError(str(error)) from error


KnownTarget = Annotated[str, AfterValidator(_known_target)]


@dataclass(frozen=True)
class Pin:
    """A pinned dependency of an image: ``repo`` built at ``ref``, or a released ``version``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    version: str = ""
    repo: str = ""
    ref: str = ""

    @property
    def url(self) -> str:
        """The web page of the pinned commit or tag; empty for a released wheel."""
        return f"https://github.com/{self.repo}/tree/{self.ref}" if self.repo else ""

    def __str__(self) -> str:
        source = f"{self.repo}@{self.ref}" if self.repo else ""
        return " ".join(part for part in (self.version, source) if part)


@dataclass(frozen=True)
class AiterBuild:
    """How a stack's aiter is built: ``archs`` is GPU_ARCHS, ``prebuilt`` is PREBUILD_KERNELS."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    archs: Annotated[tuple[KnownTarget, ...], Field(min_length=1)]
    prebuilt: bool


@dataclass(frozen=True)
class ImageRecipe:
    """What the suite's image of a stack is built from; the table's head explains the columns."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    base: Text
    python: Annotated[str, Field(pattern=r"^3\.1\d$")]
    torch: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(\+[\w.]+)?$")]
    index: Url
    source: Url
    unknown: Text
    rocm_sdk: str = ""
    aiter: AiterBuild | None = None


@dataclass(frozen=True)
class ContainerFlags:
    """Options of a stack's containers on a host with AMD GPUs.

    ``devices`` are paths or patterns of paths; ``shm`` is a size as docker spells it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    devices: Annotated[tuple[Annotated[str, Field(pattern=r"^/dev/")], ...], Field(min_length=1)]
    shm: Annotated[str, Field(pattern=r"^\d+[mg]$")]
    ipc: Annotated[str, Field(pattern=r"^(private|host|none)$")]
    source: Url


@dataclass(frozen=True)
class Stack:
    """One pinned ROCm row. ``matrix.toml`` explains the columns at its head."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^rocm\d+$")]
    rocm: Text
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]
    base_image: Text
    vllm: Text
    torch: Pin
    triton: Pin
    triton_pypi: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    targets: Annotated[tuple[KnownTarget, ...], Field(min_length=1)]
    source: Url
    reason: Text
    evidence: Annotated[tuple[Url, ...], Field(min_length=1)]
    unknown: Text
    image: ImageRecipe
    container: ContainerFlags
    aiter: Pin | None = None

    def __post_init__(self) -> None:
        if (self.aiter is None) != (self.image.aiter is None):
            raise ValueError("aiter and image.aiter: give both, the pin and its build, or neither")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Cell:
    """One point of the matrix: a stack, aiter installed or not, and aiter's MHA flag on or off."""

    stack: Stack
    aiter: bool
    mha: bool

    @property
    def name(self) -> str:
        aiter = "aiter" if self.aiter else "noaiter"
        return f"{self.stack.name}-{aiter}-{'mha' if self.mha else 'nomha'}"

    def __str__(self) -> str:
        return self.name

    def env(self) -> dict[str, str]:
        """The environment variables that make up this cell."""
        return {AITER: str(int(self.aiter)), MHA: str(int(self.mha))}

    def platforms(self) -> tuple[Platform, ...]:
        """Two platforms per target: the cell's own, and one with VLLM_ROCM_USE_AITER inverted.

        Selectors go wrong where aiter is installed but not enabled, or enabled but not installed.
        Platforms do not name the stack, so cells of different stacks share them.
        """
        return tuple(
            Platform.make(name, aiter=self.aiter, env={**self.env(), AITER: asked})
            for name in self.stack.targets
            for asked in (("1", "0") if self.aiter else ("0", "1"))
        )


def parse_stacks(text: str, where: str = TABLE) -> tuple[Stack, ...]:
    """The stacks of a table's text, in its order."""
    stacks = tuple(read_rows(text, where, Stack).values())
    if not stacks:
        raise SuiteError(f"{where} has no stacks")
    return stacks


@cache
def load_stacks() -> tuple[Stack, ...]:
    """All stacks, in table order."""
    try:
        text = resources.files(__package__).joinpath("matrix.toml").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InfrastructureError(
            f"the stack table {TABLE} is missing: {error}. It comes with the suite: install it "
            "again"
        ) from error
    return parse_stacks(text)


def checkout() -> Path | None:
    """The root of the suite's checkout, or None if the suite runs from an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / TABLE).is_file() else None


def cells_of(stacks: Iterable[Stack]) -> tuple[Cell, ...]:
    """The cells of stacks, in order: with aiter before without, MHA on before off."""
    return tuple(
        Cell(stack, aiter, mha)
        for stack, aiter, mha in product(stacks, (True, False), (True, False))
    )


def all_cells() -> tuple[Cell, ...]:
    """Every cell, in table order."""
    return cells_of(load_stacks())


def parse_cell(name: str) -> Cell:
    """The cell with this name; without an MHA factor the flag has its default, on.

    The order of factors is fixed, so that a cell has one name everywhere.
    """
    stacks = {stack.name: stack for stack in load_stacks()}
    stack, *factors = name.split("-")
    if stack not in stacks:
        raise one_of(f"stack in cell {name!r}:", stack, list(stacks))
    if len(factors) not in (1, 2):
        raise UsageError(f"cell {name!r} is not of the form {CELL_FORM}, e.g. {stack}-aiter-mha")
    aiter, mha = factors[0], factors[1] if len(factors) == 2 else "mha"
    for position, factor, known in (
        ("second", aiter, AITER_FACTORS),
        ("third", mha, MHA_FACTORS),
    ):
        if factor not in known:
            raise one_of(f"{position} factor in cell {name!r}:", factor, list(known))
    return Cell(stacks[stack], AITER_FACTORS[aiter], MHA_FACTORS[mha])


def match_cells(patterns: Iterable[str]) -> tuple[Cell, ...]:
    """The cells that match any of the names or shell-style patterns, once each, in table order.

    Patterns are matched against full names (``rocm62-aiter-mha``); each must match at least one.
    """
    patterns = tuple(patterns)
    if not patterns:
        raise UsageError("no cell was named: give one, or * for all")
    chosen = {name for pattern in patterns for name in _matches(pattern)}
    return tuple(cell for cell in all_cells() if cell.name in chosen)


def _matches(pattern: str) -> list[str]:
    if not any(character in pattern for character in "*?["):
        return [parse_cell(pattern).name]
    names = [cell.name for cell in all_cells() if fnmatchcase(cell.name, pattern)]
    if not names:
        stacks = ", ".join(stack.name for stack in load_stacks())
        raise UsageError(
            f"no cell matches {pattern!r}: names are of the form "
            f"<stack>-<aiter|noaiter>-<mha|nomha>, with the stacks {stacks}"
        )
    return names


def platform_cells(
    cells: Iterable[Cell], targets: Collection[str] = (), env: Mapping[str, str] | None = None
) -> dict[Platform, tuple[str, ...]]:
    """Every distinct platform of the cells, with the cells that share it.

    ``targets``: platforms of these alone, if there are any. ``env``: set on all of them besides.

    Both are in the order of their first appearance, so that equal input gives equal runs.
    """
    shared: dict[Platform, list[str]] = {}
    for cell in cells:
        for platform in cell.platforms():
            if not targets or platform.target in targets:
                shared.setdefault(platform.with_env(env or {}), []).append(cell.name)
    return {platform: tuple(dict.fromkeys(names)) for platform, names in shared.items()}
