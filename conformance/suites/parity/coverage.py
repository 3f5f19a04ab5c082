"""Whether the problems of a run made each backend run every one of its kernels, and what of the
space of problems they reached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from packaging.specifiers import SpecifierSet

from conformance.config import RunConfig
from conformance.matrix.toml_rows import read_rows
from conformance.problems.axes import values_of
from conformance.problems.features import admitted
from conformance.problems.problem import Problem
from conformance.problems.space import coverage_of
from conformance.requirements import requirement
from conformance.results import CaseResult, Outcome
from conformance.subjects.aiter import PREFIX
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.parity.options import is_restricted
from vllm_editions import is_release, nearest_edition

REQUIREMENT = "PAR-090"
RAN = "ran "
# The kind of a finding of a case that stopped with an error.
RAISED = "raised"
AXIS = "axis "
_UNIFIED = ("cache_write", "unified_2d", "unified_3d", "combine_segments", "varlen")
_PACKED = ("packed_write", "packed_attention", "packed_attention_split", "combine_segments")
_HEADS = ("heads_write", "heads_2d", "heads_3d")  # of caches with a scale per token and head
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
    "TREE_ATTN": ("cache_write", "unified_2d", "unified_3d", "combine_segments"),
    "TRITON_ATTN_DIFFKV": ("cache_write", "unified_2d", "unified_3d", "combine_segments"),
    "ROCM_SEGMENTED_ATTN": ("cache_write", "segmented_stage", "segmented_reduce"),
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
        "ragged",
    ),
    "TURBOQUANT": _PACKED,
    "ULTRAQUANT": _PACKED,
    "FLASH_ATTN": ("varlen",),
    "TORCH_SDPA": ("torch_sdpa",),
}


@dataclass(frozen=True)
class VllmKernel:
    """A row of ``vllm_kernels.toml``, which explains its columns."""

    name: str
    backends: tuple[str, ...]
    when: Mapping[str, str]
    holds: str = ""
    targets: tuple[str, ...] = ()

    def reached_by(self, problem: Problem) -> bool:
        """Whether the problem is one that makes the backend run it."""
        return self.when.items() <= values_of(problem).items()


@cache
def kernel_rows(backend: str, series: str) -> tuple[VllmKernel, ...]:
    """The kernels that vLLM's backend chooses among in a series of releases, with what is known."""
    text = resources.files(__package__).joinpath("vllm_kernels.toml").read_text(encoding="utf-8")
    rows = read_rows(text, "parity/vllm_kernels.toml", VllmKernel).values()
    return tuple(
        row for row in rows if backend in row.backends and SpecifierSet(row.holds).contains(series)
    )


def vllm_kernels(backend: str, series: str) -> tuple[str, ...]:
    """The kernels that vLLM's backend chooses among in a series of releases; none: not known."""
    return tuple(row.name for row in kernel_rows(backend, series))


def _series(case: CaseResult) -> str:
    """The release series of a case's build: its own, or of an unreleased one its edition."""
    released = is_release(case.subject_version)
    return nearest_edition(case.subject_version) if released else case.edition


def kernels_of(subject: str, backend: str, series: str, targets: Set[str]) -> tuple[str, ...]:
    """The kernels that a subject's backend must be seen to run; none: nothing is asked.

    ``targets``: those that its problems were given to.
    """
    if kind_of(subject) is SubjectKind.REFERENCE:
        own = REFERENCE_KERNELS.get(backend, ())
        scaled = bool(own) and admitted(backend, series).head_scaled
        return (*own, *_HEADS) if scaled else own
    if kind_of(subject) is SubjectKind.VLLM and not subject.startswith(PREFIX):
        rows = kernel_rows(backend, series)
        return tuple(row.name for row in rows if not row.targets or targets & {*row.targets})
    return ()


def closing_cases(config: RunConfig, cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """A run's cases about kernels, for subjects whose edition has the requirement.

    A run of problems that were named shows nothing about them, nor does one that only compiles.
    """
    rule = requirement(REQUIREMENT)
    held = [case for case in cases if rule.in_edition(config.edition_of(case.subject))]
    if is_restricted(config) or config.device.startswith("aot:"):
        return
    for case in kernels_reached(held, rule.source):
        yield replace(case, counts={**case.counts, **space_counts(config, case)})


def space_counts(config: RunConfig, case: CaseResult) -> dict[str, int]:
    """What a backend's problems reached: totals, and problems by value as ``axis name=value``."""
    edition = config.edition_of(case.subject)
    found = coverage_of(case.backend, config.tier, config.seed, edition)
    by_value = {
        f"{AXIS}{axis}={value}": count
        for axis, counts in found.reached.items()
        for value, count in counts.items()
    }
    totals = {"problems": found.problems, "values": found.values, "pairs of values": found.pairs}
    return {**totals, **by_value}


def kernels_reached(cases: Iterable[CaseResult], source: str) -> Iterator[CaseResult]:
    """A case for each backend of each subject, which passes if all its kernels ran.

    A backend is left out if one of its cases ended without a verdict, or if it brought no problem
    to an end: it took none, or stopped with an error, which is a finding of its own.
    """
    of_backend = defaultdict(list)
    for case in cases:
        if case.suite == "parity" and case.backend:
            of_backend[case.subject, case.backend].append(case)
    for (subject, backend), ended in of_backend.items():
        outcomes = {case.outcome for case in ended}
        brought_to_an_end = any(
            case.outcome is not Outcome.UNSUPPORTED
            and all(identity.kind != RAISED for identity in case.identities)
            for case in ended
        )
        kernels = kernels_of(subject, backend, _series(ended[0]), {case.target for case in ended})
        if not kernels or Outcome.ERRORED in outcomes or not brought_to_an_end:
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
