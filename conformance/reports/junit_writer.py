"""Writes JUnit files, one per cell, for CI systems and test dashboards.

A case that several cells share is written for each of them, and ``classname`` begins with the cell:
dashboards merge the histories of results with the same ``classname`` and ``name``.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import count, groupby
from pathlib import Path

from junitparser import (
    Error,
    Failure,
    JUnitXml,
    Properties,
    Property,
    Skipped,
    TestCase,
    TestSuite,
)

from conformance.errors import InfrastructureError
from conformance.results import CaseResult, Outcome, RunHeader, subject_label
from conformance.results.emulation_coverage import LINE

# Buildkite's Test Engine accepts this many results per file:
# https://buildkite.com/docs/test-engine/test-collection/importing-junit-xml
RESULTS_PER_FILE = 5_000
BODY_LIMIT = 64 * 1024
MESSAGE_LIMIT = 4 * 1024
NO_CELL = "no-cell"
CUT = "bytes cut here"
# Stands for a cell's name, and is longer than any of the matrix; a plain name needs no escaping.
ANY_CELL = "AnyCell0" * 8
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")

# Characters that XML 1.0 forbids or a terminal interprets: every control character but tab and
# newline (so ANSI escapes too), surrogates, and the two non-characters.
# https://www.w3.org/TR/xml/#charsets
_HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    r"""``text`` with hostile characters escaped as in Python: ESC becomes ``\x1b``."""
    return _HOSTILE.sub(lambda match: ascii(match.group())[1:-1], text)


def clip(text: str, limit: int) -> str:
    """At most ``limit`` bytes of ``text``; a note says what was cut from its middle.

    Both ends are kept: a traceback begins with where and ends with what happened.
    """
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit:
        return text
    cut = len(encoded) - limit
    head, tail = encoded[: limit // 2], encoded[limit // 2 + cut :]
    note = f"\n[... {cut} of {len(encoded)} {CUT}; results.jsonl has them all ...]\n"
    return head.decode(errors="ignore") + note + tail.decode(errors="ignore")


def reproduce_line(case: CaseResult, cell: str) -> str:
    """The command that reproduces a case in one cell."""
    return case.reproduce.replace("{cell}", cell)


def failure_message(case: CaseResult, cell: str, *, reproduce: bool = True) -> str:
    """A message that stands alone: what, where, the difference, its source, how to reproduce it.

    The case's own message names no cell, because several cells share the case. Empty parts are
    left out; ``reproduce=False`` is for reports that show the command on a line of its own.
    """
    places = [("", case.requirement), ("in ", cell), ("on ", case.target)]
    where = " ".join(word + value for word, value in places if value)
    command = reproduce_line(case, cell) if reproduce else ""
    parts = [case.message.strip()]
    parts += [f"source: {case.source}"] if case.source else []
    parts += [f"reproduce: {command}"] if command else []
    text = "; ".join(part for part in parts if part)
    return f"{where}: {text}" if where else text


def cells_of(case: CaseResult) -> tuple[str, ...]:
    """A case's cells in a report; a case outside the matrix gets a placeholder."""
    return case.cells or (NO_CELL,)


def write_junit(
    cases: Iterable[CaseResult], directory: Path, header: RunHeader | None = None
) -> list[Path]:
    """Writes ``junit-<cell>.xml`` for every cell; past 5,000 results also ``junit-<cell>-2.xml`` ….

    Files appear complete or not at all; parts left by an earlier, larger run are removed.
    Returns the files, sorted by cell and part.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    return write_rendered(cases, directory, Rendering(header))


def write_rendered(
    cases: Iterable[CaseResult], directory: Path, rendering: Rendering
) -> list[Path]:
    """:func:`write_junit` with what was rendered before."""
    by_cell: dict[str, list[tuple[CaseResult, str]]] = defaultdict(list)
    # Cases are in the same order in every cell: their class names begin with the cell.
    for case in sorted(cases, key=lambda case: _order(case, NO_CELL)):
        for cell in cells_of(case):
            by_cell[_safe(cell)].append((case, cell))
    paths: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stem, results in sorted(by_cell.items()):
            names = [f"junit-{other}.xml" for other in by_cell if other != stem]
            paths += _write_parts(directory, _part_names(stem, names), results, rendering)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write JUnit files to {directory}: {error.strerror or error}; "
            "name a writable folder with free space"
        ) from error
    return paths


def write_merged(cases: Iterable[CaseResult], directory: Path, stem: str = "report") -> list[Path]:
    """Writes the cases of all cells into ``<stem>.xml``; past 5,000 also ``<stem>.2.xml`` ….

    Sorted by class name, so by cell first. Parts left by an earlier, larger report are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    results = [(case, cell) for case in cases for cell in cells_of(case)]
    results.sort(key=lambda result: _order(*result))
    return _write_parts(directory, _merged_names(stem), results, Rendering(None))


