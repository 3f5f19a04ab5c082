"""Whether the problems of a run made each backend run every kernel that it chooses among."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from conformance.results import CaseResult, Outcome

REQUIREMENT = "PAR-090"
RAN = "ran "
_UNIFIED = ("cache_write", "unified_2d", "unified_3d", "combine_segments", "varlen")
_LATENT = ("cache_write", "expand_block_table", "plan_work", "latent_worker", "combine_cut")
# Of the reference: the names that its backends give to what they launch.
REFERENCE_KERNELS = {
    "ROCM_ATTN": (
        "cache_write",
        "context_attention",
        "paged_decode_partitioned",
        "paged_decode_2d",
        "varlen",
    ),
    "ROCM_AITER_FA": (
        "cache_write",
        "varlen",
        "gather_context",
        "context_chunk",
        "merge",
        "paged_decode_segments",
        "combine_segments",
    ),
    "ROCM_AITER_UNIFIED_ATTN": _UNIFIED,
    "TRITON_ATTN": _UNIFIED,
    "FLEX_ATTENTION": ("cache_write", "flex"),
    "TRITON_MLA": (
        "cache_write",
        "latent_decode",
        "latent_decode_split",
        "combine_segments",
        "varlen",
        "gather_context",
        "varlen_context",
        "merge",
    ),
    "ROCM_AITER_MLA": (*_LATENT, "varlen", "gather_context", "varlen_context", "merge"),
    "ROCM_AITER_TRITON_MLA": (
        *_LATENT,
        "split_varlen",
        "gather_context",
        "split_varlen_context",
        "merge",
    ),
    "ROCM_AITER_MLA_SPARSE": (
        "cache_write",
        "index_logits",
        "topk",
        "translate",
        "plan_work",
        "latent_worker",
        "combine_cut",
    ),
    "FLASH_ATTN": ("varlen",),
    "TORCH_SDPA": ("torch_sdpa",),
}


def closing_cases(cases: Iterable[CaseResult], source: str) -> Iterator[CaseResult]:
    """A case for each reference backend that was given problems: passed when all its kernels ran.

    A backend whose problems could not be put to it (errored) is not judged.
    """
    of_backend = defaultdict(list)
    for case in cases:
        if case.suite == "parity" and case.subject == "reference" and case.backend:
            of_backend[case.backend].append(case)
    for backend, found in of_backend.items():
        if any(case.outcome is Outcome.ERRORED for case in found):
            continue
        ran = {name.removeprefix(RAN) for case in found for name in case.counts}
        missing = [name for name in REFERENCE_KERNELS[backend] if name not in ran]
        yield replace(
            found[0],
            name=f"{REQUIREMENT} {backend} [every kernel]",
            requirement=REQUIREMENT,
            source=source,
            outcome=Outcome.FAILED if missing else Outcome.PASSED,
            message=f"{backend}: no problem made it run {', '.join(missing)}" if missing else "",
            detail="",
            reproduce="",
            seconds=0.0,
            counts={"kernels": len(ran)},
            measures={},
        )
