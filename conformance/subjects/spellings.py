"""How each spelling of ``--subject`` becomes a subject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conformance.errors import UsageError
from conformance.subjects.base import Options, Subject
from conformance.subjects.reference import ReferenceSubject
from conformance.subjects.vllm.builds import managed, other_interpreter, own_interpreter
from conformance.subjects.workers import WorkerSubject

SPELLINGS = (
    "'reference' (this suite's own selector), 'vllm==X.Y.Z' (a release, fetched once), 'vllm' "
    "(installed beside the suite), PATH/TO/python (another interpreter's vLLM), or "
    "'worker:COMMAND' (any program that speaks the worker protocol)"
)


def parse_subject(
    spec: str, options: Options, progress: Callable[[str], None] = lambda _text: None
) -> Subject:
    """Makes a subject from its spelling; fetches a release that is not there yet.

    Raises:
        UsageError: the spelling is none of those known.
        InfrastructureError: the subject cannot be had.
    """
    if spec == "reference":
        return ReferenceSubject(options.edition)
    if spec == "vllm":
        return own_interpreter(options)
    if spec.startswith("vllm=="):
        return managed(spec.removeprefix("vllm=="), options, progress)
    if spec.startswith("worker:"):
        return WorkerSubject.from_command(spec, options)
    if "/" in spec:
        return other_interpreter(Path(spec), options)
    raise UsageError(f"unknown subject {spec!r}. A subject is {SPELLINGS}.")
