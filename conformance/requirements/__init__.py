"""Requirements as data: numbered statements, each with its source, and rows that test it.

The rows were written by hand from the sources; none is the output of a selector. The reference,
``kernels/rocm_reference/selector.py``, is judged by these tables like every other subject.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conformance.errors import SuiteError, one_of
from conformance.matrix.requests import (
    AITER,
    MHA,
    Ask,
    PagedAttention,
    Platform,
    Question,
    Request,
    Vit,
)
from vllm_editions import is_release

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PULL_36702 = "https://github.com/vllm-project/vllm/pull/36702"

EVERY = "every"
_BACKEND = (
    'a requirement of parity.toml, and no other, names its backend: backend = "ROCM_ATTN", or '
    f'"{EVERY}" if it is about all of them'
)
FILES = (
    "selection",
    "later_releases",
    "capabilities",
    "paged_attention",
    "vit",
    "removal",
    "parity",
    "codegen",
)
TARGET_CLASSES: dict[str, tuple[str, ...]] = {
    "all": ("gfx",),
    "gfx9": ("gfx90a", "gfx942", "gfx950"),
    "mi3xx": ("gfx942", "gfx950"),
    "gfx1x": ("gfx11", "gfx12"),
}
_QUESTIONS: dict[str, type[Request] | type[PagedAttention] | type[Vit]] = {
    "attention": Request,
    "paged_attention": PagedAttention,
    "vit": Vit,
}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class On(_Table):
    """The platforms a row is about.

    ``env`` has conditions on the flags that a cell sets. ``set`` has further variables that the row
    sets: such a row is asked on a platform of its own, as is one with ``flash_attn``.
    """

    targets: tuple[str, ...] = ("all",)
    aiter: bool | None = None
    flash_attn: bool = False
    env: dict[Literal["VLLM_ROCM_USE_AITER", "VLLM_ROCM_USE_AITER_MHA"], Literal["0", "1"]] = {}
    set: dict[str, str] = {}

    def includes(self, platform: Platform) -> bool:
        """Whether the row is about a platform (before what it sets itself)."""
        flags = {AITER: "0", MHA: "1", **platform.variables}
        return (
            any(_is_in(platform.target, name) for name in self.targets)
            and self.aiter in (None, platform.aiter)
            and all(flags[name] == value for name, value in self.env.items())
        )

    def platform(self, base: Platform) -> Platform:
        """The platform on which the row is asked: the cell's, with what the row sets."""
        return Platform.make(
            base.target,
            aiter=base.aiter,
            flash_attn=self.flash_attn or base.flash_attn,
            env={**base.variables, **self.set},
        )


class Expect(_Table):
    """What must be true of the answer; an absent key is not checked.

    ``candidates`` are all of them, in order. ``in_order`` must be candidates in this order, with
    others before, between or after them; ``absent`` must not be candidates. ``as_without`` names
    fields of the request, or variables that the row sets: without them the answer must be the same.
    ``first_valid``: the first candidate without a reason must be selected, whichever that is.
    """

    selected: str | None = None
    candidates: tuple[str, ...] | None = None
    in_order: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    as_without: tuple[str, ...] = ()
    first_valid: bool = False
    rejected: dict[str, tuple[str, ...]] = {}
    error: str | None = None


class Row(_Table):
    """One row of a truth table; a value that is a list stands for a row for each element.

    ``holds`` are the release series that the row holds for; empty: all of its requirement's.
    """

    holds: str = ""
    on: On = On()
    request: dict[str, Any] = {}
    backend: str | list[str] | None = None
    expect: Expect

    def in_edition(self, edition: str) -> bool:
        return not self.holds or SpecifierSet(self.holds).contains(edition)


class Requirement(_Table):
    """One statement that a build must meet.

    ``holds`` are the release series that it holds for. ``binds`` says which builds must meet it:
    "edition", every build that is judged by an edition in ``holds``; "build", those but for the
    reference, for what a release gets wrong that its edition says too; "release", only builds of
    such a release, for what has nothing to do with the change under test. ``backend`` is the one
    whose kernels a parity requirement is about, or "every"; no other requirement has one.
    ``follows``: a wrong order of candidates breaks it too, so that reports list it after those that
    name the order.
    """

    id: str = Field(pattern=r"^[A-Z]{3}-\d{3}$")
    title: str
    sentence: str
    source: str
    holds: str
    introduced_by: str = ""
    binds: Literal["edition", "build", "release"] = "edition"
    contested: tuple[str, ...] = ()
    question: Literal["attention", "paged_attention", "vit", "probe"]
    backend: str = ""
    follows: bool = False
    row: tuple[Row, ...] = ()

    @cached_property
    def expanded(self) -> tuple[tuple[Row, tuple[TruthRow, ...]], ...]:
        """The rows, each with what it becomes without lists: every case of a run asks for them."""
        return tuple((row, tuple(_without_lists(self, row))) for row in self.row)

    def __copy__(self) -> Requirement:
        """A copy may be given other rows: what those of this one became is not its."""
        copied = super().__copy__()
        copied.__dict__.pop("expanded", None)
        return copied

    def in_edition(self, edition: str) -> bool:
        return _contains(self.holds, edition)

    def not_judged_because(self, release: str) -> str:
        """Why a build of ``release`` need not meet this requirement; "" if it must.

        A checkout that was never built has the version "dev", and must meet all of them.
        """
        if self.binds != "release" or not is_release(release):
            return ""
        series = ".".join(str(number) for number in Version(release).release[:2])
        if _contains(self.holds, series):
            return ""
        return f"holds for vLLM {self.holds}, and this build is {release} ({self.source})"


