"""What fails in one build and not in another: told apart by what it is, new from known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.commands import diff
from conformance.comparison.outcomes import Differences, compare
from conformance.config import RunConfig
from conformance.errors import ExitCode
from conformance.reports.junit_so_far import JUnitSoFar
from conformance.requirements.waivers import SUITE as WAIVERS
from conformance.results import CaseResult, Identity, Outcome, RunHeader
from conformance.runners.local import RunOutcome

A, B = "vllm==0.32.0", "vllm==0.33.0"
PROBLEM = "ROCM_ATTN [p-1]"
SHORT = Identity("wrong-value", ("write", "decode"), ("window-one-short",))
NEW = Identity("non-finite", ("write", "decode_v2"))
SPILL = Identity("spill", ("_fwd_kernel",))
PASSED = CaseResult(
    suite="parity",
    name=f"PAR-001 {PROBLEM}",
    outcome=Outcome.PASSED,
    cells=("rocm72-aiter-mha",),
    subject=A,
    subject_version="0.32.0",
    edition="0.32",
    requirement="PAR-001",
    source="",
    target="gfx942",
    platform="device interpreter",
    simulated=True,
)


def on_b(case: CaseResult) -> CaseResult:
    return replace(case, subject=B, subject_version="0.33.0", edition="0.33")


def failed(*identities: Identity, waiver: str = "", **changes: Any) -> CaseResult:
    outcome = Outcome.WAIVED if waiver else Outcome.FAILED
    texts = tuple(f"{each.kind} here" for each in identities)
    found = {"findings": texts, "identities": identities, "outcome": outcome, "waiver": waiver}
    return replace(PASSED, message="; ".join(texts), **{**found, **changes})


def of(*cases: CaseResult, suite: str = "parity") -> Differences:
    return compare(cases, (A, B), suite)


def lines(found: Differences) -> list[str]:
    return found.in_words().splitlines()


def test_equal_results_do_not_differ() -> None:
    same = of(PASSED, on_b(PASSED))
    assert (same.differ, same.compared, same.both) == (False, 1, 0)
    known = failed(SHORT, waiver="W-1")
    # Kernels that only ran are no part of what went wrong: a release may rename them.
    renamed = on_b(failed(replace(SHORT, kernels=("write", "decode_v2"))))
    assert (of(known, on_b(known)).differ, of(known, renamed).differ) == (False, False)
    assert of(known, renamed).both == 1


def test_a_fault_of_one_side_is_told_new_or_known() -> None:
    found = of(failed(NEW), on_b(PASSED))
    assert found.differ
    assert lines(found)[2:] == [
        f"Fails in {A}, not in {B}",
        "  PAR-001 non-finite on gfx942: 1 case",
        f"      PAR-001 {PROBLEM}: non-finite here",
    ]
    known = of(PASSED, on_b(failed(SHORT, waiver="W-1")))
    assert lines(known)[2:4] == [
        f"Fails in {B}, not in {A} (known, waived)",
        "  PAR-001 wrong-value on gfx942: 1 case, waived by W-1",
    ]


def test_a_second_fault_in_a_case_that_fails_in_both_is_one_sides() -> None:
    found = of(failed(SHORT, waiver="W-1"), on_b(failed(SHORT, NEW)))
    (alone,) = found.only[1]
    assert (alone.fault.kind, found.only[0], found.both) == ("non-finite", (), 1)
    # The same kind is another fault if it deviates in another way.
    other = of(failed(SHORT), on_b(failed(replace(SHORT, deviations=()))))
    assert [len(side) for side in other.only] == [1, 1]


def test_a_case_that_breaks_another_requirement_is_the_same_case() -> None:
    slots = failed(NEW, name=f"PAR-080 {PROBLEM}", requirement="PAR-080")
    found = of(slots, on_b(PASSED))
    assert (found.compared, found.only[0][0].fault.requirement) == (1, "PAR-080")


def test_what_the_other_was_not_asked_is_apart() -> None:
    unsupported = on_b(replace(PASSED, outcome=Outcome.UNSUPPORTED))
    for others in ((), (unsupported,)):
        found = of(failed(NEW), *others)
        assert (found.compared, found.only, len(found.unasked[0])) == (0, ((), ()), 1)
        assert f"Fails in {A}, not asked of {B}" in lines(found)
    errored = of(failed(NEW), on_b(replace(PASSED, outcome=Outcome.ERRORED)))
    assert errored.errored == (0, 1)
    assert lines(errored)[0].endswith("; 1 case without a verdict")


def test_faults_are_grouped_and_waivers_are_no_cases() -> None:
    two = [failed(NEW, name=f"PAR-001 ROCM_ATTN [p-{number}]") for number in range(2)]
    right = [on_b(replace(case, outcome=Outcome.PASSED)) for case in two]
    stale = replace(failed(NEW), suite=WAIVERS)
    (group,) = of(*two, *right, stale).only[0]
    assert (group.cases, group.targets, group.first) == (
        2,
        ("gfx942",),
        f"PAR-001 {PROBLEM[:-4]}p-0]",
    )


def test_findings_without_identity_are_known_by_their_text() -> None:
    one = failed(Identity(), findings=("X is read",))
    other = on_b(replace(one, findings=("Y is read",)))
    assert [len(side) for side in of(one, other).only] == [1, 1]


# ---- compiled code -----------------------------------------------------------------------------


def compiled(spills: int) -> CaseResult:
    numbers = {"vgprs": 256, "agprs": 0, "sgprs": 8, "lds": 0, "spills": spills, "scratch": 0}
    numbers |= {"code": 9, "occupancy": 1}
    return replace(
        PASSED,
        suite="codegen",
        name="CGN-001 prefill[d=128] on gfx942",
        requirement="CGN-001",
        measures={f"_fwd_kernel {name}": float(number) for name, number in numbers.items()},
    )


def spilling(**changes: Any) -> CaseResult:
    named = {"suite": "codegen", "name": "CGN-003 prefill[d=128] on gfx942", **changes}
    return failed(SPILL, requirement="CGN-003", **named)


def test_a_new_spill_is_named_by_its_kernel() -> None:
    found = of(compiled(0), on_b(compiled(9)), on_b(spilling()), suite="codegen")
    assert found.differ
    assert "  CGN-003 spill in _fwd_kernel on gfx942: 1 case" in lines(found)
    assert lines(found)[-1] == "  _fwd_kernel of prefill[d=128] on gfx942: spills 0 -> 9"
    other = on_b(spilling())
    other = replace(other, identities=(replace(SPILL, kernels=("another",)),))
    assert [len(s) for s in of(spilling(), other, suite="codegen").only] == [1, 1]


def test_a_known_spill_that_grew_differs() -> None:
    known = spilling(waiver="W-1")
    both = (known, on_b(known), compiled(24))
    assert not of(*both, on_b(compiled(24)), suite="codegen").differ
    found = of(*both, on_b(compiled(60)), suite="codegen")
    assert (found.differ, found.only) == (True, ((), ()))
    assert "spills 24 -> 60" in found.as_markdown()
    assert not of(*both, on_b(compiled(8)), suite="codegen").differ


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Runs of the command end at once, as if B had a new fault."""
    configs: list[RunConfig] = []

    def run(config: RunConfig, folder: Path, *_: Any, **__: Any) -> RunOutcome:
        assert folder.is_dir()
        configs.append(config)
        asked: dict[str, Any] = {"edition": "", "subjects": (), "cells": (), "suites": ()}
        header = RunHeader.now(**asked, seed=None, sweep=None)
        return RunOutcome(header, (PASSED, on_b(failed(NEW))), 1, JUnitSoFar(folder, header))

    monkeypatch.setattr("conformance.runners.local.run", run)
    monkeypatch.setattr(diff, "settle_all", lambda config, _say: config)
    return configs


