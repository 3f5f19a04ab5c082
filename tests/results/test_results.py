"""Results files: what is written is read back, and what is broken is named."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import ExitCode, InfrastructureError
from conformance.results import (
    CaseResult,
    Host,
    JudgedSubject,
    Outcome,
    ResultsWriter,
    RunHeader,
    exit_code,
    read_results,
    subject_label,
)

HEADER = RunHeader(
    started="2027-01-02T03:04:05+00:00",
    suite_version="0.1.0",
    edition="0.19",
    subjects=(JudgedSubject("vllm", "0.19.0", True),),
    cells=("rocm72-aiter-mha", "rocm72-noaiter-mha"),
    suites=("selection",),
    seed=7,
    sweep=None,
    command_line="rocm-conformance run",
    python="3.11.7",
    host=Host("Linux", 2),
)
CASE = CaseResult(
    suite="selection",
    name="SEL-001 row [gfx942]",
    outcome=Outcome.PASSED,
    cells=("rocm72-aiter-mha",),
    subject="vllm",
    subject_version="0.19.0",
    edition="0.19",
    requirement="SEL-001",
    source="https://example.org/source",
    target="gfx942",
    platform="gfx942+aiter",
    simulated=True,
)
EVERY_TEXT = st.text(st.characters(exclude_categories=()))


def named(number: int, **changes: Any) -> CaseResult:
    return replace(CASE, name=f"case {number}", **changes)


def write(path: Path, cases: list[CaseResult], header: RunHeader = HEADER) -> None:
    with ResultsWriter(path, header) as writer:
        for case in cases:
            writer.write(case)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            CaseResult,
            suite=EVERY_TEXT,
            name=EVERY_TEXT,
            outcome=st.sampled_from(Outcome),
            cells=st.lists(EVERY_TEXT).map(tuple),
            subject=st.sampled_from(["vllm", "reference"]),
            subject_version=EVERY_TEXT,
            edition=EVERY_TEXT,
            requirement=EVERY_TEXT,
            source=EVERY_TEXT,
            target=EVERY_TEXT,
            platform=EVERY_TEXT,
            simulated=st.booleans(),
            seed=st.none() | st.integers(),
            message=EVERY_TEXT,
            detail=EVERY_TEXT,
            reproduce=EVERY_TEXT,
            waiver=EVERY_TEXT,
            seconds=st.floats(allow_nan=False, allow_infinity=False),
            counts=st.dictionaries(EVERY_TEXT, st.integers()),
        ),
        max_size=4,
    )
)
def test_any_case_comes_back_as_it_was_written(cases: list[CaseResult]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        write(path, cases)
        run = read_results(path)
    assert run.problems == ()
    assert run.complete
    assert run.header == HEADER
    assert list(run.cases) == cases


def test_a_file_is_header_cases_footer_with_sorted_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    write(path, [named(1), named(2, outcome=Outcome.FAILED)])
    lines = lines_of(path)
    assert [line["kind"] for line in lines] == ["header", "case", "case", "footer"]
    assert all(list(line) == sorted(line) for line in lines)
    assert lines[0]["schema"] == 1
    footer = lines[-1]
    assert footer["cases"] == 2
    assert footer["outcomes"] == {
        "passed": 1,
        "failed": 1,
        "unsupported": 0,
        "waived": 0,
        "errored": 0,
    }
    assert footer["exit"] == ExitCode.NOT_CONFORMANT


def test_every_case_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsWriter(path, HEADER) as writer:
        assert len(lines_of(path)) == 1
        for number in range(3):
            writer.write(named(number))
            assert lines_of(path)[-1]["name"] == f"case {number}"


def test_an_exception_leaves_the_cases_and_no_footer(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(KeyboardInterrupt), ResultsWriter(path, HEADER) as writer:
        writer.write(named(1))
        raise KeyboardInterrupt
    run = read_results(path)
    assert run.cases == (named(1),)
    assert not run.complete
    assert ["no footer" in problem for problem in run.problems] == [True]
    assert run.exit_code is ExitCode.INFRASTRUCTURE


def test_a_file_cut_at_any_byte_keeps_its_good_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    cases = [named(1), named(2, message="é\ud800", seconds=0.25), named(3, counts={"n": 12})]
    write(path, cases)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        run = read_results(path)
        line_ends = whole[:end].count(b"\n")
        assert not run.complete, end
        assert run.problems, end
        assert run.cases == tuple(cases[: len(run.cases)]), end
        assert len(run.cases) >= min(max(line_ends - 1, 0), len(cases)), end
        assert (run.header is None) <= (line_ends == 0), end
        assert run.exit_code is ExitCode.INFRASTRUCTURE, end


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "not JSON"),
        (b'{"kind": "case", "na', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "left out"),
        (b"[1, 2]", "expected a JSON object, got [1, 2]"),
        (b'{"kind": "result"}', "expected header, case or footer, got 'result'"),
        (b'{"kind": "case", "name": "x"}', "missing fields: cells, edition"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_kept(
    tmp_path: Path, line: bytes, said: str
) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1), named(2)])
    good = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*good[:2], line, *good[2:]]))
    run = read_results(path)
    assert [case.name for case in run.cases] == ["case 1", "case 2"]
    assert len(run.problems) == 1
    assert "line 3: " in run.problems[0]
    assert said in run.problems[0]
    assert not run.complete


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 5, "case.name: expected str, got 5"),
        ("name", None, "case.name: expected str, got None"),
        ("outcome", "xpassed", "case.outcome: expected Outcome, got 'xpassed'"),
        ("outcome", ["passed"], "case.outcome: expected Outcome"),
        ("cells", "rocm72", "case.cells: expected"),
        ("cells", ["rocm72", 3], "case.cells[1]: expected str, got 3"),
        ("simulated", 1, "case.simulated: expected bool, got 1"),
        ("seed", True, "case.seed: expected int, got True"),
        ("seed", 1.5, "case.seed: expected int, got 1.5"),
        ("seconds", "1", "case.seconds: expected float, got '1'"),
        ("seconds", float("nan"), "case.seconds: expected float, got nan"),
        ("seconds", float("inf"), "case.seconds: expected float, got inf"),
        ("seconds", 10**400, "too large"),
        ("counts", {"compared": "9"}, "case.counts.compared: expected int, got '9'"),
        ("counts", [], "case.counts: expected"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1), named(2)])
    lines = lines_of(path)
    lines[1][key] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    run = read_results(path)
    assert [case.name for case in run.cases] == ["case 2"]
    assert any("line 2: " in p and said in p for p in run.problems), run.problems
    assert any("footer counts 2 cases, 1 could be read" in p for p in run.problems)


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (0, {"schema": 2}, "unknown schema 2, this suite reads 1"),
        (0, {"host": {"platform": "Linux"}}, "header.host: missing fields: cpus"),
        (-1, {"cases": 3}, "footer counts 3 cases, 2 could be read"),
        (-1, {"exit": 0}, "says exit code 0, its cases amount to 1"),
    ],
)
def test_a_header_or_footer_that_does_not_fit_is_named(
    tmp_path: Path, number: int, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1), named(2, outcome=Outcome.FAILED)])
    lines = lines_of(path)
    lines[number].update(changes)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    run = read_results(path)
    assert len(run.cases) == 2
    assert any(said in problem for problem in run.problems), run.problems
    assert not run.complete


def test_a_footer_with_other_outcomes_is_named_though_the_number_fits(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1), named(2)])
    path.write_text(
        path.read_text("ascii").replace('"outcome": "passed"', '"outcome": "waived"', 1)
    )
    run = read_results(path)
    assert len(run.problems) == 1
    assert "'passed': 2" in run.problems[0]
    assert "'waived': 1" in run.problems[0]


def test_two_runs_in_one_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1)])
    path.write_bytes(path.read_bytes() * 2)
    run = read_results(path)
    assert len(run.cases) == 2
    assert any("line 4: comes after the footer" in problem for problem in run.problems)
    assert any("line 4: a second header" in problem for problem in run.problems)


def test_a_file_without_its_header_keeps_its_cases(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, [named(1)])
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    run = read_results(path)
    assert run.header is None
    assert run.cases == (named(1),)
    assert any("no readable header" in problem for problem in run.problems)


@pytest.mark.parametrize("content", [None, b""])
def test_no_file_and_an_empty_file_are_infrastructure(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "results.jsonl"
    if content is not None:
        path.write_bytes(content)
    run = read_results(path)
    assert (run.header, run.cases, run.complete) == (None, (), False)
    assert len(run.problems) == 1
    assert str(path) in run.problems[0]
    assert run.exit_code is ExitCode.INFRASTRUCTURE


def test_a_folder_that_cannot_be_written_is_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot write results to"):
        ResultsWriter(tmp_path / "file" / "results.jsonl", HEADER).open()


def test_writing_to_a_full_disk_is_infrastructure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(InfrastructureError, match="No space left"):
        ResultsWriter(Path("/dev/full"), HEADER).open()


def test_a_closed_writer_takes_no_more_cases(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path / "results.jsonl", HEADER)
    writer.open()
    writer.close()
    with pytest.raises(RuntimeError, match="is not open"):
        writer.write(CASE)


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError), ResultsWriter(tmp_path / "results.jsonl", HEADER) as writer:
        writer.write(replace(CASE, seconds=float("nan")))


OTHER = {"subject": "reference", "subject_version": "0.1.0"}


@pytest.mark.parametrize(
    ("cases", "code"),
    [
        ([], 75),
        ([{"outcome": Outcome.PASSED}], 0),
        ([{"outcome": Outcome.WAIVED}], 0),
        ([{"outcome": Outcome.UNSUPPORTED}], 75),
        ([{"outcome": Outcome.UNSUPPORTED}, {"outcome": Outcome.PASSED}], 0),
        ([{"outcome": Outcome.PASSED}, {"outcome": Outcome.ERRORED}], 75),
        ([{"outcome": Outcome.PASSED}, {"outcome": Outcome.FAILED}], 1),
        ([{"outcome": Outcome.ERRORED}, {"outcome": Outcome.FAILED}], 1),
        ([{"outcome": Outcome.PASSED}, {"outcome": Outcome.UNSUPPORTED, **OTHER}], 75),
        ([{"outcome": Outcome.FAILED}, {"outcome": Outcome.ERRORED, **OTHER}], 1),
    ],
)
def test_exit_codes(tmp_path: Path, cases: list[dict[str, Any]], code: int) -> None:
    results = [named(number, **changes) for number, changes in enumerate(cases)]
    assert exit_code(results) == code
    write(tmp_path / "results.jsonl", results, replace(HEADER, subjects=()))
    run = read_results(tmp_path / "results.jsonl")
    assert run.complete
    assert run.exit_code == code


def test_an_expected_subject_without_cases_has_no_verdict() -> None:
    assert exit_code([CASE], HEADER.subjects) is ExitCode.CONFORMANT
    absent = JudgedSubject("vllm", "0.18.1", True)
    assert exit_code([CASE], [*HEADER.subjects, absent]) is ExitCode.INFRASTRUCTURE


def test_a_problem_of_the_record_takes_conformance_away_but_no_failure() -> None:
    assert exit_code([CASE], problems=["cut short"]) is ExitCode.INFRASTRUCTURE
    failed = replace(CASE, outcome=Outcome.FAILED)
    assert exit_code([failed], problems=["cut short"]) is ExitCode.NOT_CONFORMANT


@pytest.mark.parametrize(
    ("name", "version", "label"),
    [
        ("vllm", "0.19.0", "vllm==0.19.0"),
        ("vllm==0.19.0", "0.19.0", "vllm==0.19.0"),
        ("reference", "", "reference"),
        ("python3.12", "12", "python3.12==12"),
        ("", "", "unknown subject"),
    ],
)
def test_a_subject_is_written_with_its_version_once(name: str, version: str, label: str) -> None:
    assert subject_label(name, version) == label


def test_the_header_of_a_run_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rocm-conformance", "run", "--cell", "a b"])
    header = RunHeader.now(edition="0.19", subjects=(), cells=(), suites=(), seed=1, sweep=2)
    assert header.command_line == "rocm-conformance run --cell 'a b'"
    assert header.started.endswith("+00:00")
    assert header.host.cpus >= 1
