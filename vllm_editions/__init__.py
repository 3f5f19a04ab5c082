"""Editions: what each vLLM release series specifies, read from the tables beside this file.

A new release is a new table: a delta from another edition (``base``), a ``[[change]]`` a row, each
with the line of the release that says so. Nothing in the code asks for a version.

**Conditions.** Wherever an entry holds only in some situation, its conditions are words that must
all hold: the name of a flag (a variable of ``flags``), ``aiter`` or ``flash_attn`` (the package can
be imported), ``aiter_supported`` (aiter, on a target that counts), ``on CLASS`` (the target is of
that class), ``NAME=VALUE`` (a variable has exactly that value), or the name of a request's field
that must be true. ``!`` before a word means that it must not hold.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import resources
from typing import Any, Literal

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field

from vllm_editions.changes import applied

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The edition of what is no release, this suite's own selector, unless the user names another: that
# of https://github.com/vllm-project/vllm/pull/36702.
DEFAULT_EDITION = "0.19"
# The word for the edition of each build's own release.
AUTO_EDITION = "auto"
AttnType = Literal["decoder", "encoder", "encoder_only", "encoder_decoder"]
Conditions = tuple[str, ...]
# Supported or not everywhere, or where all conditions hold; they name no request's field.
Support = bool | Conditions


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseBound(_Table):
    """An entry (dotted path) that a build is held to by its own release, not by the edition."""

    path: str
    source: str


class Asked(_Table):
    """What a release's selector is asked.

    ``fields`` are those of its ``AttentionSelectorConfig``; ``context`` is what it reads of the
    engine's configuration besides; ``kv_cache_dtypes`` are the names of its ``CacheDType``.
    """

    fields: tuple[str, ...]
    context: tuple[str, ...] = ()
    kv_cache_dtypes: tuple[str, ...]


class Check(_Table):
    """A check after that of the attention type.

    A request in which all fields of ``asked`` are true is rejected for ``reason`` by a backend
    without the capability ``supports``, a field of :class:`Backend`.
    """

    asked: tuple[str, ...]
    supports: str
    reason: str


class SharedLayout(_Table):
    """In a run whose KV-cache dtype is ``run`` (a pattern), layers of another dtype need a backend
    that reads one of ``backend``'s cache layouts; else ``reason`` is all they are rejected for.

    ``automatic`` and ``explicit`` say which choices are held to it.
    """

    run: str
    backend: str
    reason: str
    automatic: bool = True
    explicit: bool = True


class FallThrough(_Table):
    """Where a rejected explicit backend gives way to the automatic choice.

    ``run`` and ``layer`` are patterns of the KV-cache dtype of the run and of the request: one of
    them must fit, and the one reason must be among ``reasons`` (none listed: whatever they are).
    """

    run: str = ""
    layer: str = ""
    reasons: tuple[str, ...] = ()


class SelectionRules(_Table):
    """How the selector treats every request.

    ``aiter_supported_on`` names the target class on which an importable aiter counts.
    """

    block_size_checked: bool
    aiter_supported_on: str
    checks: tuple[Check, ...] = ()
    shared_layouts: tuple[SharedLayout, ...] = ()
    falls_through: tuple[FallThrough, ...] = ()


class ListEntry(_Table):
    """A backend of a candidate list, and the conditions that put it there."""

    backend: str
    when: Conditions = ()


class CandidateLists(_Table):
    """Candidates in order of preference, by the kind of request."""

    dense: tuple[ListEntry, ...]
    mla: tuple[ListEntry, ...]
    sparse: tuple[ListEntry, ...]


class Refusal(_Table):
    """A combination that a backend rejects in words of its own.

    It rejects where every condition holds and the request's dtypes are among those listed (an
    empty list: any; of KV-cache dtypes ``none`` is none given).
    """

    reason: str
    when: Conditions = ()
    dtypes: tuple[str, ...] = ()
    kv_cache_dtypes: tuple[str, ...] = ()


class Backend(_Table):
    """What one backend supports.

    An absent list means no restriction. ``block_sizes``: the cache block must be a multiple of
    one of them (tokens). ``kv_cache_dtype_required``: a request without a KV-cache dtype is
    rejected. ``only_on`` names a target class. ``imports`` is the package without which the class
    cannot be imported. ``layouts`` are the KV-cache layouts that its kernels read, ``layouts_on``
    those on targets of a class.
    """

    head_sizes: frozenset[int] | None = None
    min_head_size: int = 0
    dtypes: frozenset[str]
    kv_cache_dtypes: frozenset[str]
    kv_cache_dtype_required: bool = False
    block_sizes: tuple[int, ...] = ()
    mm_prefix: bool = False
    mla: bool = False
    sinks: Support = False
    sparse: bool = False
    per_head_quant_scales: bool = False
    attn_types: frozenset[AttnType]
    sliding_window: Support = False
    rswa: Support = False
    non_causal: Support = False
    non_causal_dcp: Support = False
    batch_invariant: Support = False
    kv_connector: Support = True
    pcp: Support = False
    dcp: Support = False
    adaptive_verification: Support = True
    only_on: str | None = None
    imports: Literal["aiter", "flash_attn"] | None = None
    layouts: tuple[str, ...] | None = None
    layouts_on: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    refuses: tuple[Refusal, ...] = ()


class PagedAttentionRule(_Table):
    """Where ROCM_ATTN's custom HIP kernel applies on one target class.

    ``gqa_ratio`` is an inclusive range of query heads per KV head; ``max_seq_len`` is in tokens.
    """

    head_sizes: frozenset[int]
    block_sizes: frozenset[int]
    gqa_ratio: tuple[int, int]
    max_seq_len: int
    dtypes: frozenset[str]
    alibi: bool
    kv_cache_dtypes: frozenset[str] | None = None
    when: Conditions = ()


class VitRule(_Table):
    """One step of the vision choice; the first that applies decides."""

    backend: str
    when: Conditions = ()
    only_on: str | None = None
    dtypes: frozenset[str] | None = None


class VitRules(_Table):
    explicit: tuple[str, ...]
    rules: tuple[VitRule, ...]


class Edition(_Table):
    """Everything the selector of one vLLM release series goes by."""

    edition: str
    source: str
    release_bound: tuple[ReleaseBound, ...] = ()
    asked: Asked
    selection: SelectionRules
    classes: dict[str, tuple[str, ...]]
    flags: dict[str, bool]
    candidates: CandidateLists
    backends: dict[str, Backend]
    paged_attention: dict[str, PagedAttentionRule] = Field(default_factory=dict)
    vit: VitRules

    def in_class(self, target: str, name: str) -> bool:
        """Whether a gfx name belongs to a target class."""
        return any(part in target for part in self.classes[name])


def editions() -> list[str]:
    """The known editions, oldest first."""
    names = (entry.name for entry in resources.files(__name__).iterdir())
    series = [name.removesuffix(".toml") for name in names if name.endswith(".toml")]
    return sorted(series, key=_series_key)


@cache
def kv_cache_dtypes() -> list[str]:
    """The KV-cache dtypes that some edition knows by name."""
    named = (name for edition in editions() for name in load_edition(edition).asked.kv_cache_dtypes)
    return list(dict.fromkeys(named))


def is_release(version: str) -> bool:
    """Whether a build's version says which release it is of.

    A checkout that was never built says "dev", and one that was built without git's tags says
    0.1.dev and the number of its commits.
    """
    try:
        said = Version(version)
    except InvalidVersion:
        return False
    return not said.is_devrelease or said.release[:2] > (0, 1)


def nearest_edition(version: str) -> str:
    """The edition of a release's series, else the newest older one, else the oldest known."""
    wanted = _series_key(version)
    older = [name for name in editions() if _series_key(name) <= wanted]
    return older[-1] if older else editions()[0]


