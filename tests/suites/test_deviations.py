"""What vLLM's kernels are known to compute instead: recognised, and nothing else is taken for it.

The answers here are the oracle's own, read with a deviation in it and rounded to the problem's
dtype: what a kernel with just that deviation gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.oracle.arithmetic import Arithmetic
from conformance.oracle.attention import Reading
from conformance.oracle.judgement import solve
from conformance.problems.defects import known_defects
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, dtype_of, materialise
from conformance.requirements import all_requirements
from conformance.requirements.waivers import WaiverSet, load_waivers
from conformance.results import CaseResult, Outcome
from conformance.subjects.kernels import Attended
from conformance.suites.case import Context, Nonconformance
from conformance.suites.parity import harness
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.deviation import Deviation
from conformance.suites.parity.deviations import DEVIATIONS, Given, explanation
from conformance.suites.parity.judging import kernel_names, kind_of_text
from conformance.worker.guarded_memory import Guarded

TARGET = "gfx942"
BY_NAME = {each.name: each for each in DEVIATIONS}
WAIVERS = load_waivers()
OF_WAIVER = {waiver.id: waiver.deviations for waiver in WAIVERS.waivers}
SMALLEST = {name: defect.problem for defect in known_defects() for name in OF_WAIVER[defect.waiver]}
FEW = replace(
    SMALLEST["window-one-short"],
    window=(-1, -1),
    dominant=(),
    query_lens=(1,),
    context_lens=(1,),
)
MORE = {
    "fp8-rounded-twice": replace(
        FEW,
        kv_cache_dtype="fp8_e4m3fnuz",
        num_heads=8,
        num_kv_heads=8,
        head_size=128,
        v_head_size=128,
        k_scale=0.3,
        v_scale=0.7,
    ),
    "unused-slots-assembly": replace(FEW, backend="ROCM_AITER_FA"),
    "unused-blocks-assembly": replace(
        FEW, backend="ROCM_AITER_FA", dtype="float16", block_size=16, context_lens=(15,)
    ),
    # Of 17 keys the last is a piece of its own, which the first of two query tokens does not see.
    "piece-without-keys": replace(
        SMALLEST["latent-scaled-by-values"],
        backend="ROCM_AITER_MLA",
        query_lens=(2,),
        context_lens=(15,),
        kv_cache_dtype="auto",
        k_scale=1.0,
        v_scale=1.0,
    ),
    "latent-values-unscaled": replace(
        SMALLEST["latent-scaled-by-values"], backend="ROCM_AITER_MLA", v_scale=1.0
    ),
    "rows-past-the-pages": replace(
        SMALLEST["latent-scaled-by-values"], backend="ROCM_AITER_MLA", k_scale=1.0, v_scale=1.0
    ),
    # 8 heads of 512 fill the 4,096 elements that are stored.
    "heads-not-stored": replace(FEW, num_heads=9, num_kv_heads=9, head_size=512, v_head_size=512),
    "one-head-in-16-bits": replace(
        SMALLEST["latent-scaled-by-values"],
        num_heads=1,
        kv_cache_dtype="auto",
        k_scale=1.0,
        v_scale=1.0,
    ),
    "unused-slots-whole-tiles": replace(FEW, backend="ROCM_AITER_UNIFIED_ATTN"),
    # Two query tokens are no decode: the window begins in a tile whose first block is given up.
    "unified-before-window": replace(
        FEW,
        backend="ROCM_AITER_UNIFIED_ATTN",
        block_size=16,
        query_lens=(2,),
        context_lens=(30,),
        window=(3, 0),
        evicted=True,
    ),
    "unified-alibi-from-first-query": replace(
        SMALLEST["alibi-from-first-query"], backend="ROCM_AITER_UNIFIED_ATTN"
    ),
    "unified-soft-cap-overflows": replace(
        SMALLEST["soft-cap-overflows"], backend="ROCM_AITER_UNIFIED_ATTN"
    ),
    "tree-soft-cap-overflows": replace(SMALLEST["soft-cap-overflows"], backend="TREE_ATTN"),
    "tree-hidden-tile-counts-as-0": replace(
        SMALLEST["hidden-tile-counts-as-0"], backend="TREE_ATTN"
    ),
    "segmented-hidden-tile-counts-as-0": replace(
        SMALLEST["hidden-tile-counts-as-0"],
        backend="ROCM_SEGMENTED_ATTN",
        head_size=64,
        v_head_size=64,
    ),
    "unused-slots-octave": replace(
        FEW,
        backend="ROCM_OCTAVE",
        query_lens=(1,),
        context_lens=(20,),
        head_size=256,
        v_head_size=256,
        kv_cache_dtype="octave_k3v3",
    ),
    "diffkv-hidden-tile-counts-as-0": replace(
        SMALLEST["hidden-tile-counts-as-0"],
        backend="TRITON_ATTN_DIFFKV",
        head_size=64,
        v_head_size=48,
    ),
    "diffkv-model-window-ignored": replace(
        FEW,
        backend="TRITON_ATTN_DIFFKV",
        query_lens=(1,),
        context_lens=(20,),
        window=(3, 0),
        prompts=(6,),
        head_size=64,
        v_head_size=48,
    ),
    "causal-from-the-first-key": replace(
        FEW,
        backend="ULTRAQUANT",
        query_lens=(4,),
        context_lens=(9,),
        dtype="bfloat16",
        kv_cache_dtype="ultraquant_4bit",
        head_size=64,
        v_head_size=64,
        new_tokens_from_cache=False,
        continued_from_cache=1,
    ),
}
PROBLEMS = SMALLEST | MORE
# A decode with unused slots, and a prefill: the context kernel's rows and the decode kernel's.
MIXED = replace(
    SMALLEST["window-one-short"],
    query_lens=(1, 5),
    context_lens=(8, 12),
    window=(3, 0),
    dominant=((0, 5), (1, 13)),
)


def answer(problem: Problem, *names: str) -> torch.Tensor:
    """What a kernel with these deviations computes; poison and what is not stored are NaN."""
    tensors, reading = materialise(problem), Reading()
    for name in names:
        reading = BY_NAME[name].reading(reading, TARGET)
    truth = solve(problem, tensors, with_torch=False, reading=reading)
    for name in names:
        change = BY_NAME[name].truth
        plain, truth = truth, change(problem, tensors, truth) if change else truth
        if truth.output.equal(plain.output):  # roundings, which reach so far
            truth = replace(truth, output=truth.output + 0.9 * (truth.bound - plain.bound))
    output = truth.output.to(dtype_of(problem))
    for name in names:
        each = BY_NAME[name]
        for elements in filter(None, (each.free, each.overflows, each.poisoned)):
            output[elements(problem).expand(output.shape[:2])] = torch.nan
    return output


def explained(
    problem: Problem, output: torch.Tensor, *, poison: bool = True, kernel: str = ""
) -> list[str]:
    tensors = materialise(problem)
    given = Given(
        *(problem.backend, TARGET, problem, tensors, output, Arithmetic(), poison, (kernel,))
    )
    return [each.name for each in explanation(given)]


def test_what_one_kernel_does_is_taken_for_no_other_s() -> None:
    name = "unused-slots-octave"
    problem, output = PROBLEMS[name], answer(PROBLEMS[name], name)
    assert explained(problem, output, kernel="octave_wmma::decode_wmma") == []
    assert explained(problem, output, kernel=f"{BY_NAME[name].kernel}_kernel") == [name]


def test_every_deviation_has_a_problem_and_a_waiver() -> None:
    assert PROBLEMS.keys() == BY_NAME.keys()
    assert {name for names in OF_WAIVER.values() for name in names} == BY_NAME.keys()
    for waiver in WAIVERS.waivers:
        for name in waiver.deviations:
            deviation = BY_NAME[name]
            assert waiver.requirement in (deviation.requirement, *_own(deviation)), name
            assert waiver.kinds == (("non-finite",) if deviation.poisoned else ("*",)), name


def _own(deviation: Deviation) -> list[str]:
    known = all_requirements().values()
    return [] if deviation.requirement else [r.id for r in known if r.backend == deviation.backend]


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_answer_is_told_by_its_deviation(name: str) -> None:
    problem = PROBLEMS[name]
    assert BY_NAME[name].shows(problem)
    poison, kernel = BY_NAME[name].poisoned is not None, BY_NAME[name].kernel
    assert explained(problem, answer(problem, name), poison=poison, kernel=kernel) == [name]


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_second_fault_is_no_known_deviation(name: str) -> None:
    """Each element that a deviation leaves alone, or gives a value of its own, is judged."""
    problem, deviation = PROBLEMS[name], BY_NAME[name]
    output = answer(problem, name)
    any_of_them = deviation.free(problem) if deviation.free else torch.zeros(1, 1).bool()
    held = torch.where(~any_of_them.expand(output.shape[:2]))
    assert len(held[0]), "its problem leaves some element to be judged"
    row, head = held[0][-1], held[1][-1]
    for wrong in (40.0, -40.0 if deviation.poisoned or deviation.overflows else torch.nan):
        spoilt = output.clone()
        spoilt[row, head, 3] = wrong
        poison = deviation.poisoned is not None
        assert explained(problem, spoilt, poison=poison, kernel=deviation.kernel) == []


def test_sums_in_16_bits_excuse_no_other_weights() -> None:
    """Keys that all weigh the same are no rounding."""
    problem = replace(PROBLEMS["one-head-in-16-bits"], context_lens=(40,))
    tensors = materialise(problem)
    even = solve(replace(problem, scale=1e-9), tensors, with_torch=False).output
    assert explained(problem, even.to(dtype_of(problem))) == []


def test_deviations_are_told_together() -> None:
    both = replace(
        PROBLEMS["prefix-ignored"], window=(2, 0), context_lens=(8,), mm_prefix=(((9, 12),),)
    )
    names = ["window-one-short", "prefix-ignored"]
    assert explained(both, answer(both, *names)) == names
    alibi = replace(MIXED, alibi="linear")
    names = ["window-one-short", "alibi-no-window"]
    assert explained(alibi, answer(alibi, *names)) == names


def test_what_a_deviation_makes_nan_is_anything() -> None:
    """e4m3's largest bytes are NaN in e5m2, which Triton's interpreter reads as large numbers."""
    name = "e4m3-read-as-e5m2"
    of_nan = replace(PROBLEMS[name], query_lens=(1, 1), context_lens=(8, 8), k_scale=2.0**-12)
    output = answer(of_nan, name)
    assert not bool(output.isfinite().any())
    for got in (output, torch.zeros_like(output)):
        assert explained(of_nan, got, poison=False) == [name]


def test_poison_reaches_a_decode_and_no_prefill() -> None:
    output = answer(MIXED, "window-one-short")
    decode, prefill = output.clone(), output.clone()
    decode[0], prefill[1:] = torch.nan, torch.nan
    assert explained(MIXED, decode) == ["unused-slots-decode", "window-one-short"]
    # As of a context kernel that does not mask its values.
    assert explained(MIXED, prefill) == []
    # No poison, no excuse.
    assert explained(MIXED, decode, poison=False) == []
    full = replace(MIXED, block_size=9, context_lens=(8, 13))
    spoilt = answer(full, "window-one-short")
    spoilt[0] = torch.nan
    assert explained(full, spoilt) == []


# ---- as the suite runs a problem ---------------------------------------------------------------

PLATFORM = Platform.make(TARGET)
SUBJECT = "vllm==0.19.0"


class FakeWorkers:
    """Workers that answer as they are told, with poison and with zeros in unused slots."""

    card = ""

    def __init__(self, poisoned: torch.Tensor, zeros: torch.Tensor) -> None:
        self._answers = {"": poisoned, "zero": zeros}

    def worker(self, _case: ParityCase) -> FakeWorkers:
        return self

    def attend(
        self,
        _problem: Problem,
        _tensors: Tensors,
        *,
        wants_lse: bool,
        cache_filling: str,
        lanes_off: str,
    ) -> Attended:
        assert not wants_lse
        assert not lanes_off
        output = self._answers[cache_filling]
        names = ("harness write", "HIP a::kernel (csrc/a.cu, clang 1)", "kernel_paged_attention_2d")
        return Attended({"output": output}, names, (), "", "", 0.1)

    def close(self, _case: ParityCase) -> None:
        pass


def judged(problem: Problem, poisoned: torch.Tensor, zeros: torch.Tensor) -> CaseResult:
    """A case's failure as the recorder gets it, waived or not."""
    case = ParityCase(
        *("parity", "parity", SUBJECT, "PAR-001", PLATFORM, (), PLATFORM),
        problem=problem,
        backend=problem.backend,
        device="interpreter",
        target=TARGET,
    )
    context = Context(RunConfig(subjects=(SUBJECT,), cells=("*",)))
    workers: harness.KernelWorkers = FakeWorkers(poisoned, zeros)  # type: ignore[assignment] # a fake
    with pytest.raises(Nonconformance) as caught:
        harness.run_problem(case, problem, context, workers)
    error = caught.value
    requirement = error.requirement or case.requirement
    failed = CaseResult(
        suite="parity",
        name=f"{requirement} {problem.backend} [rocm-attn-paged-x-win3-{problem.id}]",
        outcome=Outcome.FAILED,
        cells=(),
        subject=SUBJECT,
        subject_version="0.19.0",
        edition="0.19",
        requirement=requirement,
        source="",
        target=TARGET,
        platform="device interpreter",
        simulated=True,
        message=str(error),
        findings=error.findings,
        identities=error.identities,
    )
    (ended,) = WaiverSet(WAIVERS.waivers, WAIVERS.today).apply(failed)
    return ended