Answer = Callable[..., tuple[int, str]]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    def given(*arguments: str) -> tuple[int, str]:
        code = run_cli(["diff", "--suite", "parity", A, B, *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return given


def test_the_command_runs_both_and_says_what_differs(ran: list[RunConfig], answer: Answer) -> None:
    code, said = answer("--target", "gfx950", "--problems", "standard")
    assert (code, f"Fails in {B}, not in {A}" in said) == (0, True)
    (config,) = ran
    assert (config.subjects, config.suites, config.targets) == ((A, B), ("parity",), ("gfx950",))
    assert (config.tier, config.device) == ("standard", "interpreter")
    assert answer("--exit-code")[0] == ExitCode.NOT_CONFORMANT


def test_the_command_writes_json_and_markdown(ran: list[RunConfig], answer: Answer) -> None:
    found = json.loads(answer("--format", "json")[1])
    (fault,) = found["only"]["b"]
    assert (fault["fault"], fault["kind"]) == ("PAR-001 non-finite on gfx942: 1 case", "non-finite")
    assert (found["compared"], found["only"]["a"], len(ran)) == (1, [], 1)
    assert f"### Fails in {B}, not in {A}" in answer("--format", "markdown")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--aiter",), "--aiter is about selections, and --suite parity makes none"),
        (("--env", "A=1"), "--env is about selections"),
        (("--sweep", "5"), "--sweep is about selections"),
    ],
)
def test_options_of_selections_are_refused(
    ran: list[RunConfig], answer: Answer, arguments: tuple[str, ...], said: str
) -> None:
    code, printed = answer(*arguments)
    assert (code, said in printed, ran) == (ExitCode.USAGE, True, [])


def test_one_build_is_not_compared_with_itself(
    ran: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["diff", "--suite", "codegen", A, A]) == ExitCode.USAGE
    assert "are one build: name two" in capsys.readouterr().err
    assert ran == []
