"""How a release's own tests ended, as cases of a suite called ``upstream``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from conformance.requirements.edition_choice import edition_of_release
from conformance.results import CaseResult, Outcome
from conformance.results.records import Identity
from conformance.suites.upstream.recorded import Recorded
from conformance.suites.upstream.running import Order, Ran
from conformance.suites.upstream.table import NO_DEVICE, Finding, Tables

SUITE = "upstream"
# How a case without a finding counts.
OUTCOMES = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "violated": Outcome.FAILED,
    "too-slow": Outcome.UNSUPPORTED,
    "unsupported": Outcome.UNSUPPORTED,
    "skipped": Outcome.UNSUPPORTED,
    "errored": Outcome.ERRORED,
}
# What differs from process to process.
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")


def results(
    ran: Iterable[Ran], tables: Tables, subject: str, release: str, order: Order
) -> Iterator[CaseResult]:
    """A case for each test; and one for each finding whose case passes now."""
    every: list[Recorded] = []
    first: Ran | None = None
    for each in ran:
        first = first or each
        every += each.cases
        for recorded in each.cases:
            yield _result(each, recorded, tables, subject, release, order)
    if first is None:
        return
    for finding in tables.stale(release, order.device, every):
        about = Recorded(f"finding {finding.id}", "failed", _stale(finding))
        case = _result(first, about, Tables((), ()), subject, release, order)
        yield replace(case, source=finding.source, reproduce="")


def _stale(finding: Finding) -> str:
    return (
        f"{finding.file}::{finding.cases} passes, and findings.toml explains by {finding.id} why "
        "it does not: take the row out"
    )


def _result(
    ran: Ran, case: Recorded, tables: Tables, subject: str, release: str, order: Order
) -> CaseResult:
    message = _ADDRESS.sub("0x…", case.message)
    plain = CaseResult(
        suite=SUITE,
        name=case.case if not order.device else f"{case.case} on {order.device}",
        outcome=OUTCOMES[case.ended],
        cells=(),
        subject=subject,
        subject_version=release,
        edition=edition_of_release(release),
        requirement="",
        source=f"https://github.com/vllm-project/vllm/blob/v{release}/{case.file}",
        target=order.target,
        platform=f"{ran.platform} device {order.device or NO_DEVICE}",
        simulated=True,
        seed=order.seed,
        message=message if case.ended == "passed" else f"{case.ended}: {message}",
        detail=case.detail,
        reproduce=_reproduce(ran, case, subject, order),
        seconds=case.seconds,
        counts={case.ended: 1},
        measures={},
    )
    if OUTCOMES[case.ended] is not Outcome.FAILED:
        return plain
    texts = tuple(_ADDRESS.sub("0x…", text) for text in case.found)
    plain = replace(plain, identities=(_identity(case),) * len(texts), findings=texts)
    known = tables.explanations(release, order.device, case)
    if not known:
        return plain
    whys = (f"{each.id}: {each.finding} ({each.source})" for each in known)
    explained = "; ".join([plain.message, *whys])
    if all(each.fault == "harness" for each in known):
        return replace(plain, outcome=Outcome.UNSUPPORTED, message=explained)
    waiver = " ".join(each.id for each in known)
    return replace(plain, outcome=Outcome.WAIVED, waiver=waiver, message=explained)


def _identity(case: Recorded) -> Identity:
    kind = "raised" if case.ended == "failed" else "violation"
    return Identity(kind, case.kernels)


def _reproduce(ran: Ran, case: Recorded, subject: str, order: Order) -> str:
    words = ["rocm-conformance", "simulate", "--gpu", order.target]
    words += ["--aiter"] if ran.row.aiter else []
    words += ["--flash-attn"] if ran.row.flash_attn else []
    words += ["--subject", subject]
    words += ["--device", order.device] if order.device else []
    return shlex.join([*words, "--", "pytest", case.case])