@cache
def _contains(releases: str, series: str) -> bool:
    """Whether a series is among some releases (PEP 440); asked again for every case of a run."""
    return SpecifierSet(releases).contains(series)


class TruthRow(BaseModel):
    """A row without lists: one question, one expectation."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    requirement: str
    on: On
    ask: Ask
    expect: Expect


@cache
def all_requirements() -> dict[str, Requirement]:
    """Every requirement by id, in the order of the tables.

    Raises:
        SuiteError: a table is malformed, or two requirements have the same id.
    """
    known: dict[str, Requirement] = {}
    for name, text in _tables():
        for requirement in requirements_in(name, text):
            if requirement.id in known:
                raise SuiteError(f"{name}.toml: a second requirement has the id {requirement.id}")
            known[requirement.id] = requirement
    return known


def _tables() -> Iterator[tuple[str, str]]:
    """The name and text of every table here, and of every table in a suite's own folder."""
    for name in FILES:
        yield name, (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    suites = resources.files("conformance") / "suites"
    for folder in sorted(suites.iterdir(), key=lambda entry: entry.name):
        if folder.is_dir() and (file := folder / "requirements.toml").is_file():
            yield f"suites/{folder.name}/requirements", file.read_text(encoding="utf-8")


def requirements_in(name: str, text: str) -> Iterator[Requirement]:
    """The requirements of one table, whose text is ``text``.

    Raises:
        SuiteError: an entry is malformed, or lacks a backend, or has one and should not.
    """
    for entry in tomllib.loads(text).get("requirement", []):
        try:
            requirement = Requirement.model_validate(entry)
        except ValidationError as error:
            raise SuiteError(f"{name}.toml, {entry.get('id')}: {error}") from None
        if (name == "parity") != bool(requirement.backend):
            raise SuiteError(f"{name}.toml, {requirement.id}: {_BACKEND}")
        yield requirement


def requirement(identifier: str) -> Requirement:
    """One requirement by its id."""
    known = all_requirements()
    if identifier not in known:
        raise one_of("requirement", identifier, list(known))
    return known[identifier]


@cache
def requirements_of(edition: str) -> dict[str, Requirement]:
    """The requirements of an edition, by id."""
    return {k: r for k, r in all_requirements().items() if r.in_edition(edition)}


def parity_backends(edition: str) -> dict[str, str]:
    """The parity requirements of an edition that are about one backend, each with its name."""
    return {
        name: requirement.backend
        for name, requirement in requirements_of(edition).items()
        if requirement.backend not in ("", EVERY)
    }


def truth_rows(requirement: Requirement, edition: str = "") -> Iterator[TruthRow]:
    """A requirement's rows, with lists expanded; ``edition``: those that hold in it alone."""
    for row, rows in requirement.expanded:
        if not edition or row.in_edition(edition):
            yield from rows


def _without_lists(requirement: Requirement, row: Row) -> Iterator[TruthRow]:
    backends = row.backend if isinstance(row.backend, list) else [row.backend]
    for backend, question in itertools.product(backends, _spread(requirement, row)):
        yield TruthRow(
            requirement=requirement.id,
            on=row.on,
            ask=Ask(question, backend),
            expect=row.expect,
        )


def _spread(requirement: Requirement, row: Row) -> Iterator[Question]:
    kind = _QUESTIONS[requirement.question]
    options = [value if isinstance(value, list) else [value] for value in row.request.values()]
    for values in itertools.product(*options):
        chosen = dict(zip(row.request, values, strict=True))
        if chosen.get("kv_cache_dtype") == "none":
            chosen["kv_cache_dtype"] = None
        if kind is Request and chosen.get("block_size") == 0:
            chosen["block_size"] = None
        try:
            yield kind(**chosen)
        except TypeError as error:
            raise SuiteError(f"{requirement.id}: {error}") from None


def _is_in(target: str, name: str) -> bool:
    return any(part in target for part in TARGET_CLASSES.get(name, (name,)))
