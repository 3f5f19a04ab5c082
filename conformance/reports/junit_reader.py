"""Reads JUnit files back into cases: the suite's own completely, others as far as possible.

JUnit files come from other machines. Document types and entities are refused; of a truncated file,
the complete cases are kept; every problem is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from conformance.reports.junit_writer import NO_CELL, failure_message, visible
from conformance.results import PROBLEM_LIMIT, CaseResult, Outcome, Run, subject_label

# The subject of another program's tests where their suite has no name.
FOREIGN = "tests"
_PLACE = "\ue000"  # stands for the message while the surrounding text is parsed
_ENDINGS = {"failure": Outcome.FAILED, "error": Outcome.ERRORED, "skipped": Outcome.UNSUPPORTED}


def read_junit(path: Path, shown: str = "") -> Run:
    """Reads a JUnit file, however broken: keeps complete cases and reports every problem.

    Another program's tests get a subject of their own, named by their suite and the file; it is
    ``shown`` as that.
    """
    reading = _Reading(path, shown or path.name)
    try:
        for event, element in iterparse(str(path), events=("start", "end"), forbid_dtd=True):
            (reading.start if event == "start" else reading.end)(element)
    except DefusedXmlException as error:
        reading.problem(
            f"has a document type or entities ({type(error).__name__}), which can blow up a "
            "reader: refused there, and what follows is left out"
        )
    except (ParseError, ValueError, LookupError) as error:
        reading.problem(f"not XML from here on: {error}; what follows is left out")
    except OSError as error:
        reading.problem(f"cannot be read: {error.strerror or error}")
    return reading.result()


def is_foreign(subject: str) -> bool:
    """Whether a subject stands for another program's tests."""
    return subject.endswith(".xml") and " in " in subject


@dataclass
class _Suite:
    name: str
    tests: str
    found: int = 0