def nan_in(output: torch.Tensor, rows: slice) -> torch.Tensor:
    spoilt = output.clone()
    spoilt[rows] = torch.nan
    return spoilt


DECODE, PREFILL = slice(0, 1), slice(1, 6)
SHORT = answer(MIXED, "window-one-short")
EXACT = answer(MIXED)


def test_what_only_poison_shows_is_waived_where_it_is_known() -> None:
    known = judged(MIXED, nan_in(EXACT, DECODE), EXACT)
    assert (known.outcome, known.requirement) == (Outcome.WAIVED, "PAR-080")
    assert known.waiver == "PARITY-UNUSED-SLOTS-PAGED"
    assert known.identities[0].kernels == ("a::kernel", "kernel_paged_attention_2d")
    new = judged(MIXED, nan_in(EXACT, PREFILL), EXACT)
    assert (new.outcome, new.requirement) == (Outcome.FAILED, "PAR-080")


def test_a_known_value_and_known_poison_are_two_findings() -> None:
    ended = judged(MIXED, nan_in(SHORT, DECODE), SHORT)
    assert (ended.outcome, ended.requirement) == (Outcome.WAIVED, "PAR-001")
    assert set(ended.waiver.split(" + ")) == {
        "PARITY-UNUSED-SLOTS-PAGED",
        "PARITY-WINDOW-ONE-SHORT",
    }
    kinds = {(each.kind, *each.deviations, each.requirement) for each in ended.identities}
    assert kinds == {
        ("wrong-value", "window-one-short", ""),
        ("non-finite", "unused-slots-decode", "PAR-080"),
    }
    assert "queries see one key too few" in ended.message


