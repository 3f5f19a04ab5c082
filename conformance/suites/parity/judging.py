"""Judges what a backend computed, and says in words what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from conformance.oracle.arithmetic import (
    CUTTING_KERNEL,
    EIGHT_BIT_KERNEL,
    EIGHT_BIT_LATENT_KERNEL,
    HIP_PARTIAL_ROUNDINGS,
    OCTAVE_DECODE,
    QUERY_PEAK,
    Arithmetic,
    OctaveDecode,
)
from conformance.oracle.judgement import Judgement, judge, judge_topk, solve, solve_indexer
from conformance.problems import octave_cache
from conformance.problems.problem import Problem
from conformance.problems.tensors import FLOAT8, Tensors
from conformance.results import Identity
from conformance.results.emulation_coverage import counts_of
from conformance.subjects.kernels import Attended
from conformance.suites.case import Measured, Nonconformance, in_one_line
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.coverage import RAN
from conformance.suites.parity.deviation import Deviation
from conformance.suites.parity.deviations import (
    Given,
    explanation,
    reached_by_poison,
)
from conformance.suites.parity.resources import OUT_OF_LDS, resource_findings
from conformance.suites.parity.resources import REQUIREMENTS as RESOURCES

Found = tuple[str, Identity]
# How the harness's own stand-ins for kernels begin in what was dispatched.
HARNESS = "harness "


# What sentences about memory and errors say, by the kind of finding: see ``guarded_memory`` and
# ``attend`` in the worker, and the emulator's memory.
_KINDS_OF_TEXT = (
    (re.compile(r"was written outside its rows"), "write-outside"),
    (
        re.compile(r"^Violation: .* bytes that reach \d+ bytes (before|past the end of) "),
        "out-of-bounds",
    ),
    (re.compile(r"^\w+ (reads|writes|updates) outside of its tensors: "), "out-of-bounds"),
    (re.compile(r"^Violation: "), "violation"),
)
SCORES_IN_TORCH = "torch fp8_mqa_logits_torch"
_STORED = re.compile(r"the cache write stored (\d+) elements where \d+ slots hold (\d+)")


def kind_of_text(text: str) -> str:
    """The kind of a finding that a worker words: a violation, or the error that it ended with."""
    if found := _STORED.search(text):
        stored, expected = map(int, found.groups())
        return "not-written" if stored < expected else "write-outside"
    return next((kind for pattern, kind in _KINDS_OF_TEXT if pattern.search(text)), "raised")


def kernel_names(dispatch: Sequence[str]) -> tuple[str, ...]:
    """The names of a subject's own kernels, without what compiled them."""
    own = (name for name in dispatch if not name.startswith(HARNESS))
    return tuple(name.removeprefix("HIP ").partition(" (")[0] for name in own)


@dataclass(frozen=True)
class WrongValues:
    """Values beyond their bound, and the known deviations that explain all of them, if any do."""

    given: Given
    judgement: Judgement
    kernels: tuple[str, ...]
    explained: tuple[Deviation, ...]

    def found(self) -> Iterator[Found]:
        """One finding, or one for each requirement that the deviations break."""
        judgement = self.judgement
        poisoned = any(each.poisoned for each in self.explained)
        all_of_them = judgement.wrong == judgement.not_finite > 0 and not poisoned
        for requirement in dict.fromkeys(each.requirement for each in self.explained) or ("",):
            own = [each for each in self.explained if each.requirement == requirement]
            text = str(judgement)
            if own:
                text += f"; that is: {', and '.join(each.says for each in own)}"
            kind = "non-finite" if requirement or all_of_them else "wrong-value"
            names = tuple(each.name for each in own)
            yield text, Identity(kind, self.kernels, names, requirement)

    def also_wrong_with_zeros(self, zeros: WrongValues | None) -> WrongValues:
        """The same values, as ``zeros`` explain them, where poison reaches no further than known.

        Poison may hide other faults: what zeros in unused slots do not explain, nothing does.
        """
        explained = () if zeros is None else zeros.explained
        reached = reached_by_poison(self.given, explained) if explained else None
        return replace(self, explained=() if reached is None else (*explained, *reached))


