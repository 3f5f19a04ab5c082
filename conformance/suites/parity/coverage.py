"""Whether the problems of a run made each backend run every one of its kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from conformance.config import RunConfig
from conformance.requirements import requirement
from conformance.results import CaseResult, Outcome
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.parity.options import only_problem

REQUIREMENT = "PAR-090"
RAN = "ran "
_UNIFIED = ("cache_write", "unified_2d", "unified_3d", "combine_segments", "varlen")
_LATENT = ("cache_write", "expand_block_table", "plan_work", "latent_worker", "combine_cut")
# The reference's kernels, as its backends name what they launch.
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

_ENCODER = "triton_prefill_attention._fwd_kernel"
_WRITE = "triton_reshape_and_cache_flash.reshape_and_cache_kernel_flash"
# vLLM's own Triton kernels (module.function), or torch's where a backend has none. HIP and CK
# kernels are not expected here; ``OTHER_KERNELS`` names them.
VLLM_KERNELS = {
    "ROCM_ATTN": (
        _WRITE,
        "prefix_prefill._fwd_kernel",
        "prefix_prefill._fwd_kernel_alibi",
        "chunked_prefill_paged_decode.kernel_paged_attention_2d",
        _ENCODER,
    ),
    "TRITON_ATTN": (
        _WRITE,
        "triton_unified_attention.kernel_unified_attention_2d",
        "triton_unified_attention.kernel_unified_attention_3d",
        "triton_unified_attention.reduce_segments",
        _ENCODER,
    ),
    "FLEX_ATTENTION": ("torch flex_attention, not compiled",),
    "TRITON_MLA": (
        "triton_decode_attention._fwd_grouped_kernel_stage1",
        "triton_decode_attention._fwd_kernel_stage2",
        "triton_merge_attn_states.merge_attn_states_kernel",
    ),
    "TORCH_SDPA": ("torch_sdpa",),
}
KERNELS = {SubjectKind.REFERENCE: REFERENCE_KERNELS, SubjectKind.VLLM: VLLM_KERNELS}


def closing_cases(config: RunConfig, cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """A run's cases about kernels, for subjects whose edition has the requirement.

    A run of a single problem shows nothing about them.
    """
    rule = requirement(REQUIREMENT)
    held = [case for case in cases if rule.in_edition(config.edition_of(case.subject))]
    if not only_problem(config):
        yield from kernels_reached(held, rule.source)


def kernels_reached(cases: Iterable[CaseResult], source: str) -> Iterator[CaseResult]:
    """A case for each backend of each subject, which passes if all its kernels ran.

    A backend is left out if one of its cases ended in an error, or if it could take no problem.
    """
    of_backend = defaultdict(list)
    for case in cases:
        if case.suite == "parity" and case.backend:
            of_backend[case.subject, case.backend].append(case)
    for (subject, backend), ended in of_backend.items():
        outcomes = {case.outcome for case in ended}
        kernels = KERNELS.get(kind_of(subject), {}).get(backend)
        if kernels is None or Outcome.ERRORED in outcomes or outcomes == {Outcome.UNSUPPORTED}:
            continue
        ran = {name.removeprefix(RAN) for case in ended for name in case.counts}
        missing = [name for name in kernels if name not in ran]
        yield replace(
            ended[0],
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