def spoilt(output: torch.Tensor) -> torch.Tensor:
    wrong = output.clone()
    wrong[0, 0, 0] = 40.0
    return wrong


@pytest.mark.parametrize(
    ("poisoned", "zeros"),
    [
        (nan_in(SHORT, DECODE), spoilt(SHORT)),  # poison hides a wrong value
        (nan_in(SHORT, PREFILL), SHORT),  # poison reaches further than known
        (nan_in(SHORT, DECODE), nan_in(SHORT, DECODE)),  # it is no poison
        (nan_in(EXACT, DECODE), SHORT),  # wrong in another way each time
        (spoilt(SHORT), spoilt(SHORT)),
    ],
)
def test_a_second_fault_fails_whatever_is_waived(
    poisoned: torch.Tensor, zeros: torch.Tensor
) -> None:
    assert judged(MIXED, poisoned, zeros).outcome is Outcome.FAILED


# ---- kinds of what workers word ----------------------------------------------------------------


def guarded_text() -> str:
    buffer = Guarded(torch.zeros(4, 3, 9), 2, 2, 8, "nan")
    buffer.view[3] = 1.0
    (text,) = buffer.violations("the output")
    return text


KINDS: Sequence[tuple[Callable[[], str] | str, str]] = (
    (guarded_text, "write-outside"),
    ("the cache write stored 5 elements where 2 slots hold 8", "not-written"),
    ("the cache write stored 9 elements where 2 slots hold 8", "write-outside"),
    ("Violation: k: 16 bytes that reach 8 bytes past the end of query by x", "out-of-bounds"),
    ("Violation: k: 16 bytes that reach 8 bytes before query by x", "out-of-bounds"),
    ("k reads outside of its tensors: 4 elements in program (0, 0, 0)", "out-of-bounds"),
    ("Violation: workgroup (0, 0, 0) waits for ever: 1 waves are at s_barrier", "violation"),
    ("NotImplementedError: not on Tuesdays", "raised"),
)


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_the_kind_of_what_a_worker_words(text: Callable[[], str] | str, kind: str) -> None:
    assert kind_of_text(text if isinstance(text, str) else text()) == kind


def test_kernels_are_named_without_what_compiled_them() -> None:
    names = ["harness for HIP reshape_and_cache", "HIP a::b (csrc/a.cu, clang 22.1.8)", "c"]
    assert kernel_names(names) == ("a::b", "c")
