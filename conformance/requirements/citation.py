"""Which requirement to cite for a part of an answer: never one whose own rows say otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from conformance.matrix.requests import Ask, Platform, Request
from conformance.requirements import Requirement, TruthRow, all_requirements, truth_rows
from conformance.requirements.attribution import Facet, Rule

# The fields of a request that a reason is about; a reason that is not here is about all of them.
_ABOUT: dict[str, tuple[str, ...]] = {
    "head_size not supported": ("head_size",),
    "dtype not supported": ("dtype",),
    "kv_cache_dtype not supported": ("kv_cache_dtype",),
    "block_size not supported": ("block_size",),
    "partial multimodal token full attention not supported": ("use_mm_prefix",),
    "MLA not supported": ("use_mla",),
    "non-MLA not supported": ("use_mla",),
    "attention sinks not supported": ("has_sink",),
    "sparse not supported": ("use_sparse",),
    "non-sparse not supported": ("use_sparse",),
    "per-head quant scales not supported": ("use_per_head_quant_scales",),
    "sliding window not supported": ("has_sliding_window",),
    "R-SWA not supported": ("use_rswa",),
    "non-causal attention not supported": ("use_non_causal",),
    "batch invariance not supported": ("use_batch_invariant",),
    "KV connector not supported": ("use_kv_connector",),
    "PCP not supported": ("use_pcp",),
    "DCP not supported": ("use_dcp",),
}


def cited(
    facets: Iterable[Facet],
    rules: Sequence[Rule],
    known: dict[str, Requirement],
    edition: str,
    platform: Platform,
    ask: Ask,
    listed: Sequence[str] = (),
) -> str:
    """The first requirement that fits one of the facets and does not contradict it; "" if none.

    ``listed`` are the candidates in their order, which a facet about the list says.
    """
    for facet in facets:
        for rule in rules:
            if rule.answers_for(facet):
                rows = _rows(known[rule.requirement].id, edition)
                if not any(_contradicts(row, facet, platform, ask, listed) for row in rows):
                    return rule.requirement
    return ""


@cache
def _rows(requirement: str, edition: str) -> tuple[TruthRow, ...]:
    return tuple(truth_rows(all_requirements()[requirement], edition))


def _contradicts(
    row: TruthRow, facet: Facet, platform: Platform, ask: Ask, listed: Sequence[str]
) -> bool:
    """Whether a row that is about the same says the opposite."""
    if not isinstance(row.ask.question, Request) or not isinstance(ask.question, Request):
        return False
    if not row.on.includes(platform) or row.on.set:
        return False
    if facet.kind == "reason":
        reasons = row.expect.rejected.get(facet.backend)
        fields = _ABOUT.get(facet.reason)
        alike = row.ask.question == ask.question if fields is None else _alike(row, ask, fields)
        return alike and reasons is not None and facet.reason not in reasons
    if row.ask != ask:
        return False
    candidates = row.expect.candidates
    return candidates is not None and tuple(listed) != candidates


def _alike(row: TruthRow, ask: Ask, fields: Sequence[str]) -> bool:
    return all(getattr(row.ask.question, f) == getattr(ask.question, f) for f in fields)
