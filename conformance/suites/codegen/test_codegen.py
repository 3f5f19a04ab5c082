"""What the subject's Triton kernels compile to, for each target: no AMD GPU is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from conformance.codegen import Compiled, call_json, calls_for, findings
from conformance.errors import InfrastructureError
from conformance.requests import Platform
from conformance.subjects.worker.kernel_calls import Call
from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Case, Context, Found, Nonconformance, Unsupported
from conformance.targets import target as known_target

SUITE = "codegen"
TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
REQUIREMENTS = tuple(f"CGN-00{n}" for n in range(1, 8))
NO_CALL = "all"


@dataclass(frozen=True)
class CodegenCase(Case):
    """One requirement of one call's kernels on one target."""

    call: Call | None = None

    @property
    def name(self) -> str:
        call = self.call.name if self.call else NO_CALL
        return f"{self.requirement} {call} on {self.platform.target}"

    @property
    def group(self) -> str:
        # A process compiles for one target: Triton keeps state of it.
        return f"{self.subject} codegen on {self.platform.target}"


def cases(context: Context) -> Iterator[CodegenCase]:
    config = context.config
    for subject in config.subjects:
        for name in TARGETS:
            cells = tuple(
                dict.fromkeys(
                    c for p, of in context.platforms.items() if p.target == name for c in of
                )
            )
            if not cells:
                continue
            platform = Platform.make(name)
            made = CodegenCase(SUITE, "codegen", subject, "", platform, cells, platform)
            calls: list[Call | None] = [None]
            if subject != "reference":
                calls = list(calls_for(known_target(name)))
            for call in calls:
                for requirement in REQUIREMENTS:
                    if requirement in context.requirements:
                        yield replace(made, requirement=requirement, call=call)


class Compilations:
    """What each call compiled to, asked once; an aborted compiler costs its own call only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[tuple[str, Platform, Call], Compiled] = {}
        self._open: tuple[str, Platform] | None = None

    def of(self, subject: str, platform: Platform, call: Call) -> Compiled:
        key = (subject, platform, call)
        if key not in self._known:
            self._known[key] = self._compile(subject, platform, call)
        return self._known[key]

    def _compile(self, spec: str, platform: Platform, call: Call) -> Compiled:
        subject = self._context.subject(spec)
        if not isinstance(subject, WorkerSubject):
            raise Unsupported(f"{spec} has no kernels that the suite can compile")
        if self._open != (spec, platform):
            self._context.infos[spec] = subject.open(platform).info
            self._open = (spec, platform)
        try:
            answer = subject.call("compile", call=call_json(call))
        except InfrastructureError as error:
            self._open = None
            if "ended" not in str(error.args[0]) and "died" not in str(error.args[0]):
                raise
            return Compiled((), f"the compiler aborted its process: {error.args[0]}", error.stderr)
        return Compiled(tuple(answer["kernels"]), answer["failed"], answer["trace"])


@pytest.fixture(scope="session")
def compilations(context: Context) -> Compilations:
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    return Compilations(context)


def test_codegen(case: CodegenCase, compilations: Compilations) -> Found:
    if case.call is None:
        raise Unsupported("the reference kernels' calls are those of the parity suite's problems")
    target = known_target(case.platform.target)
    compiled = compilations.of(case.subject, case.platform, case.call)
    counts = {"kernels": len(compiled.kernels)}
    found = Found(counts, compiled.measures() if case.requirement == "CGN-001" else {})
    wrong = findings(case.requirement, compiled, target)
    if wrong:
        reproduce = f"rocm-conformance run --suite codegen --subject '{case.subject}'"
        raise Nonconformance("; ".join(wrong), reproduce, found, compiled.trace)
    if not compiled.kernels:
        raise Unsupported("nothing was compiled: see CGN-001")
    return found
