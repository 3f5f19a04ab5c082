"""What a release says of itself, held against its own files: variables, and KV-cache dtypes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from conformance.matrix.requests import Ask, PagedAttention, Request
from conformance.requirements.removed_variables import removed_variables
from conformance.suites.case import (
    Case,
    Context,
    Nonconformance,
    SessionPool,
    Unsupported,
    cases_per_platform,
    cases_per_subject,
    in_one_line,
    reproduce,
)
from conformance.suites.removal import SUITE
from conformance.suites.removal.variable_use import Package

STAYS_REMOVED, IS_READ, KV_DTYPES = "REM-010", "REM-011", "CAP-230"
REGISTRY = "envs.py"
_REGISTERED = re.compile(r"""^\s+["'](VLLM_ROCM_\w+)["']\s*:""", re.MULTILINE)
# The files with the dispatch of ROCM_ATTN's decode kernel: one up to 0.32, several from 0.33 on.
_HIP_SOURCES = "csrc/rocm/attention*.cu"
_BRANCH = re.compile(r'kv_cache_dtype\s*==\s*"(\w+)"')
# A decode that the custom kernel takes on every target which has one; a target of each rule.
BACKEND, HEAD_SIZE, BLOCK_SIZE = "ROCM_ATTN", 128, 16
ON_TARGETS = ("gfx942", "gfx1100")


def cases(context: Context) -> Iterator[Case]:
    yield from cases_per_subject(context, SUITE.name, "variables", [STAYS_REMOVED, IS_READ])
    asked: set[tuple[str, str]] = set()
    for case in cases_per_platform(context, SUITE.name, "KV dtypes", [KV_DTYPES]):
        key = (case.subject, case.platform.target)
        if case.platform.target in ON_TARGETS and key not in asked:
            asked.add(key)
            yield case


def test_claims(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    if case.requirement == STAYS_REMOVED:
        return _stays_removed(case, context, sessions)
    if case.requirement == IS_READ:
        return _is_read(case, context, sessions)
    return _kv_dtypes(case, context, sessions)


def _stays_removed(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    edition = context.edition(case.subject)
    gone = [name for name, one in removed_variables().items() if one.is_gone_in(edition)]
    session = sessions.session(case.subject, case.asked_on)
    states = session.variables(gone)
    root = session.info.root
    package = Package(root, REGISTRY) if root else None
    findings = []
    for name in gone:
        ways = ["registered"] if states[name]["registered"] else []
        ways += ["readable from vllm.envs"] if states[name]["value"] is not None else []
        if package and (mentions := list(package.mentions(name))):
            ways.append(f"named in {mentions[0]}")
        if ways:
            findings.append(
                f"{name}, gone since {removed_variables()[name].removed_in}, is {', '.join(ways)}"
            )
    if findings:
        raise Nonconformance(
            f"expected removed variables to stay removed, but {in_one_line(findings)}",
            findings=findings,
        )
    return {"compared": len(gone)}


def _is_read(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    session = sessions.session(case.subject, case.asked_on)
    root = session.info.root
    if root is None or not (root / REGISTRY).is_file():
        raise Unsupported("the subject has no installed files of a vLLM")
    written = _REGISTERED.findall((root / REGISTRY).read_text(encoding="utf-8"))
    states = session.variables(sorted(set(written)))
    registered = [name for name, state in states.items() if state["registered"]]
    compiled = _compiled_code(root, context.subject(case.subject).source_tree())
    if not compiled:
        raise Unsupported("neither compiled files nor their sources are there: they read some")
    package = Package(root, REGISTRY)
    findings = []
    for name in registered:
        mentions = package.unread(name)
        if mentions is not None and not any(name.encode() in code for code in compiled):
            places = ", ".join(map(str, mentions)) or "no code names it"
            findings.append(f"{name} is registered and nothing reads it ({places})")
    if findings:
        raise Nonconformance(
            f"expected each registered variable to be read, but {in_one_line(findings)}",
            findings=findings,
        )
    return {"compared": len(registered)}


def _compiled_code(root: Path, tree: Path | None) -> list[bytes]:
    """The build's libraries, and the sources of what is compiled."""
    sources = sorted((tree / "csrc").rglob("*")) if tree else []
    return [file.read_bytes() for file in (*root.rglob("*.so"), *sources) if file.is_file()]


def _kv_dtypes(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    takes = _branches(context.subject(case.subject).source_tree())
    session = sessions.session(case.subject, case.asked_on)
    known = context.asked_edition(case.subject).asked.kv_cache_dtypes
    claims = [
        Ask(Request(kv_cache_dtype=name, head_size=HEAD_SIZE, block_size=BLOCK_SIZE), BACKEND)
        for name in known
    ]
    accepted = [
        name
        for name, answer in zip(known, session.ask(claims), strict=True)
        if answer.selected == BACKEND  # no other, to which it gave way
    ]
    decodes = [
        Ask(PagedAttention(kv_cache_dtype=name, head_size=HEAD_SIZE, block_size=BLOCK_SIZE))
        for name in accepted
    ]
    wrong = [
        (name, ask)
        for name, ask, answer in zip(accepted, decodes, session.ask(decodes), strict=True)
        if answer.selected == "custom" and name not in takes
    ]
    if wrong:
        findings = [
            f"{name} goes to the HIP kernel, which has no branch for it" for name, _ in wrong
        ]
        raise Nonconformance(
            f"expected the HIP kernel to take each dtype that it is chosen for ({', '.join(takes)} "
            f"are its branches), but {in_one_line(findings)}",
            reproduce(case, context.edition(case.subject), wrong[0][1]),
            findings=findings,
        )
    return {"compared": len(accepted)}


def _branches(tree: Path | None) -> list[str]:
    """The KV-cache dtypes that the dispatch of the HIP decode kernel has a branch for."""
    files = sorted(tree.glob(_HIP_SOURCES)) if tree else []
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    found = dict.fromkeys(name for text in texts for name in _BRANCH.findall(text))
    if not found:
        raise Unsupported(f"the subject has no source tree with {_HIP_SOURCES}")
    return list(found)
