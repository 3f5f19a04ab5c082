"""The annotation and the command: size, what was cut, links, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import JUnitXml
from markdown_it import MarkdownIt

from conformance.cli import run_cli
from conformance.reports.annotation import LIMIT, annotation
from conformance.reports.collect import collect
from conformance.reports.html_page import page
from conformance.reports.merge import Merged, merge
from conformance.requirements import all_requirements
from conformance.results import CaseResult, Outcome
from tests.support.results import CASE, FAILED, JOB, A, B, C, many_cases, write_run

HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `x` **b** | c </details> \u202egpj"


def merged_of(folder: Path, cases: Iterable[CaseResult]) -> Merged:
    write_run(folder, cases)
    return merge(collect(folder))


def test_a_failure_is_named_with_its_requirement_and_job(tmp_path: Path) -> None:
    merged = merged_of(tmp_path / f"{JOB}1", [FAILED, CASE])
    text = annotation(merge(collect(tmp_path)), all_requirements(), build_url="https://e.org/b/7")
    assert text.startswith("**NOT CONFORMANT: vllm==0.19.0 does not meet edition 0.19")
    assert "<code>SEL-004</code> MI3xx with AITER and its MHA" in text
    assert f'<a href="https://e.org/b/7#{JOB}1">' in text
    assert "rocm-conformance select --cell rocm72-aiter-mha --target gfx950" in text
    assert "Cut here" not in text
    assert f'<a href="#{JOB}1">' in annotation(merge(collect(tmp_path)), {})
    assert merged.exit_code == 1


def test_a_passed_run_says_so_and_lists_nothing(tmp_path: Path) -> None:
    text = annotation(merged_of(tmp_path, [CASE]), {})
    assert text.startswith("**CONFORMANT: ")
    assert "<details>" not in text
    assert "Every platform was simulated" in text


def test_hostile_text_stays_text_in_the_rendered_annotation(tmp_path: Path) -> None:
    case = replace(
        FAILED, name=HOSTILE, message=HOSTILE + "\n\n# head\n\n- item", requirement="<b>"
    )
    merged = merged_of(tmp_path, [case, replace(case, name="e", outcome=Outcome.ERRORED)])
    text = annotation(merged, {})
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    for markup in ("<img", "<b>", "<strong>b", "<h1>", 'href="javascript', "\u202e"):
        assert markup not in rendered, markup
    assert rendered.count("<details>") == rendered.count("</details>") == 2


def test_it_never_passes_the_limit_and_says_what_was_cut(tmp_path: Path) -> None:
    cases = [
        replace(FAILED, name=f"case {i}", requirement=f"REQ-{i}", message="é" * 9_000)
        for i in range(400)
    ]
    merged = merged_of(tmp_path, cases)
    text = annotation(merged, {})
    assert LIMIT * 0.9 < len(text.encode()) <= LIMIT
    cut = int(text.rpartition("**Cut here")[2].partition("bytes:** ")[2].split()[0])
    assert text.count("<details>") + cut == 400
    assert "report.html has everything" in text
    small = annotation(merged, {}, limit=8_000)
    assert len(small.encode()) <= 8_000
    assert "does not meet" in small


def test_thousands_of_problems_leave_room_for_failures(tmp_path: Path) -> None:
    write_run(tmp_path, [FAILED])
    for number in range(300):
        (tmp_path / f"junit-{number}.xml").write_text("junk")
    text = annotation(merge(collect(tmp_path)), {})
    assert "Errors of the record: 300" in text
    assert "and 200 more" in text
    assert "<code>SEL-004</code>" in text


# ---- the command


def report(*arguments: object) -> int:
    return run_cli(["report", *map(str, arguments)])


@pytest.mark.parametrize(
    ("cases", "options", "code"),
    [
        ([CASE], [], 0),
        ([CASE], ["--expect-cells", A], 0),
        ([CASE], ["--expect-cells", "rocm72-*"], 75),
        ([FAILED], ["--expect-cells", "rocm72-*"], 1),
        ([replace(CASE, outcome=Outcome.ERRORED)], [], 75),
        ([replace(CASE, outcome=Outcome.UNSUPPORTED)], [], 75),
        ([], [], 75),
        ([CASE], ["--expect-cells", "rocm99-aiter"], 2),
    ],
)
def test_exit_codes(tmp_path: Path, cases: list[CaseResult], options: list[str], code: int) -> None:
    write_run(tmp_path, cases)
    assert report(tmp_path, *options) == code
    assert (tmp_path / "report" / "report.html").exists() == (code != 2)


def test_what_is_no_folder_and_what_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(tmp_path / "gone") == 2
    assert "not a folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert report(tmp_path, "--output", tmp_path / "file" / "x") == 75


def test_a_second_report_finds_the_same_and_removes_old_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.reports.junit_writer.RESULTS_PER_FILE", 500)
    write_run(tmp_path, many_cases(600))
    assert report(tmp_path) == 1
    files = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert files == ["annotation.md", "report.2.xml", "report.3.xml", "report.html", "report.xml"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert report(tmp_path) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before
    parts = [JUnitXml.fromfile(str(p)) for p in sorted((tmp_path / "report").glob("report*.xml"))]
    assert all(part.tests <= 500 for part in parts)
    assert sum(part.tests for part in parts) == 200 * (1 + 2 + 3)
    (tmp_path / "results.jsonl").unlink()
    write_run(tmp_path, [CASE])
    assert report(tmp_path) == 0
    assert not (tmp_path / "report" / "report.2.xml").exists()


def test_problems_are_errors_of_their_cell_in_the_junit_file(tmp_path: Path) -> None:
    write_run(tmp_path, [CASE])
    assert report(tmp_path, "--expect-cells", B, "--expect-cells", A) == 75
    parsed = JUnitXml.fromfile(str(tmp_path / "report" / "report.xml"))
    assert (parsed.tests, parsed.errors) == (2, 1)
    names = [case.classname for suite in parsed for case in suite]
    assert names == sorted(names)
    assert f"{B}.record.record" in names


def test_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, [CASE, FAILED])
    assert report(tmp_path, "--format", "json") == 1
    assert json.loads(capsys.readouterr().out)["exit"] == 1
    assert report(tmp_path, "--format", "markdown") == 1
    assert capsys.readouterr().out == (tmp_path / "report" / "annotation.md").read_text()
    assert report(tmp_path) == 1
    assert "NOT CONFORMANT" in capsys.readouterr().out


def test_the_page_past_its_limit_keeps_counts_and_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.reports.page_data.CASES_LIMIT", 10)
    merged = merged_of(tmp_path, [*many_cases(200), replace(FAILED, cells=(C,))])
    text = page(merged, {})
    assert "holds the 10 worst cases of 201" in text
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["cases"]["columns"]["outcome"] == [0] * 10
    counted = sum(sum(row[3]) for row in data["byRequirement"])
    assert counted == sum(len(case.cells) for case in merged.cases)


def test_the_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    assert report(tmp_path) == 75
    text = (tmp_path / "report" / "report.html").read_text()
    assert "No verdict" in text
    assert "no results" in text
    shutil.rmtree(tmp_path / "report")