@dataclass(frozen=True)
class Verdict:
    """What is wrong with an answer, and what was measured; nothing: it is right.

    ``others`` are findings about memory, errors and choices, each with what it is.
    """

    others: tuple[Found, ...]
    values: WrongValues | None
    measured: Measured

    @property
    def found(self) -> tuple[Found, ...]:
        found = [*self.others, *(self.values.found() if self.values else ())]
        return tuple(sorted(found, key=lambda each: each[1].requirement in RESOURCES))

    @property
    def wrong(self) -> tuple[str, ...]:
        """A sentence for each finding."""
        return tuple(text for text, _ in self.found)

    def may_be_poison(self, problem: Problem) -> bool:
        """Whether what is wrong could come from the contents of unused slots."""
        if problem.poison == "huge":
            return True
        return self.values is not None and self.values.judgement.not_finite > 0

    def with_counts_of(self, before: Verdict) -> Verdict:
        """The verdict on a problem's second run: what runs for the first time was counted then."""
        return replace(self, measured=replace(self.measured, counts=before.measured.counts))

    def only_with_poison(self) -> Verdict:
        """The verdict on an answer that is right with zeros in unused slots."""
        values = self.values
        if values is None or all(each.poisoned for each in values.explained):
            return self
        return replace(self, values=replace(values, explained=()))

    def with_zeros_too(self, zeros: Verdict) -> Verdict:
        """The verdict on an answer that is wrong with zeros in unused slots too."""
        if self.values is None:
            return self
        return replace(self, values=self.values.also_wrong_with_zeros(zeros.values))

    def as_error(self, command: str, attended: Attended, requirement: str = "") -> Nonconformance:
        """``requirement``: the one that is not met, if it is not the backend's own."""
        findings, identities = self.wrong, [identity for _, identity in self.found]
        of = {identity.requirement for identity in identities}
        if not requirement and len(of) == 1 and of <= set(RESOURCES):
            # What was computed is right: the case is about what the kernels take.
            (requirement,) = of
        elif requirement:
            first = f"with zeros in the cache's unused slots it is right, with poison {findings[0]}"
            findings = (first, *findings[1:])
        kernels = f"kernels: {', '.join(attended.dispatch)}"
        return Nonconformance(
            in_one_line([*findings, kernels]),
            command,
            self.measured,
            attended.trace,
            requirement,
            findings,
            identities,
        )

    def only_resources(self) -> bool:
        """Whether the answer is right, and only what kernels took of their target is not."""
        return self.values is None and all(i.requirement in RESOURCES for _, i in self.others)


def verdict(
    case: ParityCase, attended: Attended, tensors: Tensors, *, poison: bool = True
) -> Verdict:
    """Judges an answer, on the GPU where that is the device.

    ``poison``: whether the cache's unused slots held any.
    """
    problem = case.problem
    assert problem is not None
    # Under --wrap the worker alone may see a GPU.
    on_gpu = case.device == "gpu" and torch.cuda.is_available()
    tensors = tensors.to("cuda") if on_gpu else tensors
    counts = {f"{RAN}{kernel}": 1 for kernel in attended.dispatch} | counts_of(attended.emulated)
    kernels = kernel_names(attended.dispatch)
    resources = [*resource_findings(case.device, problem, attended)]
    found = [(text, Identity(kind_of_text(text), kernels)) for text in attended.violations]
    measures: dict[str, float] = {"seconds": attended.seconds}
    values = None
    if OUT_OF_LDS in attended.raised and resources:
        pass  # that is what is found of its resources
    elif attended.raised:
        text = f"{case.backend} refused a problem that it admits: {attended.raised}"
        found.append((text, Identity(kind_of_text(attended.raised), kernels)))
    elif problem.kind == "indexer":
        truth = solve_indexer(problem, tensors, scores_rounded_to(attended.dispatch))
        chosen = judge_topk(problem, truth, attended.results["indices"])
        found += [(text, Identity("wrong-choice", kernels)) for text in chosen]
    else:
        arithmetic, output = arithmetic_of(case, attended.dispatch), attended.results["output"]
        if arithmetic.eight_bit_weights:
            tensors = with_queries_in_fp8(problem, tensors)
        found += [
            (text, Identity("wrong-value", kernels))
            for text in wrong_rows(problem, tensors, attended)
        ]
        judgement = judge(
            problem, solve(problem, tensors, arithmetic), output, attended.results.get("lse")
        )
        measures |= _measures(judgement)
        if not judgement.passed:
            given = Given(
                *(case.backend, case.target, problem, tensors, output, arithmetic, poison, kernels)
            )
            # The suite's own kernels have no known deviations.
            explained = explanation(given) if case.of_vllm else ()
            values = WrongValues(given, judgement, kernels, explained)
    finite = {name: value for name, value in measures.items() if math.isfinite(value)}
    return Verdict((*found, *resources), values, Measured(counts, finite))