@cache
def load_edition(name: str, release: str | None = None) -> Edition:
    """Reads an edition's table.

    ``release`` is the vLLM version of the build to be judged: entries that are bound to the
    release are then taken from that release's own edition, if it is a release at all.

    Raises:
        KeyError: there is no such edition.
    """
    table = edition_rows(name)
    own = nearest_edition(release) if release and is_release(release) else name
    if own != name:
        other = edition_rows(own)
        for bound in table.get("release_bound", []):
            _copy_entry(other, table, bound["path"].split("."))
    return Edition.model_validate(table)


def edition_rows(name: str) -> dict[str, Any]:
    """An edition's table as its file says it: its own, or its base's with its changes.

    Raises:
        KeyError: there is no such edition.
    """
    table = edition_file(name)
    return applied(table, edition_rows(table["base"])) if "base" in table else table


def edition_file(name: str) -> dict[str, Any]:
    """What is in an edition's file: a whole table, or a delta.

    Raises:
        KeyError: there is no such edition.
    """
    if name not in editions():
        raise KeyError(name)
    text = (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _copy_entry(source: dict[str, Any], into: dict[str, Any], path: list[str]) -> None:
    for key in path[:-1]:
        source, into = source[key], into[key]
    into[path[-1]] = source[path[-1]]


def _series_key(version: str) -> tuple[int, ...]:
    """``0.19.0+rocm721`` -> (0, 19): a series is a version's first two numbers."""
    return Version(version).release[:2]
