"""How a mutant of a kernel is judged: which problems are asked, in what order, and what counts."""

from __future__ import annotations

import ast
import multiprocessing
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from conformance.errors import InfrastructureError
from conformance.mutation import kernel_sources
from conformance.mutation.baseline import Baseline, Lines, Ran, side_by_side
from conformance.mutation.kernel_sources import is_triton, reference_source, vllm_source
from conformance.mutation.kernels import KernelJudge, Runner, baseline_of, run_right
from conformance.mutation.mutant import Mutant
from conformance.mutation.sites import mutants_of
from conformance.mutation.verdict import Fate
from conformance.suites.case import Unsupported

SOURCE = "X = 1\n\n\ndef f(a, b):\n    c = a + b\n    return c * 2\n"
MUTANT = next(m for m in mutants_of("kernels", "f.py", SOURCE) if m.operator == "arithmetic")
AT_IMPORT = next(m for m in mutants_of("kernels", "f.py", SOURCE) if m.line == 1)


@dataclass(frozen=True)
class Case:
    name: str
    backend: str = "A"


@dataclass
class Space:
    def source(self, _file: str) -> str:
        return SOURCE


@dataclass
class FakeRunner:
    """Kernels that answer as they are told: ``wrong`` by the name of a case, once they are edited.

    ``always``: what the right ones get wrong, too. An exception is raised.
    """

    wrong: dict[str, Any] = field(default_factory=dict)
    always: dict[str, Any] = field(default_factory=dict)
    quick: tuple[Case, ...] = (Case("slow"), Case("fast"), Case("elsewhere", "B"))
    standard: tuple[Case, ...] = ()
    ran: list[str] = field(default_factory=list)
    given: dict[str, float] = field(default_factory=dict)
    lines_of: dict[str, Lines] = field(default_factory=dict)
    edited: bool = False
    breaks: bool = False
    workspace: Space = field(default_factory=Space)
    source: Any = field(default_factory=reference_source)

    def cases(self, tier: str) -> tuple[Case, ...]:
        return self.quick if tier == "quick" else self.standard

    def run(self, case: Case, seconds: float = 1.0) -> str:
        self.given[case.name] = seconds
        self.ran.append(case.name)
        answer = {**self.always, **(self.wrong if self.edited else {})}.get(case.name, "")
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    def lines(self) -> Lines:
        return self.lines_of.get(self.ran[-1], {"f.py": {5, 6}})

    def edit(self, _file: str, _text: str) -> None:
        self.edited = True
        if self.breaks:
            raise InfrastructureError("SyntaxError in f.py")

    def restore(self) -> None:
        self.edited = False

    def close(self) -> None:
        pass


BASELINE = Baseline(
    {"slow": 2.0, "fast": 1.0, "elsewhere": 0.5},
    {"slow": {"f.py": {5, 6}}, "fast": {"f.py": {5, 6}}, "elsewhere": {"g.py": {1}}},
)


def judge(runner: FakeRunner, standard_seconds: float = 0.0) -> KernelJudge:
    return KernelJudge(cast(Runner, runner), BASELINE, standard_seconds)


def test_only_cases_that_run_the_line_are_asked_the_fastest_first() -> None:
    runner = FakeRunner()
    verdict = judge(runner).judge(MUTANT)
    assert verdict.fate is Fate.SURVIVED
    assert runner.ran == ["fast", "slow"]
    assert verdict.asked == 2


def test_the_first_failure_ends_it() -> None:
    runner = FakeRunner(wrong={"fast": "3 elements are wrong"})
    verdict = judge(runner).judge(MUTANT)
    assert (verdict.fate, verdict.tier, verdict.by) == (Fate.CAUGHT, "quick", "fast")
    assert runner.ran == ["fast"]


def test_what_caught_something_is_asked_first_from_then_on() -> None:
    runner = FakeRunner(wrong={"slow": "wrong"})
    judging = judge(runner)
    judging.judge(MUTANT)
    runner.ran.clear()
    judging.judge(MUTANT)
    assert runner.ran == ["slow"]


def test_what_runs_at_import_is_asked_of_all_that_use_the_file() -> None:
    runner = FakeRunner()
    judge(runner).judge(AT_IMPORT)
    assert runner.ran == ["fast", "slow"]


