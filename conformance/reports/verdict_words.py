"""What failed, in words: titles of requirements by the change that introduced them, ids last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from conformance.reports.junit_reader import is_foreign
from conformance.reports.safe_text import plain
from conformance.reports.summary import Finding, SubjectSummary, is_test

KINDS = {"failed": "", "waivers": "Waivers to settle", "errored": "No verdict on"}


@dataclass(frozen=True)
class Failure:
    """A requirement that failed, a waiver to settle, or a reason of errors.

    ``id`` is empty where ``words`` say all there is; ``cases`` counts the cases behind it.
    """

    words: str
    id: str
    cases: int
    contested: bool


@dataclass(frozen=True)
class Cause:
    """Failures with one cause; ``address`` is the change that introduced what they break."""

    title: str
    address: str
    failures: tuple[Failure, ...]


def headline(subject: SubjectSummary) -> str:
    """The verdict's reason in one sentence, without ids: ``causes`` has those."""
    reason = subject.sentence.partition(f": {subject.label} ")[2]
    if is_foreign(subject.label):
        return reason
    failed, waivers = subject.findings["failed"], len(subject.findings["waivers"])
    if not failed and not waivers:
        return reason
    tests = sum(map(is_test, failed))
    counted = [
        (len(failed) - tests, "requirement", "failed"),
        (tests, "test", "failed"),
        (waivers, "waiver", "to settle"),
        (subject.outcomes["errored"], "case", "errored"),
    ]
    parts = [f"{n:,} {noun}{'s' * (n != 1)} {how}" for n, noun, how in counted if n]
    return f"does not meet edition {subject.edition}: {', '.join(parts)}"


def causes(subject: SubjectSummary) -> tuple[Cause, ...]:
    """What failed by its cause: a change first, where the requirement names one."""
    found = []
    for kind, title in KINDS.items():
        groups: dict[str, list[Finding]] = defaultdict(list)
        for finding in subject.findings[kind]:
            groups[finding.introduced_by if kind == "failed" else ""].append(finding)
        for address in sorted(groups, key=lambda text: (not text, text)):
            failures = tuple(_failure(kind, finding) for finding in groups[address])
            found.append(Cause(title, plain(address), failures))
    return tuple(found)


def _failure(kind: str, finding: Finding) -> Failure:
    key = plain(finding.key)
    contested = bool(finding.contested)
    if kind == "errored" or not finding.title:
        words = key if kind != "failed" else finding.first
        return Failure(_clipped(words), "", finding.cases, contested and kind == "failed")
    return Failure(finding.title, key, finding.cases, contested)


def _clipped(text: str) -> str:
    line = " ".join(plain(text).split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def change_name(address: str) -> str:
    """A change as people write it: vllm-project/vllm#36702; else its address."""
    parts = [part for part in urlsplit(address).path.split("/") if part]
    if len(parts) == 4 and parts[2] in ("pull", "issues"):
        return f"{parts[0]}/{parts[1]}#{parts[3]}"
    return address


def in_lines(causes_: Sequence[Cause], shown: int = 12) -> list[str]:
    """Lines of plain text, one a cause, for reports without markup."""
    lines = []
    for cause in causes_:
        items = [f"{f.words} ({f.id})" if f.id else f.words for f in cause.failures[:shown]]
        more = len(cause.failures) - shown
        items += [f"and {more:,} more"] if more > 0 else []
        intro = f"Introduced by {change_name(cause.address)}" if cause.address else cause.title
        lines.append(f"{intro}: {'; '.join(items)}" if intro else "; ".join(items))
    return lines
