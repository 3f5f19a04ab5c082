"""JUnit files: always parseable, one per cell, and adding up."""

from __future__ import annotations

import stat
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml

from conformance.errors import InfrastructureError
from conformance.reports import junit_writer as junit
from conformance.reports.junit_reader import read_junit
from conformance.reports.junit_writer import clip, failure_message, visible, write_junit
from conformance.results import CaseResult, Host, JudgedSubject, Outcome, RunHeader

A, B = "rocm72-aiter-mha", "rocm72-noaiter-mha"
HEADER = RunHeader(
    started="2027-01-02T03:04:05+00:00",
    suite_version="0.1.0",
    edition="0.19",
    subjects=(JudgedSubject("vllm", "0.19.0", True),),
    cells=(A, B),
    suites=("selection",),
    seed=7,
    sweep=100,
    command_line="rocm-conformance run",
    python="3.11.7",
    host=Host("Linux", 2),
)
CASE = CaseResult(
    suite="selection",
    name="SEL-004 row [gfx942]",
    outcome=Outcome.FAILED,
    cells=(A,),
    subject="vllm",
    subject_version="0.19.0",
    edition="0.19",
    requirement="SEL-004",
    source="https://example.org/source",
    target="gfx942",
    platform="gfx942+aiter",
    simulated=True,
    message="expected ROCM_ATTN, got TRITON_ATTN; candidates: TRITON_ATTN",
    reproduce="rocm-conformance select --cell {cell}",
    seconds=0.5,
    counts={"compared": 3},
)
MESSAGE = (
    "SEL-004 in rocm72-aiter-mha on gfx942: expected ROCM_ATTN, got TRITON_ATTN; candidates: "
    "TRITON_ATTN; source: https://example.org/source; "
    "reproduce: rocm-conformance select --cell rocm72-aiter-mha"
)
EVERY_TEXT = st.text(st.characters(exclude_categories=()))
CONTROLS = st.text(
    st.sampled_from("\x00\x08\t\n\r\x1b[31m\x7f\x85\x9b\ud800\udfff\ufffe\uffff<&]>\"'")
)


def elements(path: Path) -> Iterator[ET.Element]:
    return ET.parse(path).getroot().iter("testcase")


def only(path: Path) -> ET.Element:
    (element,) = elements(path)
    return element


def written(tmp_path: Path, **changes: Any) -> ET.Element:
    (path,) = write_junit([replace(CASE, **changes)], tmp_path, HEADER)
    return only(path)


def properties(element: ET.Element) -> dict[str, str]:
    found = element.find("properties")
    assert found is not None
    return {item.attrib["name"]: item.attrib["value"] for item in found}


def test_the_failure_message_stands_alone() -> None:
    assert failure_message(CASE, A) == MESSAGE


def test_empty_parts_of_a_message_are_left_out() -> None:
    bare = replace(CASE, requirement="", target="", source="", reproduce="")
    assert failure_message(bare, A) == f"in {A}: {CASE.message}"
    silent = replace(CASE, message="", reproduce="")
    assert failure_message(silent, A) == f"SEL-004 in {A} on gfx942: source: {CASE.source}"


def test_braces_in_a_command_are_not_format_fields() -> None:
    case = replace(CASE, reproduce="echo '{\"id\": {1}}' {cell}")
    assert failure_message(case, A).endswith("reproduce: echo '{\"id\": {1}}' rocm72-aiter-mha")


def test_a_failed_case(tmp_path: Path) -> None:
    element = written(tmp_path, detail="a traceback")
    assert element.attrib["classname"] == "rocm72-aiter-mha.vllm-0_19_0.selection"
    assert element.attrib["name"] == CASE.name
    assert element.attrib["time"] == "0.5"
    failure = element.find("failure")
    assert failure is not None
    assert failure.attrib == {"message": MESSAGE, "type": "SEL-004"}
    assert "\n\nreproduce: rocm-conformance select --cell rocm72-aiter-mha\n\n" in (
        failure.text or ""
    )
    assert (failure.text or "").endswith("a traceback")


def test_a_case_carries_what_a_dashboard_filters_by(tmp_path: Path) -> None:
    assert properties(written(tmp_path, waiver="W-1", outcome=Outcome.WAIVED)) == {
        "requirement": "SEL-004",
        "source": "https://example.org/source",
        "subject": "vllm",
        "subject_version": "0.19.0",
        "edition": "0.19",
        "cell": A,
        "target": "gfx942",
        "platform": "gfx942+aiter",
        "simulated": "true",
        "seed": "7",
        "waiver": "W-1",
        "counts.compared": "3",
    }
    assert properties(written(tmp_path, seed=0, simulated=False))["seed"] == "0"


