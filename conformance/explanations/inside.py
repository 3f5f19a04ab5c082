"""What runs inside a backend: its kernels by phase, and why ROCM_ATTN decodes with which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict

from conformance.matrix.requests import PagedAttention, Platform
from conformance.subjects.reference import selector_on
from rocm_reference.selector import CUSTOM_KERNEL
from vllm_editions import Edition, PagedAttentionRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENCODER = ("encoder",)
DECODER = ("prefill", "decode")


class KernelRow(BaseModel):
    """A kernel of a backend, in the phases that it runs in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str
    phases: tuple[str, ...]
    name: str
    by: str
    source: str
    choice: str = ""
    holds: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.by} ({self.source})"


@dataclass(frozen=True)
class Inside:
    """A phase, the kernel that runs in it, and why that one where there are two."""

    phase: str
    kernel: str
    why: str = ""


@cache
def _rows() -> tuple[KernelRow, ...]:
    file = resources.files(__package__).joinpath("backend_kernels.toml")
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(KernelRow.model_validate(row) for row in table["kernel"])


def kernels_of(backend: str, edition: str, phase: str, choice: str = "") -> str:
    """The kernel of a phase in words; "" if the table does not say."""
    for row in _rows():
        fits = row.backend == backend and phase in row.phases
        if fits and row.choice == choice and SpecifierSet(row.holds).contains(edition):
            return str(row)
    return ""


def inside(
    backend: str, table: Edition, platform: Platform, inner: PagedAttention | None, *, encoder: bool
) -> Iterator[Inside]:
    """What runs in each phase; ``inner`` is what ROCM_ATTN's choice of a decode kernel depends on.

    An encoder has one phase: it has no cache, and so nothing to decode.
    """
    for phase in ENCODER if encoder else DECODER:
        choice = why = ""
        if backend == "ROCM_ATTN" and phase == "decode":
            if inner is None:
                continue
            choice = selector_on(table, platform).paged_attention(inner)
            why = _why(choice, table, platform, inner)
        if kernel := kernels_of(backend, table.edition, phase, choice):
            yield Inside(phase, kernel, why)


def _why(choice: str, table: Edition, platform: Platform, inner: PagedAttention) -> str:
    found = rule_on(table, platform.target)
    if choice != CUSTOM_KERNEL:
        return "not the HIP kernel: " + "; ".join(reasons_against(table, platform, inner))
    most = found.max_seq_len if found else 0
    return f"for sequences of up to {most:,} tokens; past that, a Triton kernel"


def rule_on(table: Edition, target: str) -> PagedAttentionRule | None:
    """Where the custom kernel applies on a target, if anywhere."""
    rules = table.paged_attention.items()
    return next((rule for name, rule in rules if table.in_class(target, name)), None)


def reasons_against(table: Edition, platform: Platform, inner: PagedAttention) -> list[str]:
    """What keeps ROCM_ATTN from decoding with its HIP kernel; nothing: it does."""
    rule = rule_on(table, platform.target)
    if rule is None:
        return [f"there is none for {platform.target}"]
    low, high = rule.gqa_ratio
    caches = rule.kv_cache_dtypes
    off = [name for name in rule.when if not _is_on(table, platform, name)]
    tried = (
        (bool(off), f"{', '.join(off)} is off"),
        (inner.sliding_window != 0, "the layer has a sliding window"),
        (inner.dtype not in rule.dtypes, f"the dtype is {inner.dtype}"),
        (
            inner.head_size not in rule.head_sizes,
            _one_of("head size", inner.head_size, rule.head_sizes),
        ),
        (
            inner.block_size not in rule.block_sizes,
            _one_of("block size", inner.block_size, rule.block_sizes),
        ),
        (
            not low <= inner.gqa_ratio <= high,
            f"{inner.gqa_ratio} query heads share a KV head, and it takes {low} to {high}",
        ),
        (
            inner.max_seq_len > rule.max_seq_len,
            f"sequences of {inner.max_seq_len:,} tokens are longer than {rule.max_seq_len:,}",
        ),
        (inner.alibi and not rule.alibi, "it has no ALiBi"),
        (
            caches is not None and inner.kv_cache_dtype not in caches,
            f"the KV-cache dtype is {inner.kv_cache_dtype}",
        ),
        (inner.sinks, "it has no attention sinks"),
    )
    return [reason for holds, reason in tried if holds]


def _is_on(table: Edition, platform: Platform, flag: str) -> bool:
    value = platform.variables.get(flag)
    return table.flags[flag] if value is None else value.lower() in ("1", "true")


def _one_of(what: str, value: int, allowed: frozenset[int]) -> str:
    return f"the {what} is {value}, and it takes {' or '.join(map(str, sorted(allowed)))}"
