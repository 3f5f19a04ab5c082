"""The summary of a run: its numbers, its verdicts, and its three forms."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.reports.console import render, show
from conformance.reports.summary import SubjectSummary, summarise
from conformance.requirements import Requirement
from conformance.requirements.waivers import SUITE as WAIVERS
from conformance.results import CaseResult, JudgedSubject, Outcome, Run, RunHeader
from vllm_editions import editions

CELLS = ("rocm62-aiter-mha", "rocm62-noaiter", "rocm72-aiter-mha", "rocm100-aiter-mha")
PULL = "https://example.org/pull/1"
HEADER = RunHeader.now(
    edition="0.19",
    subjects=(JudgedSubject("vllm", "0.19.0", True),),
    cells=CELLS,
    suites=("selection",),
    seed=7,
    sweep=100,
    command_line="rocm-conformance run",
)
CASE = CaseResult(
    suite="selection",
    name="SEL-001 row",
    outcome=Outcome.PASSED,
    cells=CELLS,
    subject="vllm",
    subject_version="0.19.0",
    edition="0.19",
    requirement="SEL-001",
    source="https://example.org/source",
    target="gfx942",
    platform="gfx942+aiter",
    simulated=True,
    seconds=0.5,
    counts={"compared": 10},
)
BAD = {
    "outcome": Outcome.FAILED,
    "message": "expected ROCM_ATTN, got TRITON_ATTN",
    "reproduce": "rocm-conformance select --cell {cell} --target gfx942 " + "--env A=1 " * 12,
}
EVERY_TEXT = st.text(st.characters(exclude_categories=()))


def named(name: str, **changes: Any) -> CaseResult:
    return replace(CASE, name=name, **changes)


def run_of(*cases: CaseResult, header: RunHeader | None = HEADER, **changes: Any) -> Run:
    return replace(Run(header, cases, True), **changes)


def subject_of(*cases: CaseResult) -> SubjectSummary:
    (subject,) = summarise(run_of(*cases)).subjects
    return subject


def about(identifier: str, **changes: Any) -> Requirement:
    values = {"id": identifier, "title": f"title of {identifier}", "sentence": "s", "source": "u"}
    return Requirement(**{**values, "holds": ">=0.19", "question": "attention", **changes})


REQUIREMENTS = {
    "SEL-001": about("SEL-001"),
    "SEL-002": about("SEL-002", introduced_by=PULL, contested=("https://example.org/issue/2",)),
    "SEL-003": about("SEL-003", introduced_by=PULL),
}


def pretty(*cases: CaseResult, **changes: Any) -> str:
    return render(run_of(*cases, **changes), requirements=REQUIREMENTS)


def test_what_was_judged_is_counted() -> None:
    subject = subject_of(
        named("a"),
        named("b", platform="gfx90a", target="gfx90a", cells=CELLS[:2]),
        named("c", **BAD, cells=CELLS[:1]),
        named("c", outcome=Outcome.WAIVED, waiver="W-1", cells=CELLS[1:]),
    )
    ended = {name: number for name, number in subject.outcomes.items() if number}
    assert ended == {"passed": 2, "failed": 1, "waived": 1}
    assert (subject.platforms, subject.targets) == (2, ("gfx90a", "gfx942"))
    assert subject.cells["rocm62-aiter-mha"]["passed"] == 2
    assert subject.cells["rocm62-aiter-mha"]["failed"] == 1
    assert subject.cells["rocm72-aiter-mha"]["waived"] == 1
    assert subject.simulated == "simulated"
    # The two parts of a split case were compared and timed once.
    assert (subject.compared, subject.seconds) == (30, 1.5)


def test_cells_stand_in_the_order_of_their_numbers() -> None:
    assert list(subject_of(CASE).cells) == list(CELLS)
    assert list(summarise(run_of(header=replace(HEADER, cells=CELLS[::-1]))).subjects[0].cells) == (
        list(CELLS)
    )


NOT_JUDGED = "NO VERDICT: vllm==0.19.0 was not judged against edition 0.19:"
NOT_MET = "NOT CONFORMANT: vllm==0.19.0 does not meet edition 0.19:"
MET = "CONFORMANT: vllm==0.19.0 meets edition 0.19 in"
ERROR = named("an error", outcome=Outcome.ERRORED)
WAIVED = named("waived", outcome=Outcome.WAIVED, waiver="W-1")


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([CASE], f"{MET} 4 cells"),
        ([CASE, WAIVED], f"{MET} 4 cells (1 case waived)"),
        ([replace(CASE, cells=CELLS[:1])], f"{MET} 1 cell"),
        (
            [CASE, named("b", **BAD), named("c", **BAD), named("d", **BAD, requirement="SEL-002")],
            f"{NOT_MET} 2 requirements failed: SEL-001 SEL-002",
        ),
        ([named("b", **BAD), ERROR], f"{NOT_MET} 1 requirement failed: SEL-001; 1 case errored"),
        (
            [CASE, named("W-1", **BAD, suite=WAIVERS, waiver="W-1")],
            f"{NOT_MET} 1 waiver to settle: W-1",
        ),
        ([CASE, ERROR], f"{NOT_JUDGED} 1 case errored"),
        (
            [named("c", outcome=Outcome.UNSUPPORTED)],
            f"{NOT_JUDGED} nothing was judged (1 case)",
        ),
        ([], f"{NOT_JUDGED} nothing was judged (0 cases)"),
    ],
)
def test_verdicts(cases: list[CaseResult], sentence: str) -> None:
    run = run_of(*cases)
    assert subject_of(*cases).sentence == sentence
    text = render(run, colour=False, width=1000)
    assert text.endswith(f"\n{sentence}\n")
    assert f"**{sentence}**" in render(run, "markdown").replace("\\", "")
    code = {"CONFORMANT": 0, "NOT CONFORMANT": 1, "NO VERDICT": 75}[sentence.partition(":")[0]]
    assert summarise(run).exit == run.exit_code == code


def test_every_subject_gets_its_own_verdict() -> None:
    other = JudgedSubject("reference", "0.1.0", False)
    header = replace(HEADER, subjects=(*HEADER.subjects, other))
    cases = [named("b", **BAD), replace(CASE, subject="reference", subject_version="0.1.0")]
    lines = render(run_of(*cases, header=header), width=1000).splitlines()[-2:]
    assert lines[0].startswith("NOT CONFORMANT: vllm==0.19.0 ")
    assert lines[1].startswith("CONFORMANT: reference==0.1.0 ")


def test_a_release_that_the_newest_edition_does_not_know_is_named_in_the_heading() -> None:
    newest = editions()[-1]

    def title(version: str, edition: str) -> str:
        (subject,) = summarise(
            run_of(named("a", subject_version=version, edition=edition), header=None)
        ).subjects
        return subject.title

    note = " (the newest; this release is newer)"
    assert title("0.99.0", newest) == f"vllm==0.99.0, edition {newest}{note}, simulated"
    assert note not in title(f"{newest}.0", newest)
    assert note not in title("0.99.0", "0.19")


def test_a_cut_record_gives_no_verdict_of_conformance() -> None:
    text = pretty(CASE, complete=False, problems=("results.jsonl: no footer line",))
    assert "record: results.jsonl: no footer line" in text
    assert text.splitlines()[-1].startswith("NO VERDICT: vllm==0.19.0 ")
    assert "record of the run is not whole" in text.splitlines()[-1]
    assert pretty(CASE, complete=False).splitlines()[-1].startswith("NO VERDICT")


def test_a_file_without_anything_still_ends_in_no_verdict() -> None:
    run = Run(None, (), False, ("results.jsonl: is empty",))
    assert render(run).splitlines()[-1].startswith("NO VERDICT")
    assert "NO VERDICT" in render(run, "markdown")
    assert json.loads(render(run, "json"))["exit"] == 75


def test_a_case_lost_with_its_process_takes_conformance_from_every_subject() -> None:
    lost = replace(
        CASE, subject="", subject_version="", outcome=Outcome.ERRORED, cells=(), simulated=False
    )
    summary = summarise(run_of(CASE, lost))
    assert [subject.verdict for subject in summary.subjects] == ["no verdict", "no verdict"]
    assert summary.problems == ("1 case lost with the process that ran them",)
    assert summary.exit == 75


def test_the_matrix_marks_every_cell() -> None:
    header = replace(HEADER, cells=(*CELLS, "rocm100-noaiter"))
    text = pretty(
        named("a", cells=CELLS[:3]),
        named("b", **BAD, cells=CELLS[:1]),
        named("c", outcome=Outcome.ERRORED, cells=CELLS[:2]),
        named("d", outcome=Outcome.WAIVED, waiver="W-1", cells=CELLS[2:3]),
        named("e", outcome=Outcome.UNSUPPORTED, cells=CELLS[3:]),
        header=header,
    )
    lines = [re.split("   +", line.strip()) for line in text.splitlines()]
    start = lines.index(["cells", "aiter-mha", "noaiter"])
    assert lines[start + 1 : start + 4] == [
        ["rocm62", "1 failed, 1 errored", "1 errored"],
        ["rocm72", "ok (1 waived)"],
        ["rocm100", "unsupported", "not run"],
    ]


def test_failed_requirements_stand_under_the_change_that_brought_them() -> None:
    text = pretty(
        named("row 10", **BAD, requirement="SEL-002", cells=CELLS[:1]),
        named("row 9", **{**BAD, "message": "the first"}, requirement="SEL-002", target="gfx90a"),
        named("x", **BAD, requirement="SEL-003"),
        named("y", **BAD),
    )
    order = [
        f"Failed requirements, introduced by {PULL}\n",
        "  SEL-002  title of SEL-002  (contested)\n      2 cases, 4 cells, gfx90a gfx942\n",
        "SEL-002 in rocm62-aiter-mha on gfx90a: the first; source:",
        "      contested in https://example.org/issue/2\n",
        "  SEL-003  title of SEL-003\n",
        "Failed requirements\n",
        "  SEL-001  title of SEL-001\n",
    ]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert text.count("introduced by") == 1


def test_the_first_failure_does_not_depend_on_the_order_of_the_run() -> None:
    cases = [named(f"row {n}", **{**BAD, "message": f"number {n}"}) for n in (10, 9, 11)]
    for form in ("pretty", "json", "markdown"):
        assert render(run_of(*cases), form) == render(run_of(*reversed(cases)), form)
    assert "number 9" in render(run_of(*cases))


def test_a_command_stays_on_one_line() -> None:
    command = str(BAD["reproduce"]).replace("{cell}", "rocm62-aiter-mha").strip()
    text = pretty(named("b", **BAD))
    assert f"reproduce: {command}\n" in text
    others = [line for line in text.splitlines() if "reproduce:" not in line]
    assert max(map(len, others)) <= 100


def test_an_error_shows_the_end_of_its_stderr() -> None:
    stderr = "\n".join(f"line {n}" for n in range(50)) + "\n\x1b[31mKeyError\x1b[0m\n"
    text = pretty(named("b", outcome=Outcome.ERRORED, message="worker died", detail=stderr))
    assert "| \\x1b[31mKeyError\\x1b[0m\n" in text
    assert "| line 49\n" in text
    assert "| line 3\n" not in text


def test_equal_errors_are_counted_not_repeated() -> None:
    errors = [
        named(f"row {n}", outcome=Outcome.ERRORED, message="docker is away") for n in range(9)
    ]
    text = pretty(*errors)
    assert text.count("docker is away") == 1
    assert "9 cases, 4 cells" in text
    many = [named(f"r {n}", outcome=Outcome.ERRORED, message=f"kind {n}") for n in range(30)]
    assert "and 18 other kinds: see results.jsonl" in pretty(*many)


def test_unsupported_and_waived_cases_are_listed() -> None:
    text = pretty(
        *[named(f"u{n}", outcome=Outcome.UNSUPPORTED, message="no AMD GPU") for n in range(12)],
        named("v", outcome=Outcome.UNSUPPORTED, message="no aiter"),
        named("w", outcome=Outcome.WAIVED, waiver="W-7", message="known"),
    )
    assert "Unsupported cases\n     12  no AMD GPU\n      1  no aiter\n" in text
    assert "Waived cases\n  W-7  title of SEL-001\n" in text


def test_cases_that_passed_with_a_proviso_are_listed_and_counted_as_passed() -> None:
    told = [named(f"t{n}", message="right if it rains") for n in range(2)]
    text = pretty(CASE, *told)
    assert "3 passed" in text and "CONFORMANT: " in text
    assert "Passed with a proviso\n      2  right if it rains\n" in text
    assert "proviso" not in pretty(CASE)


def test_a_waiver_to_settle_says_what_to_do() -> None:
    text = pretty(
        CASE,
        named(
            "W-1",
            **{**BAD, "message": "waiver W-1 is stale: delete it"},
            suite=WAIVERS,
            waiver="W-1",
        ),
    )
    assert "Waivers to settle" in text
    assert "waiver W-1 is stale: delete it" in text
    assert "Failed requirements" not in text


def test_json_is_stable_and_whole() -> None:
    cases = [CASE, named("b", **BAD), named("c", outcome=Outcome.ERRORED, detail="é")]
    text = render(run_of(*cases), "json", requirements=REQUIREMENTS)
    value = json.loads(text)
    assert set(value) == {"schema", "exit", "header", "problems", "subjects"}
    assert value["schema"] == 1
    assert value["header"]["cells"] == list(CELLS)
    (subject,) = value["subjects"]
    assert subject["verdict"] == "not conformant"
    (failed,) = subject["findings"]["failed"]
    assert (failed["key"], failed["title"]) == ("SEL-001", "title of SEL-001")
    assert failed["cells"] == list(CELLS)
    assert failed["reproduce"].startswith("rocm-conformance select --cell rocm62-aiter-mha")
    assert text == json.dumps(value, indent=2, sort_keys=True) + "\n"


def test_markdown_takes_no_harm_from_hostile_text() -> None:
    hostile = "</pre></details> | `x` **b** <script> \x1b[31m"
    text = render(
        run_of(named("b", **{**BAD, "message": hostile}, cells=("rocm|62-<b>",)), header=None),
        "markdown",
    )
    assert text.count("<pre>") == text.count("</pre>") == 1
    assert text.count("</details>") == 1
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "| rocm\\|62 | 1 failed |" in text


def test_markdown_fits_an_annotation() -> None:
    cases = [
        named(f"r{n}", **{**BAD, "message": "<" * 5_000}, requirement=f"SEL-{n}", subject=subject)
        for n in range(300)
        for subject in ("vllm", "reference", "other")
    ]
    assert len(render(run_of(*cases), "markdown").encode()) < 1024 * 1024


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" not in pretty(CASE)
    assert "\x1b[" in render(run_of(CASE), colour=True)
    plain, terminal = io.StringIO(), Terminal()
    show(run_of(CASE), "pretty", plain)
    show(run_of(CASE), "pretty", terminal)
    assert "\x1b[" not in plain.getvalue()
    assert "\x1b[" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" in render(run_of(CASE), colour=True)
    quiet = Terminal()
    show(run_of(CASE), "pretty", quiet)
    assert "\x1b[" not in quiet.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stream_that_lacks_characters_gets_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show(run_of(named("b", **{**BAD, "message": "größer"})), "pretty", stream)
    stream.flush()
    assert b"gr\\xf6\\xdfer" in raw.getvalue()


@settings(max_examples=60, deadline=None)
@given(text=EVERY_TEXT, outcome=st.sampled_from(Outcome))
def test_any_text_can_be_rendered_and_steers_no_terminal(text: str, outcome: Outcome) -> None:
    names = "name subject subject_version edition requirement source target platform message"
    everywhere = dict.fromkeys([*names.split(), "detail", "reproduce", "waiver"], text)
    case = named(**everywhere, outcome=outcome, cells=(text, f"{text}-b"))
    run = run_of(case, header=replace(HEADER, command_line=text))
    for form in ("pretty", "markdown"):
        out = render(run, form)
        out.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)
    assert json.loads(render(run, "json"))["subjects"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda n, outcome, cells, subject: named(
                f"row {n}", outcome=outcome, cells=tuple(cells), subject=subject
            ),
            n=st.integers(),
            outcome=st.sampled_from(Outcome),
            cells=st.sets(st.sampled_from(CELLS), min_size=1),
            subject=st.sampled_from(["vllm", "reference"]),
        ),
        max_size=12,
        unique_by=lambda case: case.name,
    )
)
def test_all_counts_add_up(cases: list[CaseResult]) -> None:
    run = run_of(*cases)
    summary = summarise(run)
    assert summary.exit == run.exit_code
    total: Counter[str] = Counter()
    for subject in summary.subjects:
        total.update(subject.outcomes)
        for name, findings in subject.findings.items():
            if name == "passed":
                assert not findings
            elif name != "waivers":
                assert sum(finding.cases for finding in findings) == subject.outcomes[name]
        for outcome in Outcome:
            in_cells = sum(outcomes[outcome.value] for outcomes in subject.cells.values())
            assert in_cells == sum(
                len(case.cells)
                for case in cases
                if case.outcome is outcome and f"{case.subject}==0.19.0" == subject.label
            )
    assert total == Counter({o.value: sum(c.outcome is o for c in cases) for o in Outcome})


UPSTREAM = replace(
    CASE, suite="upstream", cells=(), requirement="", platform="gfx942 device interpreter"
)


UPSTREAM_BAD: dict[str, Any] = {**BAD, "reproduce": "rocm-conformance simulate -- pytest"}


def test_tests_in_no_cell_are_named_and_make_no_matrix() -> None:
    cases = [
        replace(UPSTREAM, name="tests/test_a.py::test_one[1] on interpreter"),
        *(
            replace(UPSTREAM, name=f"tests/test_b.py::test_{n} on interpreter", **UPSTREAM_BAD)
            for n in ("two[1]", "two[2-x]", "three")
        ),
    ]
    text = render(run_of(*cases, header=None), width=200)
    assert "no-cell" not in text
    assert "(none)" not in text
    assert "cell" not in text.split("reproduce:")[0]
    assert "Failed tests\n  tests/test_b.py::test_three" in text
    assert "2 tests failed: tests/test_b.py::test_three tests/test_b.py::test_two" in text
    assert "| ---" not in render(run_of(*cases, header=None), "markdown")


def test_a_verdict_on_tests_in_no_cell_names_no_cell() -> None:
    text = render(run_of(UPSTREAM, header=None))
    assert "CONFORMANT: vllm==0.19.0 meets edition 0.19\n" in text


def test_tests_and_requirements_that_fail_are_told_apart() -> None:
    text = render(
        run_of(
            named("SEL-001 row", **BAD),
            replace(UPSTREAM, name="tests/test_b.py::test_x", **UPSTREAM_BAD),
        )
    )
    assert text.index("Failed requirements") < text.index("Failed tests")
    said = " ".join(text.split())
    assert "1 requirement failed: SEL-001; 1 test failed: tests/test_b.py::test_x" in said
