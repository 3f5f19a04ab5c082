"""Parses the spellings of ``--subject``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path

from conformance.errors import UsageError
from conformance.subjects.aiter import (
    OTHER_PREFIX,
    PREFIX,
    aiter_in,
    aiter_release,
    is_aiter_folder,
    refuse_other,
)
from conformance.subjects.base import Options, Subject
from conformance.subjects.reference import ReferenceSubject
from conformance.subjects.vllm.builds import (
    managed,
    other_interpreter,
    own_interpreter,
    unbuilt,
)
from conformance.subjects.workers import WorkerSubject

SPELLINGS = (
    "'reference' (this suite's own selector), 'vllm==X.Y.Z' (a release, fetched once), 'vllm' "
    "(installed beside the suite), PATH/TO/python (another interpreter's vLLM), "
    "PATH/TO/checkout (vLLM's source tree, unbuilt), 'amd-aiter==X' (AMD's aiter, fetched once) or "
    "PATH/TO/aiter (a folder with it), or 'worker:COMMAND' (any program that speaks the worker "
    "protocol)"
)


class SubjectKind(Enum):
    """What sort of build a subject is."""

    REFERENCE = "the suite's own selector and kernels"
    VLLM = "a vLLM or an aiter, of any release and in any Python"
    PROGRAM = "a program that speaks the worker protocol: it selects, and has no kernels"


def kind_of(spec: str) -> SubjectKind:
    """What sort of build a spelling means.

    Raises:
        UsageError: the spelling is unknown.
    """
    if spec == "reference":
        return SubjectKind.REFERENCE
    if spec.startswith("worker:"):
        return SubjectKind.PROGRAM
    if spec == "vllm" or spec.startswith(("vllm==", PREFIX)) or "/" in spec:
        return SubjectKind.VLLM
    if spec == "aiter" or spec.startswith(OTHER_PREFIX):
        refuse_other(spec)
    raise UsageError(f"unknown subject {spec!r}. A subject is {SPELLINGS}.")


def is_installed(spec: str) -> bool:
    """Whether the subject is a build that some Python has, not one that the suite brings along."""
    fetched = spec.startswith(("vllm==", PREFIX))
    return kind_of(spec) is not SubjectKind.REFERENCE and not fetched


def parse_subject(
    spec: str, options: Options, progress: Callable[[str], None] = lambda _text: None
) -> Subject:
    """Makes a subject from its spelling; fetches a release if necessary.

    Raises:
        UsageError: the spelling is unknown.
        InfrastructureError: the subject is not available.
    """
    kind = kind_of(spec)
    if kind is SubjectKind.REFERENCE:
        return ReferenceSubject(options.edition_or_default)
    if kind is SubjectKind.PROGRAM:
        return WorkerSubject.from_command(spec, options)
    if spec == "vllm":
        return own_interpreter(options)
    if spec.startswith("vllm=="):
        return managed(spec.removeprefix("vllm=="), options, progress)
    if spec.startswith(PREFIX):
        return aiter_release(spec.removeprefix(PREFIX), options, progress)
    return _at(Path(spec), options, progress)


def _at(path: Path, options: Options, progress: Callable[[str], None]) -> Subject:
    """A folder with sources or an aiter, or else a Python."""
    if not path.is_dir():
        return other_interpreter(path, options)
    return aiter_in(path, options) if is_aiter_folder(path) else unbuilt(path, options, progress)
