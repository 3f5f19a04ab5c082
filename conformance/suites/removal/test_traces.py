"""Traces of the removed variable: in vLLM's registry, in its files, and in this repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from conformance.matrix.requests import REMOVED_VARIABLE
from conformance.matrix.stacks import checkout
from conformance.suites.case import (
    Case,
    Context,
    Nonconformance,
    SessionPool,
    Unsupported,
    cases_per_subject,
    in_one_line,
)
from conformance.suites.removal import SUITE
from conformance.suites.removal.scan import CI_SCRIPTS, REPOSITORY_PARTS, Occurrence, scan

REGISTRY, READING, FILES, SCRIPTS, DOCS, REPOSITORY = (
    "REM-001",
    "REM-002",
    "REM-003",
    "REM-006",
    "REM-007",
    "REM-008",
)


def cases(context: Context) -> Iterator[Case]:
    wanted = [REGISTRY, READING, FILES, SCRIPTS, DOCS, REPOSITORY]
    return cases_per_subject(context, SUITE.name, "traces", wanted)


def test_traces(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    if case.requirement in (REGISTRY, READING):
        return _variable(case, sessions)
    if case.requirement == FILES:
        return _files(case, sessions)
    if case.requirement == REPOSITORY:
        return _repository()
    return _source_tree(case, context)


def _variable(case: Case, sessions: SessionPool) -> dict[str, int]:
    state = sessions.session(case.subject, case.asked_on).variables([REMOVED_VARIABLE])
    variable = state[REMOVED_VARIABLE]
    if case.requirement == REGISTRY and variable["registered"]:
        raise Nonconformance(
            f"expected {REMOVED_VARIABLE} to be gone from vllm.envs.environment_variables, "
            "but it is registered there"
        )
    if case.requirement == READING and variable["value"] is not None:
        raise Nonconformance(
            f"expected vllm.envs.{REMOVED_VARIABLE} to raise AttributeError, but it is "
            f"{variable['value']}"
        )
    return {"compared": 1}


def _files(case: Case, sessions: SessionPool) -> dict[str, int]:
    root = sessions.session(case.subject, case.asked_on).info.root
    if root is None:
        raise Unsupported("the subject has no installed files of a vLLM")
    occurrences, read = scan(root, [root], REMOVED_VARIABLE)
    return _verdict(
        occurrences, read, "in any installed file", f"grep -rn {REMOVED_VARIABLE} {root.name}"
    )


def _source_tree(case: Case, context: Context) -> dict[str, int]:
    tree = context.subject(case.subject).source_tree()
    if tree is None:
        raise Unsupported("the subject has no source tree: neither a release nor a checkout")
    parts = CI_SCRIPTS if case.requirement == SCRIPTS else ("docs",)
    where = "in a CI script" if case.requirement == SCRIPTS else "in the docs"
    occurrences, read = scan(tree, [tree / part for part in parts], REMOVED_VARIABLE)
    if read == 0:
        raise Unsupported(f"the source tree has none of: {', '.join(parts)}")
    return _verdict(occurrences, read, where, f"grep -rn {REMOVED_VARIABLE} {' '.join(parts)}")


def _repository() -> dict[str, int]:
    root = checkout()
    if root is None:
        raise Unsupported("the suite was installed without its checkout")
    paths: list[Path] = [root / part for part in REPOSITORY_PARTS]
    occurrences, read = scan(root, paths, f"{REMOVED_VARIABLE}=")
    return _verdict(occurrences, read, "set by this repository", f"grep -rn {REMOVED_VARIABLE}= .")


def _verdict(occurrences: list[Occurrence], read: int, where: str, command: str) -> dict[str, int]:
    if occurrences:
        findings = [str(occurrence) for occurrence in occurrences]
        more = f" and {len(findings) - 10} more" if len(findings) > 10 else ""
        raise Nonconformance(
            f"expected no {REMOVED_VARIABLE} {where}, but {len(findings)} of them: "
            f"{in_one_line(findings[:10])}{more}",
            command,
            findings=findings,
        )
    return {"compared": read}