def _merged_names(stem: str) -> Iterator[str]:
    yield f"{stem}.xml"
    yield from (f"{stem}.{number}.xml" for number in count(2))


def _write_parts(
    directory: Path,
    names: Iterator[str],
    results: list[tuple[CaseResult, str]],
    rendering: Rendering,
) -> list[Path]:
    paths = []
    for start in range(0, len(results), RESULTS_PER_FILE):
        path = directory / next(names)
        _write_whole(path, _document(results[start : start + RESULTS_PER_FILE], rendering))
        paths.append(path)
    for name in names:
        if not (directory / name).exists():
            break
        (directory / name).unlink()
    return paths


def _part_names(stem: str, taken: Sequence[str]) -> Iterator[str]:
    """The files of one cell, never those of a cell whose name it begins with."""
    yield f"junit-{stem}.xml"
    number = 2
    while True:
        name = f"junit-{stem}-{number}.xml"
        if name not in taken:
            yield name
        number += 1


def _order(case: CaseResult, cell: str) -> tuple[str, ...]:
    settled = (case.outcome.value, case.edition, str(case.simulated))
    return classname(case, cell), visible(case.name), *settled


def _write_whole(path: Path, text: str) -> None:
    # Not a tempfile: with mode 0600, CI could not collect the report.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _document(results: list[tuple[CaseResult, str]], rendering: Rendering) -> str:
    """A whole file: a suite for each subject and suite of cases, and what they come to."""
    document = JUnitXml()  # type: ignore[no-untyped-call] # junitparser annotates only a part
    inside: list[str] = []
    seconds = 0.0
    for _, group in groupby(results, key=lambda result: classname(*result)):
        members = list(group)
        suite = _suite(*members[0], rendering.header)
        seconds += _count(suite, [case for case, _ in members])
        inside += [_opened(suite), *(rendering.text(*member) for member in members)]
        inside.append("</testsuite>\n")
    _count(document, [case for case, _ in results])
    document.time = round(seconds, 3)
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n{_opened(document)}'
    return "".join([start, *inside, "</testsuites>\n"])


def _count(owner: JUnitXml | TestSuite, cases: Sequence[CaseResult]) -> float:
    """Sets the statistics of what holds these cases; returns their seconds."""
    ended = Counter(case.outcome for case in cases)
    owner.tests = len(cases)
    owner.failures, owner.errors = ended[Outcome.FAILED], ended[Outcome.ERRORED]
    owner.skipped = ended[Outcome.UNSUPPORTED] + ended[Outcome.WAIVED]
    seconds = round(sum(round(case.seconds, 6) for case in cases), 3)
    owner.time = seconds
    return seconds


def _opened(owner: JUnitXml | TestSuite) -> str:
    """The XML of what holds cases, up to where they go."""
    text = _text(owner)
    if text.endswith("/>"):
        return f"{text[:-2].rstrip()}>\n"
    return f"{text.rpartition('</')[0]}\n"


def _text(element: JUnitXml | TestSuite | TestCase) -> str:
    xml: bytes = element.tostring()  # type: ignore[no-untyped-call] # junitparser annotates a part
    return xml.decode()


class Rendering:
    """The XML of cases: made once for each, whatever the number of cells that share it."""

    def __init__(self, header: RunHeader | None) -> None:
        self.header = header
        # The case itself is kept so that its id stays its own.
        self._kept: dict[int, tuple[CaseResult, list[str] | None]] = {}

    def text(self, case: CaseResult, cell: str) -> str:
        """A case's element in one cell's file."""
        found = self._kept.get(id(case))
        if found is None:
            found = self._kept[id(case)] = case, self._around_the_cell(case)
        around = found[1]
        if around is None or len(cell) > len(ANY_CELL) or not _PLAIN.fullmatch(cell):
            return self._element(case, cell)
        return cell.join(around)

    def _around_the_cell(self, case: CaseResult) -> list[str] | None:
        """The parts of a case's element between which a cell's name goes; None: it is not known.

        Where text is cut, it depends on the name's length what of it is left.
        """
        if ANY_CELL in repr(case):
            return None
        text = self._element(case, ANY_CELL)
        return None if CUT in text else text.split(ANY_CELL)

    def _element(self, case: CaseResult, cell: str) -> str:
        return f"{_text(_testcase(case, cell, self.header))}\n"