def test_a_proviso_is_kept(tmp_path: Path) -> None:
    """What a case that passed rests on is no failure, and is read back."""
    element = written(tmp_path, outcome=Outcome.PASSED, message="right if it rains")
    assert [child.tag for child in element] == ["properties"]
    assert properties(element)["proviso"] == "right if it rains"
    (file,) = tmp_path.glob("**/*.xml")
    (case,) = read_junit(file).cases
    assert (case.outcome, case.message) == (Outcome.PASSED, "right if it rains")
    assert "proviso" not in properties(written(tmp_path, message="a failure's"))


@pytest.mark.parametrize(
    ("outcome", "tag", "attributes"),
    [
        (Outcome.FAILED, "failure", {"type": "SEL-004"}),
        (Outcome.ERRORED, "error", {"type": "infrastructure"}),
        (Outcome.UNSUPPORTED, "skipped", {"type": "unsupported", "message": "why not"}),
        (Outcome.WAIVED, "skipped", {"type": "waived", "message": "waived W-1: why not"}),
    ],
)
def test_every_outcome_has_its_element(
    tmp_path: Path, outcome: Outcome, tag: str, attributes: dict[str, str]
) -> None:
    element = written(tmp_path, outcome=outcome, message="why not", waiver="W-1")
    assert [child.tag for child in element] == ["properties", tag]
    assert attributes.items() <= element[1].attrib.items()
    assert "why not" in (element[1].text or "")


def test_a_passed_case_has_no_ending(tmp_path: Path) -> None:
    element = written(tmp_path, outcome=Outcome.PASSED, message="")
    assert [child.tag for child in element] == ["properties"]


def test_a_shared_case_is_in_every_cells_file_under_a_name_of_its_own(tmp_path: Path) -> None:
    paths = write_junit([replace(CASE, cells=(B, A))], tmp_path, HEADER)
    assert [path.name for path in paths] == [f"junit-{A}.xml", f"junit-{B}.xml"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name for path in paths]
    for path, cell in zip(paths, (A, B), strict=True):
        element = only(path)
        assert element.attrib["classname"].startswith(f"{cell}.")
        assert f"in {cell} on" in element[1].attrib["message"]
        assert element[1].attrib["message"].endswith(f"--cell {cell}")


def test_a_case_outside_of_the_matrix_is_not_lost(tmp_path: Path) -> None:
    (path,) = write_junit([replace(CASE, cells=())], tmp_path)
    assert path.name == "junit-no-cell.xml"
    assert only(path).attrib["classname"] == "no-cell.vllm-0_19_0.selection"


def test_counts_and_times_add_up_by_subject_and_suite(tmp_path: Path) -> None:
    outcomes = [*Outcome, Outcome.PASSED, Outcome.FAILED]
    cases = [
        replace(CASE, name=f"case {n}", outcome=outcome, seconds=0.25)
        for n, outcome in enumerate(outcomes)
    ]
    cases += [replace(CASE, suite="removal"), replace(CASE, subject_version="0.18.1")]
    (path,) = write_junit(cases, tmp_path, HEADER)
    document = JUnitXml.fromfile(str(path))
    counted = {
        suite.name: (suite.tests, suite.failures, suite.errors, suite.skipped, suite.time)
        for suite in document
    }
    assert counted == {
        f"{A}.vllm==0.18.1.selection": (1, 1, 0, 0, 0.5),
        f"{A}.vllm==0.19.0.removal": (1, 1, 0, 0, 0.5),
        f"{A}.vllm==0.19.0.selection": (7, 2, 1, 2, 1.75),
    }
    # In the file itself, not only worked out by whoever reads it.
    root = ET.parse(path).getroot()
    totals = {"tests": "9", "failures": "4", "errors": "1", "skipped": "2", "time": "2.75"}
    assert root.attrib == totals
    assert [suite.attrib["tests"] for suite in root] == ["1", "1", "7"]


def test_the_order_does_not_depend_on_the_run(tmp_path: Path) -> None:
    cases = [
        replace(CASE, name=name, suite=suite, cells=(A, B))
        for name in ("b", "a", "c")
        for suite in ("selection", "removal")
    ]
    first = [path.read_bytes() for path in write_junit(cases, tmp_path, HEADER)]
    again = [path.read_bytes() for path in write_junit(reversed(cases), tmp_path, HEADER)]
    assert first == again
    order = [
        (element.attrib["classname"], element.attrib["name"])
        for element in elements(tmp_path / f"junit-{A}.xml")
    ]
    assert order == sorted(order)
    assert len(order) == 6


def test_a_version_and_a_path_are_safe_in_a_classname(tmp_path: Path) -> None:
    odd = {"subject": "/opt/a.b/bin/python", "subject_version": "0.19.0+rocm7.2"}
    element = written(tmp_path, **odd)
    assert element.attrib["classname"].count(".") == 2
    assert element.attrib["classname"] == f"{A}._opt_a_b_bin_python-0_19_0+rocm7_2.selection"
    assert properties(element)["subject_version"] == "0.19.0+rocm7.2"


