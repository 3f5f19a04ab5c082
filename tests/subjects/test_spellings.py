"""What each spelling of a subject means."""

from __future__ import annotations

import sys

import pytest

from conformance.errors import UsageError
from conformance.subjects.base import Options
from conformance.subjects.reference import ReferenceSubject
from conformance.subjects.spellings import SubjectKind, is_installed, kind_of, parse_subject
from conformance.subjects.workers import WorkerSubject

REFERENCE, VLLM, PROGRAM = SubjectKind.REFERENCE, SubjectKind.VLLM, SubjectKind.PROGRAM


@pytest.mark.parametrize(
    ("spec", "kind", "installed"),
    [
        ("reference", REFERENCE, False),
        ("vllm", VLLM, True),
        ("vllm==0.19.0", VLLM, False),
        ("/opt/venv/bin/python", VLLM, True),
        ("worker:python my_selector.py", PROGRAM, True),
        ("worker:bin/selector", PROGRAM, True),
    ],
)
def test_the_kind_of_a_subject(spec: str, kind: SubjectKind, installed: bool) -> None:
    assert kind_of(spec) is kind
    assert is_installed(spec) is installed


@pytest.mark.parametrize("spec", ["vllm=0.19", "vlm", "", "Reference"])
def test_a_spelling_that_means_nothing(spec: str) -> None:
    with pytest.raises(UsageError, match="A subject is 'reference'"):
        kind_of(spec)
    with pytest.raises(UsageError, match="A subject is 'reference'"):
        parse_subject(spec, Options("0.19"))


def test_each_kind_becomes_its_subject() -> None:
    assert isinstance(parse_subject("reference", Options("0.19")), ReferenceSubject)
    program = parse_subject(f"worker:{sys.executable} -c pass", Options("0.19"))
    assert isinstance(program, WorkerSubject)
    assert program.command == [sys.executable, "-c", "pass"]