def test_a_line_that_nothing_runs_is_not_reached() -> None:
    runner = FakeRunner()
    elsewhere = Baseline({"fast": 1.0}, {"fast": {"f.py": {6}}})
    judging = KernelJudge(cast(Runner, runner), elsewhere, 0.0)
    assert judging.judge(MUTANT).fate is Fate.NOT_REACHED
    assert runner.ran == []


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        ("A refused a problem that it admits: ValueError", Fate.RAISED),
        (InfrastructureError("no answer within 60 s"), Fate.TIMEOUT),
        (Unsupported("not taken"), Fate.SURVIVED),
    ],
)
def test_how_a_case_can_end(answer: Any, fate: Fate) -> None:
    runner = FakeRunner(wrong={"fast": answer})
    assert judge(runner).judge(MUTANT).fate is fate


def test_where_right_kernels_take_as_long_there_is_no_verdict() -> None:
    hangs = InfrastructureError("no answer within 30 s")
    verdict = judge(FakeRunner(always={"fast": hangs})).judge(MUTANT)
    assert verdict.fate is Fate.ERRORED
    assert "right kernels" in verdict.message


def test_kernels_that_cannot_be_imported_are_caught() -> None:
    verdict = judge(FakeRunner(breaks=True)).judge(MUTANT)
    assert (verdict.fate, verdict.by) == (Fate.RAISED, "import")


STANDARD = (Case("long", "A"), Case("other backend", "B"), Case("short", "A"))


def test_a_survivor_is_given_the_standard_tier_of_backends_that_run_its_file() -> None:
    runner = FakeRunner(standard=STANDARD, wrong={"long": "wrong"})
    verdict = judge(runner, 60.0).judge(MUTANT)
    assert (verdict.fate, verdict.tier, verdict.by) == (Fate.CAUGHT, "standard", "long")
    assert "other backend" not in runner.ran
    # The right kernels were asked, too: they pass, or it would show nothing.
    assert runner.ran.count("long") == 2


def test_what_the_right_kernels_fail_shows_nothing() -> None:
    runner = FakeRunner(standard=STANDARD, wrong={"long": "wrong"}, always={"long": "wrong"})
    judging = judge(runner, 60.0)
    assert judging.judge(MUTANT).fate is Fate.SURVIVED
    assert runner.edited
    runner.ran.clear()
    judging.judge(MUTANT)
    assert "long" not in runner.ran


def test_one_of_each_kind_is_asked_before_a_second_one_of_any() -> None:
    kinds = [f"P [{kind}-h{n}x1-d64]" for kind in ("edge", "long", "wide") for n in range(3)]
    runner = FakeRunner(standard=tuple(Case(name) for name in kinds))
    judging = judge(runner, 60.0)
    judging.judge(MUTANT)
    asked = [name.partition("-h")[0] for name in runner.ran[2:]]
    assert [len(set(asked[at : at + 3])) for at in (0, 3, 6)] == [3, 3, 3]


def test_what_a_subject_does_not_take_was_not_asked() -> None:
    runner = FakeRunner(wrong={"fast": Unsupported("not taken")}, standard=(Case("no"),))
    runner.wrong["no"] = runner.always["no"] = Unsupported("not taken")
    assert judge(runner, 60.0).judge(MUTANT).asked == 2


def test_standard_cases_that_are_known_not_to_run_the_line_are_left_out() -> None:
    runner = FakeRunner(standard=STANDARD, lines_of={"long": {"f.py": {6}}})
    judging = judge(runner, 60.0)
    assert judging.judge(MUTANT).asked == 3
    runner.ran.clear()
    judging.judge(MUTANT)
    assert sorted(runner.ran) == ["fast", "short", "slow"]


def test_time_for_the_standard_tier_runs_out() -> None:
    runner = FakeRunner(standard=STANDARD)
    verdict = judge(runner, 1e-9).judge(MUTANT)
    assert (verdict.fate, verdict.asked) == (Fate.UNDECIDED, 2)


def test_what_nothing_reached_in_the_time_is_missed() -> None:
    elsewhere = Baseline({"fast": 1.0}, {"fast": {"f.py": {6}}})
    runner = FakeRunner(standard=STANDARD)
    judging = KernelJudge(cast(Runner, runner), elsewhere, 1e-9)
    assert judging.judge(MUTANT).fate is Fate.NOT_REACHED


