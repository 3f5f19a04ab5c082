"""Changes of one cell of an edition's data, of every kind that a sweep can see.

Left out are cells that no request of a sweep can show: what a release is not asked about, and rules
of vision attention that ask for flash_attn, which only truth tables do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from conformance.matrix.requests import ATTN_TYPES, DTYPES
from conformance.matrix.targets import TARGETS
from conformance.suites.selection.sampling import HEAD_SIZES
from vllm_editions import Edition

Table = dict[str, Any]
Change = tuple[str, Callable[[Table], None]]

FLIPPED = ("mm_prefix", "mla", "sparse", "per_head_quant_scales", "sinks")
LISTED = {"dtypes": DTYPES, "attn_types": ATTN_TYPES}


def changed(edition: Edition, count: int) -> Iterator[tuple[str, Edition]]:
    """``count`` copies of an edition, each with one cell changed, and which; seeded by its name."""
    table = edition.model_dump()
    every = list(_changes(edition, table))
    for name, change in random.Random(edition.edition).sample(every, count):
        other = deepcopy(table)
        change(other)
        yield name, Edition.model_validate(other)


def _changes(edition: Edition, table: Table) -> Iterator[Change]:
    yield from _of_candidates(table)
    for name in edition.backends:
        yield from _of_backend(name, edition, table["backends"][name])
    yield from _of_rules(edition)
    yield from _of_paged_attention(table)
    yield from _of_vision(table)


def _set(*path: Any, to: Any) -> Callable[[Table], None]:
    def change(table: Table) -> None:
        *parents, last = path
        holder: Any = table
        for key in parents:
            holder = holder[key]
        holder[last] = to

    return change


def _of_candidates(table: Table) -> Iterator[Change]:
    for family, entries in table["candidates"].items():
        for at in range(len(entries) - 1):
            one, other = entries[at : at + 2]
            if not (one["when"] and other["when"]):  # or they may never stand there together
                order = (*entries[:at], other, one, *entries[at + 2 :])
                yield f"{family}: order at {at}", _set("candidates", family, to=order)
        for at, entry in enumerate(entries):
            for condition in entry["when"]:
                if condition.removeprefix("!").startswith(("VLLM_", "use_", "aiter_supported")):
                    left = tuple(c for c in entry["when"] if c != condition)
                    name = f"{family} {entry['backend']}: {condition}"
                    if condition != "!aiter_supported":  # what stands beside it says so too
                        yield name, _set("candidates", family, at, "when", to=left)


def _of_backend(name: str, edition: Edition, row: Table) -> Iterator[Change]:
    at = ("backends", name)
    flipped = {*FLIPPED, *(check.supports for check in edition.selection.checks)}
    for cell in sorted(flipped - {"non_causal_dcp"}):
        if isinstance(row[cell], bool):
            yield f"{name}: {cell}", _set(*at, cell, to=not row[cell])
    for cell, known in {**LISTED, "kv_cache_dtypes": edition.asked.kv_cache_dtypes}.items():
        for value in sorted(known):
            yield f"{name}: {cell} {value}", _set(*at, cell, to=row[cell] ^ {value})
    for size in sorted((row["head_sizes"] or set()) & set(HEAD_SIZES)):
        yield f"{name}: head size {size}", _set(*at, "head_sizes", to=row["head_sizes"] - {size})
    if row["min_head_size"]:
        yield f"{name}: least head size", _set(*at, "min_head_size", to=row["min_head_size"] + 1)
    if row["block_sizes"] and edition.selection.block_size_checked:
        least, *others = sorted(row["block_sizes"])
        yield f"{name}: block size", _set(*at, "block_sizes", to=(2 * least, *others))
    for cell in ("only_on", "imports"):
        if row[cell]:
            yield f"{name}: {cell}", _set(*at, cell, to=None)
    if row["kv_cache_dtype_required"]:
        yield f"{name}: kv dtype required", _set(*at, "kv_cache_dtype_required", to=False)
    for number, refusal in enumerate(row["refuses"]):
        words = (*at, "refuses", number, "reason")
        yield f"{name}: refusal {number}", _set(*words, to=f"{refusal['reason']}, or is it?")


def _of_rules(edition: Edition) -> Iterator[Change]:
    rules = ("selection",)
    checked = not edition.selection.block_size_checked
    yield "block size checked", _set(*rules, "block_size_checked", to=checked)
    yield "aiter counts on gfx9", _set(*rules, "aiter_supported_on", to="gfx1x")
    for at, check in enumerate(edition.selection.checks):
        reason = (*rules, "checks", at, "reason")
        yield f"check of {check.supports}", _set(*reason, to="something else not supported")
    for at, shared in enumerate(edition.selection.shared_layouts):
        row = (*rules, "shared_layouts", at)
        yield f"layouts of {shared.run}: reason", _set(*row, "reason", to="no layout in common")
        for cell in ("automatic", "explicit"):
            value = not getattr(shared, cell)
            yield f"layouts of {shared.run}: {cell}", _set(*row, cell, to=value)
    if edition.selection.falls_through:
        yield "nothing falls through", _set(*rules, "falls_through", to=())
    for flag, default in edition.flags.items():
        yield f"default of {flag}", _set("flags", flag, to=not default)
    counts_on = edition.selection.aiter_supported_on
    for target in edition.classes[counts_on]:
        if target in TARGETS:
            left = tuple(t for t in edition.classes[counts_on] if t != target)
            yield f"{target} in {counts_on}", _set("classes", counts_on, to=left)


def _of_paged_attention(table: Table) -> Iterator[Change]:
    for name, rule in table["paged_attention"].items():
        at = ("paged_attention", name)
        for cell in ("head_sizes", "block_sizes", "dtypes"):
            for value in sorted(rule[cell]):
                yield f"paged {name}: {cell} {value}", _set(*at, cell, to=rule[cell] - {value})
        low, high = rule["gqa_ratio"]
        yield f"paged {name}: ratio", _set(*at, "gqa_ratio", to=(low, high + 1))
        longer = rule["max_seq_len"] + 1
        yield f"paged {name}: length", _set(*at, "max_seq_len", to=longer)
        yield f"paged {name}: alibi", _set(*at, "alibi", to=not rule["alibi"])


def _of_vision(table: Table) -> Iterator[Change]:
    vit = table["vit"]
    for name in vit["explicit"]:
        left = tuple(other for other in vit["explicit"] if other != name)
        yield f"vision: explicit {name}", _set("vit", "explicit", to=left)
    for at, rule in enumerate(vit["rules"]):
        if "flash_attn" not in rule["when"] and "aiter" not in rule["when"]:
            yield f"vision: rule {at}", _set("vit", "rules", at, "backend", to="TRITON_ATTN")
