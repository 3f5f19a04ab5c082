"""Changes of one cell of an edition's data, of every kind that a sweep can see.

Left out are cells that no request of a sweep can show: what a release is not asked about, and rules
of vision attention that ask for flash_attn, which only truth tables do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from conformance.matrix.requests import ATTN_TYPES, DTYPES
from conformance.matrix.targets import TARGETS
from conformance.suites.selection.sampling import HEAD_SIZES
from vllm_editions import Edition

Table = dict[str, Any]
Named = tuple[str, Callable[[Table], None]]

FLIPPED = ("mm_prefix", "mla", "sparse", "per_head_quant_scales", "sinks")
LISTED = {"dtypes": DTYPES, "attn_types": ATTN_TYPES}


@dataclass(frozen=True)
class Change:
    """One cell with another value. ``kind`` is what sort of cell it is, ``cell`` which table has
    it, ``name`` the whole of it: no other change of the edition has that name. ``apply`` changes
    an edition's data in place."""

    kind: str
    name: str
    apply: Callable[[Table], None]

    @property
    def cell(self) -> str:
        return self.name.partition(":")[0]


def changed(edition: Edition, count: int) -> Iterator[tuple[str, Edition]]:
    """``count`` copies of an edition, each with one cell changed, and which; seeded by its name."""
    table = edition.model_dump()
    for change in random.Random(edition.edition).sample(changes(edition), count):
        other = deepcopy(table)
        change.apply(other)
        yield change.name, Edition.model_validate(other)


def changes(edition: Edition) -> list[Change]:
    """Every change of one cell."""
    table = edition.model_dump()
    kinds = {
        "candidates": _of_candidates(table),
        "rule": _of_rules(edition),
        "paged attention": _of_paged_attention(table),
        "vision": _of_vision(table),
    }
    found = [Change(kind, *named) for kind, all_named in kinds.items() for named in all_named]
    for name in edition.backends:
        for named in _of_backend(name, edition, table["backends"][name]):
            found.append(Change("capability", *named))
    return found


def _set(*path: Any, to: Any) -> Callable[[Table], None]:
    def change(table: Table) -> None:
        *parents, last = path
        holder: Any = table
        for key in parents:
            holder = holder[key]
        holder[last] = to

    return change


def _of_candidates(table: Table) -> Iterator[Named]:
    for family, entries in table["candidates"].items():
        for at in range(len(entries) - 1):
            one, other = entries[at : at + 2]
            if not (one["when"] and other["when"]):  # or they may never stand there together
                order = (*entries[:at], other, one, *entries[at + 2 :])
                yield f"{family}: order at {at}", _set("candidates", family, to=order)
        for at, entry in enumerate(entries):
            left_out = (*entries[:at], *entries[at + 1 :])
            yield (
                f"{family} {entry['backend']}: left out at {at}",
                _set("candidates", family, to=left_out),
            )
            for condition in entry["when"]:
                if condition.removeprefix("!").startswith(("VLLM_", "use_", "aiter_supported")):
                    left = tuple(c for c in entry["when"] if c != condition)
                    name = f"{family} {entry['backend']}: {condition}"
                    if condition != "!aiter_supported":  # what stands beside it says so too
                        yield name, _set("candidates", family, at, "when", to=left)


def _of_backend(name: str, edition: Edition, row: Table) -> Iterator[Named]:
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


def _of_rules(edition: Edition) -> Iterator[Named]:
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


def _of_paged_attention(table: Table) -> Iterator[Named]:
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


def _of_vision(table: Table) -> Iterator[Named]:
    vit = table["vit"]
    for name in vit["explicit"]:
        left = tuple(other for other in vit["explicit"] if other != name)
        yield f"vision: explicit {name}", _set("vit", "explicit", to=left)
    for at, rule in enumerate(vit["rules"]):
        if "flash_attn" not in rule["when"] and "aiter" not in rule["when"]:
            yield f"vision: rule {at}", _set("vit", "rules", at, "backend", to="TRITON_ATTN")