def test_a_case_on_right_kernels_shows_how_long_it_takes_and_what_it_runs() -> None:
    runner = FakeRunner(always={"slow": "3 elements are wrong", "elsewhere": Unsupported("no")})
    wrong, right, refused = (run_right(cast(Any, c), cast(Runner, runner)) for c in runner.quick)
    assert (right.wrong, right.lines) == (None, {"f.py": {5, 6}})
    assert (wrong.wrong, refused.wrong) == ("3 elements are wrong", "no")
    assert (wrong.says, refused.says) == (True, False)


def test_a_baseline_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    kept = tmp_path / "baseline.json"
    told = {
        "slow": Ran("slow", wrong="3 elements are wrong"),
        "fast": Ran("fast", 1.0, {"f.py": {5, 6}}),
        "elsewhere": Ran("elsewhere", wrong="not taken", says=False),
    }
    said: list[str] = []
    baseline = baseline_of([*told], lambda names: map(told.__getitem__, names), said.append, kept)
    assert set(baseline.lines) == set(baseline.seconds) == {"fast"}
    assert baseline.unfit == ["slow", "elsewhere"]
    assert [text for text in said if "left out" in text] == [
        "left out, for right code fails it: slow: 3 elements are wrong"
    ]
    assert baseline_of([*told], lambda _: pytest.fail("asked again"), said.append, kept) == baseline


def test_right_code_runs_side_by_side() -> None:
    begun = multiprocessing.get_context("fork").Value("i", 0)

    def begin() -> None:
        with begun.get_lock():
            begun.value += 1

    assert sorted(side_by_side(begin, abs, [-3, -2, -1], 2)) == [1, 2, 3]
    assert begun.value == 2


def test_a_process_that_dies_is_no_verdict_about_right_code() -> None:
    with pytest.raises(InfrastructureError, match="died"):
        list(side_by_side(lambda: None, os._exit, [1], 2))


def test_a_case_is_given_as_long_as_right_kernels_need_several_times() -> None:
    runner = FakeRunner()
    slow = Baseline({**BASELINE.seconds, "slow": 9.0}, BASELINE.lines)
    KernelJudge(cast(Runner, runner), slow, 0.0).judge(MUTANT)
    assert runner.given == {"fast": 30.0, "slow": 90.0}


def test_what_takes_long_is_asked_later_unless_it_catches_much() -> None:
    runner = FakeRunner(wrong={"slow": "wrong"})
    slower = Baseline({**BASELINE.seconds, "slow": 3.5}, BASELINE.lines)
    judging = KernelJudge(cast(Runner, runner), slower, 0.0)
    first = []
    for _ in range(4):
        runner.ran.clear()
        judging.judge(MUTANT)
        first.append(runner.ran[0])
    assert first == ["fast", "fast", "fast", "slow"]


def test_kernels_are_told_from_other_functions() -> None:
    code = "@triton.jit\ndef a(): pass\n@triton.jit(x=1)\ndef b(): pass\n@cache\ndef c(): pass\n"
    functions = cast(list[ast.FunctionDef], ast.parse(code).body)
    assert [is_triton(one) for one in functions] == [True, True, False]


def test_the_reference_has_mutants_in_every_file_but_those_left_out() -> None:
    source = reference_source()
    files = list(source.files())
    assert "ops/softmax.py" in files
    assert not set(files) & set(kernel_sources.LEFT_OUT)
    assert all((source.folder / file).is_file() for file in (*files, *kernel_sources.LEFT_OUT))


def test_a_mutant_is_one_of_its_text() -> None:
    assert isinstance(MUTANT, Mutant)
    assert (MUTANT.before, MUTANT.after, MUTANT.span) == ("a + b", "a - b", (5, 5))


@pytest.mark.vllm
def test_the_kernels_of_a_release_are_those_that_its_backends_run() -> None:
    source = vllm_source("0.19.0")
    names = {Path(file).stem for file in source.files()}
    assert {"prefix_prefill", "triton_unified_attention", "triton_decode_attention"} <= names
    assert not names & {"xpu_mla_sparse", "flashinfer", "rocm_aiter_mla_sparse"}
    assert all((source.folder / file).is_file() for file in source.files())