@dataclass
class _Reading:
    path: Path
    shown: str
    cases: list[CaseResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    suites: list[_Suite] = field(default_factory=list)
    root: str = ""
    unlisted: int = 0

    def start(self, element: Element) -> None:
        if not self.root:
            self.root = element.tag
            if self.root not in ("testsuites", "testsuite"):
                self.problem(f"not JUnit: its root is <{self.root[:80]}>, expected <testsuites>")
        if element.tag in ("testsuites", "testsuite"):
            self.suites.append(_Suite(element.get("name", ""), element.get("tests", "")))

    def end(self, element: Element) -> None:
        if element.tag == "testcase":
            self._take(element)
            element.clear()
        elif element.tag in ("testsuites", "testsuite"):
            suite = self.suites.pop()
            if suite.tests and suite.tests != str(suite.found):
                self.problem(
                    f"<{element.tag} {suite.name}> says {suite.tests[:20]} tests, "
                    f"{suite.found} could be read"
                )
            if self.suites:
                self.suites[-1].found += suite.found
            element.clear()

    def _take(self, element: Element) -> None:
        name = self.suites[-1].name if self.suites else ""
        try:
            self.cases.append(_case(element, name, self.shown))
        except ValueError as error:
            self.problem(f"case {element.get('name', '')!r:.200}: {error}; it is left out")
            return
        if self.suites:
            self.suites[-1].found += 1

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEM_LIMIT:
            self.problems.append(f"{self.path}: {text}")
        else:
            self.unlisted += 1

    def result(self) -> Run:
        if not self.cases and not self.problems:
            self.problem("holds no case: nothing ran")
        if self.unlisted:
            self.problems.append(f"{self.path}: {self.unlisted:,} more problems are not listed")
        return Run(None, tuple(self.cases), not self.problems, tuple(self.problems))


def _case(element: Element, suite_name: str, file: str) -> CaseResult:
    name, classname = element.get("name", ""), element.get("classname", "")
    if not name:
        raise ValueError("it has no name")
    values = dict(_properties(element))
    own = "cell" in values and "simulated" in values
    bare = _fields(values if own else {}, name)
    if not own:
        subject = f"{suite_name or FOREIGN} in {file}"
        bare |= {"suite": classname or FOREIGN, "cells": _cell_in(classname), "subject": subject}
    else:
        label = subject_label(values.get("subject", ""), values.get("subject_version", ""))
        bare["suite"] = suite_name.removeprefix(f"{values['cell']}.{label}.")
    outcome, child = _ending(element)
    case = CaseResult(outcome=outcome, seconds=_number(element.get("time", "0"), "time"), **bare)
    if child is None:
        return _changed(case, message=values.get("proviso", "") if own else "")
    return _with_texts(case, child)


def _properties(element: Element) -> Iterator[tuple[str, str]]:
    for entry in element.iterfind("properties/property"):
        yield entry.get("name", ""), entry.get("value") or entry.text or ""


def _fields(values: dict[str, str], name: str) -> dict[str, Any]:
    texts = ("subject", "subject_version", "edition", "requirement", "source", "target")
    seed = values.get("seed", "")
    return {
        "name": name,
        "cells": (cell,) if (cell := values.get("cell", "")) and cell != NO_CELL else (),
        **{key: values.get(key, "") for key in (*texts, "platform", "waiver", "backend", "gpu")},
        "simulated": values.get("simulated") == "true",
        "seed": int(seed) if seed else None,
        "counts": {key: int(value) for key, value in _below("counts.", values)},
        "measures": {key: _number(value, key) for key, value in _below("measures.", values)},
    }


def _below(prefix: str, values: dict[str, str]) -> list[tuple[str, str]]:
    return [(k.removeprefix(prefix), v) for k, v in values.items() if k.startswith(prefix)]


def _number(text: str, what: str) -> float:
    number = float(text.replace(",", ""))
    if not isfinite(number):
        raise ValueError(f"{what} is {text!r:.40}, expected a finite number")
    return number


def _cell_in(classname: str) -> tuple[str, ...]:
    first = classname.partition(".")[0]
    return (first,) if first.startswith("rocm") and "-" in first else ()


def _ending(element: Element) -> tuple[Outcome, Element | None]:
    """The worst of a case's outcomes, and its element."""
    found = [(list(_ENDINGS).index(child.tag), child) for child in element if child.tag in _ENDINGS]
    if not found:
        return Outcome.PASSED, None
    child = min(found, key=lambda pair: pair[0])[1]
    waived = child.tag == "skipped" and child.get("type") == "waived"
    return Outcome.WAIVED if waived else _ENDINGS[child.tag], child


def _with_texts(case: CaseResult, child: Element) -> CaseResult:
    """The case with message, reproduce line and detail, parsed from the body.

    A body that another program wrote becomes a message and a detail.
    """
    cell = case.cells[0] if case.cells else NO_CELL
    sentence = failure_message(_changed(case, message=_PLACE), cell, reproduce=False)
    before, after = visible(sentence).split(_PLACE, 1)
    body = child.text or ""
    bare = before + after.removeprefix("; ")  # a case without a message has no separator
    end = body.find(after, len(before)) if after else len(body.split("\n\n", 1)[0])
    if after and body.startswith(bare):
        text, rest = "", body[len(bare) :]
    elif body.startswith(before) and end >= 0:
        text, rest = body[len(before) : end], body[end + len(after) :]
    else:
        message = child.get("message", "") or body.split("\n", 1)[0]
        return _changed(case, message=message, detail=body)
    command, rest = "", rest.removeprefix("\n\n")
    if rest.startswith("reproduce: "):
        command, _, rest = rest.removeprefix("reproduce: ").partition("\n\n")
    return _changed(case, message=text, reproduce=command, detail=rest)


def _changed(case: CaseResult, **texts: str) -> CaseResult:
    return replace(case, **texts)  # type: ignore[arg-type] # mypy checks each against every field