def wrong_rows(problem: Problem, tensors: Tensors, attended: Attended) -> list[str]:
    """What is wrong with the bytes of a cache whose format says what each of them is."""
    stored = attended.results.get("rows")
    if stored is None:
        return []
    parts = []
    for key, value, slots in (
        (tensors.context_key, tensors.context_value, tensors.context_slots),
        (tensors.key, tensors.value, tensors.slot_mapping),
    ):
        if key is not None and value is not None and slots is not None:
            kept = slots >= 0
            own_key, own_value = (x[: len(slots)][kept] for x in (key, value))
            parts.append(octave_cache.rows(own_key, own_value, problem.kv_cache_dtype))
    expected = torch.cat(parts)
    wrong = (stored.to(expected.device) != expected).nonzero()
    if not len(wrong):
        return []
    row, head, place = (int(n) for n in wrong[0])
    return [
        f"the cache write stored {len(wrong)} bytes that are not the format's, the first at row "
        f"{row}, head {head}, byte {place}: {int(stored[row, head, place])} instead of "
        f"{int(expected[row, head, place])}"
    ]


def with_queries_in_fp8(problem: Problem, tensors: Tensors) -> Tensors:
    """Queries as vLLM hands them to a latent decode over an fp8 cache: of scale 1, and rounded."""
    peak = QUERY_PEAK[problem.kv_cache_dtype]
    rounded = tensors.query.float().clamp(-peak, peak).to(FLOAT8[problem.kv_cache_dtype])
    return replace(tensors, query=rounded.to(tensors.query.dtype))


def scores_rounded_to(dispatch: Sequence[str]) -> str:
    """What an indexer's dot products are rounded to: vLLM's in torch multiply in bfloat16."""
    return "bfloat16" if any(SCORES_IN_TORCH in name for name in dispatch) else ""


def _measures(judgement: Judgement) -> dict[str, float]:
    measures = {
        "error_over_bound": judgement.ratio,
        "lse_error_over_bound": judgement.lse_ratio,
        "max_error": judgement.max_error,
        "torch_error": judgement.torch_error,
    }
    if judgement.worst is not None:
        measures["bound_at_max"] = judgement.worst.bound
    return measures


def arithmetic_of(case: ParityCase, dispatch: Sequence[str]) -> Arithmetic:
    """How a subject computes: vLLM rounds the parts of a latent prefill before it merges them, and
    its HIP kernels those of a decode; aiter's assembly over an fp8 cache multiplies in fp8,
    latent decodes with weights that are not scaled, and that in float16 cuts off.
    ``dispatch``: the kernels that ran."""
    problem = case.problem
    if not case.of_vllm or problem is None:
        return Arithmetic()
    rounded = int(problem.kind == "mla_prefill")
    for kernel, by_dtype in HIP_PARTIAL_ROUNDINGS.items():
        if any(kernel in name for name in dispatch):
            rounded = max(rounded, by_dtype[problem.dtype])
    eight_bit = any(EIGHT_BIT_KERNEL in name for name in dispatch)
    latent = any(EIGHT_BIT_LATENT_KERNEL in name for name in dispatch)
    decodes = (how for name, how in OCTAVE_DECODE.items() if any(name in ran for ran in dispatch))
    return Arithmetic(
        octave=next(decodes, OctaveDecode()),
        partial_roundings=rounded,
        eight_bit=problem.kv_cache_dtype if eight_bit else "",
        eight_bit_weights=problem.kv_cache_dtype if latent else "",
        cuts_off=any(CUTTING_KERNEL in name for name in dispatch),
    )
