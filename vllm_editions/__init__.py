"""Editions: what each vLLM release series specifies, read from the tables beside this file.

A new release is a new table. Nothing in the code asks for a version.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import resources
from typing import Any, Literal

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The edition that builds are judged by unless the user names another: that of
# https://github.com/vllm-project/vllm/pull/36702.
DEFAULT_EDITION = "0.19"
AttnType = Literal["decoder", "encoder", "encoder_only", "encoder_decoder"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseBound(_Table):
    """An entry (dotted path) that a build is held to by its own release, not by the edition."""

    path: str
    source: str


class SelectionRules(_Table):
    """How the selector treats every request.

    ``aiter_supported_on`` names the target class on which an importable aiter counts.
    """

    block_size_checked: bool
    aiter_supported_on: str


class ListEntry(_Table):
    """A backend of a candidate list, and the conditions that put it there."""

    backend: str
    when: tuple[str, ...] = ()


class CandidateLists(_Table):
    """Candidates in order of preference, by the kind of request."""

    dense: tuple[ListEntry, ...]
    mla: tuple[ListEntry, ...]
    sparse: tuple[ListEntry, ...]


class Backend(_Table):
    """What one backend supports.

    An absent list means no restriction. ``block_sizes``: the cache block must be a multiple of
    one of them (tokens). ``only_on`` names a target class.
    """

    head_sizes: frozenset[int] | None = None
    min_head_size: int = 0
    dtypes: frozenset[str]
    kv_cache_dtypes: frozenset[str]
    block_sizes: tuple[int, ...] = ()
    mm_prefix: bool = False
    mla: bool = False
    sinks: bool = False
    sparse: bool = False
    per_head_quant_scales: bool = False
    attn_types: frozenset[AttnType]
    only_on: str | None = None


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
    when: tuple[str, ...] = ()


class VitRule(_Table):
    """One step of the vision choice; the first that applies decides."""

    backend: str
    when: tuple[str, ...] = ()
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


def is_release(version: str) -> bool:
    """Whether a build's version says which release it is of; a bare checkout says "dev"."""
    try:
        return bool(Version(version))
    except InvalidVersion:
        return False


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
    table = _read(name)
    own = nearest_edition(release) if release and is_release(release) else name
    if own != name:
        other = _read(own)
        for bound in table.get("release_bound", []):
            _copy_entry(other, table, bound["path"].split("."))
    return Edition.model_validate(table)


def _read(name: str) -> dict[str, Any]:
    file = resources.files(__name__) / f"{name}.toml"
    if name not in editions():
        raise KeyError(name)
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _copy_entry(source: dict[str, Any], into: dict[str, Any], path: list[str]) -> None:
    for key in path[:-1]:
        source, into = source[key], into[key]
    into[path[-1]] = source[path[-1]]


def _series_key(version: str) -> tuple[int, ...]:
    """``0.19.0+rocm721`` -> (0, 19): a series is a version's first two numbers."""
    return Version(version).release[:2]