def _suite(case: CaseResult, cell: str, header: RunHeader | None) -> TestSuite:
    label = subject_label(case.subject, case.subject_version)
    suite = TestSuite(visible(f"{cell}.{label}.{case.suite}"))  # type: ignore[no-untyped-call] # as above
    if header is not None:
        notes = (s.note for s in header.subjects if label == subject_label(s.name, s.version))
        suite.timestamp = visible(header.started)
        _add_properties(
            suite,
            {
                "suite_version": header.suite_version,
                "command_line": header.command_line,
                "python": header.python,
                "host": header.host.platform,
                "cpus": str(header.host.cpus),
                "seed": "" if header.seed is None else str(header.seed),
                "sweep": "" if header.sweep is None else str(header.sweep),
                "note": next(notes, ""),
            },
        )
    return suite


def _testcase(case: CaseResult, cell: str, header: RunHeader | None) -> TestCase:
    result = TestCase(visible(case.name), classname(case, cell), round(case.seconds, 6))
    seed = case.seed if case.seed is not None or header is None else header.seed
    _add_properties(
        result,
        {
            "requirement": case.requirement,
            "source": case.source,
            "subject": case.subject,
            "subject_version": case.subject_version,
            "edition": case.edition,
            "cell": cell,
            "target": case.target,
            "platform": case.platform,
            "simulated": str(case.simulated).lower(),
            "seed": "" if seed is None else str(seed),
            "waiver": case.waiver,
            "proviso": case.message if case.outcome is Outcome.PASSED else "",
            "backend": case.backend,
            "gpu": case.gpu,
            **{
                f"counts.{name}": str(n)
                for name, n in sorted(case.counts.items())
                if not name.startswith(LINE)
            },
            **{f"measures.{name}": repr(n) for name, n in sorted(case.measures.items())},
        },
    )
    if (ending := _ending(case, cell)) is not None:
        ending.text = _body(case, cell)
        result.append(ending)  # type: ignore[no-untyped-call] # junitparser annotates only a part
    return result


def _ending(case: CaseResult, cell: str) -> Failure | Error | Skipped | None:
    if case.outcome is Outcome.PASSED:
        return None
    if case.outcome is Outcome.UNSUPPORTED:
        return Skipped(_attribute(case.message or "no reason given"), "unsupported")
    if case.outcome is Outcome.WAIVED:
        return Skipped(_attribute(f"waived {case.waiver}: {case.message}"), "waived")
    kind = Failure if case.outcome is Outcome.FAILED else Error
    type_ = "infrastructure" if kind is Error else case.requirement or "failed"
    return kind(_attribute(failure_message(case, cell)), visible(type_))


def _attribute(text: str) -> str:
    return clip(visible(text), MESSAGE_LIMIT)


def _body(case: CaseResult, cell: str) -> str:
    command = reproduce_line(case, cell)
    parts = [
        failure_message(case, cell, reproduce=False),
        f"reproduce: {command}" if command else "",
        case.detail,
    ]
    return clip(visible("\n\n".join(part for part in parts if part)), BODY_LIMIT)


def _add_properties(owner: TestSuite | TestCase, values: dict[str, str]) -> None:
    """Adds properties by hand: junitparser has no method for those of a case."""
    properties = Properties()  # type: ignore[no-untyped-call] # junitparser annotates only a part
    for name, value in values.items():
        if value:
            properties.add_property(Property(visible(name), clip(visible(value), MESSAGE_LIMIT)))
    owner.append(properties)  # type: ignore[no-untyped-call] # as above


def classname(case: CaseResult, cell: str) -> str:
    """``cell.subject-version.suite``; dashboards make a tree from the dots.

    On AMD GPUs the cell is ``cell+gpu``, so that its history stays separate.
    """
    return _classname(cell, case.gpu, case.subject, case.subject_version, case.suite)


@cache
def _classname(cell: str, gpu: str, subject: str, version: str, suite: str) -> str:
    label = subject_label(subject, version).replace("==", "-")
    return ".".join(map(_safe, ("+".join([cell, *gpu.split()]), label, suite)))


def _safe(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_+-]", "_", part) or "_"