def test_a_cells_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (path,) = write_junit([replace(CASE, cells=("../../out",))], inside)
    assert path.parent == inside
    assert list(tmp_path.iterdir()) == [inside]


def test_more_results_than_a_file_takes_are_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(junit, "RESULTS_PER_FILE", 3)
    cases = [replace(CASE, name=f"case {number}") for number in range(8)]
    paths = write_junit(cases, tmp_path, HEADER)
    assert [path.name for path in paths] == [
        f"junit-{A}.xml",
        f"junit-{A}-2.xml",
        f"junit-{A}-3.xml",
    ]
    names = [element.attrib["name"] for path in paths for element in elements(path)]
    assert names == [case.name for case in cases]
    other = tmp_path / f"junit-{A}-more.xml"
    other.touch()
    assert write_junit(cases[:4], tmp_path, HEADER) == paths[:2]
    assert sorted(tmp_path.iterdir()) == sorted([*paths[:2], other])


def test_a_part_does_not_overwrite_another_cells_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(junit, "RESULTS_PER_FILE", 1)
    cases = [replace(CASE, name=str(n), cells=("a",)) for n in range(2)]
    paths = write_junit([*cases, replace(CASE, cells=("a-2",))], tmp_path)
    assert sorted(path.name for path in paths) == ["junit-a-2.xml", "junit-a-3.xml", "junit-a.xml"]
    assert sum(1 for path in paths for _ in elements(path)) == 3


def test_hostile_characters_are_shown() -> None:
    assert visible("\x1b[31mred\x1b[0m") == "\\x1b[31mred\\x1b[0m"
    assert visible("\x9b31m\r\x00\x7f") == "\\x9b31m\\r\\x00\\x7f"
    assert visible("\ud800 \ufffe \uffff") == "\\ud800 \\ufffe \\uffff"
    assert visible("tab\tline\n é 漢 \U0001f600 <&>") == "tab\tline\n é 漢 \U0001f600 <&>"


@settings(max_examples=150, deadline=None)
@given(text=EVERY_TEXT | CONTROLS, outcome=st.sampled_from(Outcome))
def test_any_text_anywhere_gives_a_file_that_parses(text: str, outcome: Outcome) -> None:
    case = CaseResult(
        suite=text,
        name=text,
        outcome=outcome,
        cells=(text,),
        subject=text,
        subject_version=text,
        edition=text,
        requirement=text,
        source=text,
        target=text,
        platform=text,
        simulated=False,
        message=text,
        detail=text,
        reproduce=text,
        waiver=text,
        counts={text: 1},
    )
    header = replace(HEADER, command_line=text, started=text)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_junit([case], Path(folder), header)
        element = only(path)
        assert element.attrib["name"] == visible(text)
        assert [child.tag for child in element][1:] == {
            Outcome.PASSED: [],
            Outcome.FAILED: ["failure"],
            Outcome.ERRORED: ["error"],
        }.get(outcome, ["skipped"])
        if outcome is not Outcome.PASSED:
            body = element[1].text or ""
            assert visible(text) in body
        JUnitXml.fromfile(str(path))


def test_a_long_detail_is_cut_in_its_middle_and_says_so(tmp_path: Path) -> None:
    detail = "first line\n" + "é\x00" * 200_000 + "\nlast line"
    failure = written(tmp_path, detail=detail, message="m" * 10_000)[1]
    body = failure.text or ""
    assert len(body.encode()) < 64 * 1024 + 200
    assert body.startswith("SEL-004 in")
    assert body.endswith("last line")
    assert "bytes cut here; results.jsonl has them all" in body
    assert len(failure.attrib["message"]) < 5_000


@given(st.text(), st.integers(0, 50))
def test_a_clipped_text_keeps_both_ends(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    if len(text.encode()) <= limit:
        assert clipped == text
    else:
        head, note, tail = clipped.split("\n[... ", 1)[0], "bytes cut", clipped.split("...]\n")[-1]
        assert note in clipped
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len((head + tail).encode()) <= limit


def test_a_file_is_replaced_and_never_written_into(tmp_path: Path) -> None:
    (path,) = write_junit([CASE], tmp_path / "reports")
    reader = tmp_path / "reader"
    reader.hardlink_to(path)
    before = reader.read_bytes()
    write_junit([replace(CASE, name="other")], tmp_path / "reports")
    assert reader.read_bytes() == before != path.read_bytes()


def test_others_may_read_the_files_and_no_draft_stays(tmp_path: Path) -> None:
    (path,) = write_junit([CASE], tmp_path)
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [path, plain]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_junit([CASE], tmp_path)
    before = path.read_bytes()

    def write_half(file: Path, _text: str, **_how: str) -> None:
        file.write_bytes(b"<testsuites>")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(InfrastructureError, match="No space left"):
        write_junit([replace(CASE, name="other")], tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="cannot write JUnit files to"):
        write_junit([CASE], tmp_path / "file" / "reports")
