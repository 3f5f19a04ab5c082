"""Whether the feature table in vLLM's docs agrees with the backend classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.subjects.reference import edition_table
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
from conformance.suites.removal.docs_backend_table import PAGE, disagreements, read_table

SINKS, OTHERS = "DOC-001", "DOC-002"


def cases(context: Context) -> Iterator[Case]:
    """A case per backend, so that a known disagreement can be waived by itself."""
    for case in cases_per_subject(context, SUITE.name, "docs", [SINKS, OTHERS]):
        for backend in edition_table(context.edition(case.subject)).backends:
            yield replace(case, kind=f"docs {backend}")


def test_docs(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    backend = case.kind.removeprefix("docs ")
    tree = context.subject(case.subject).source_tree()
    page = tree / PAGE if tree else None
    if page is None or not page.is_file():
        raise Unsupported(f"the subject has no source tree with {PAGE}")
    rows = read_table(page.read_text(encoding="utf-8"))
    if backend not in rows:
        raise Unsupported(f"{PAGE} has no row for {backend}")
    session = sessions.session(case.subject, case.asked_on)
    says = session.describe([backend])[backend]
    differences = list(disagreements(rows[backend], dict(says), sinks=case.requirement == SINKS))
    if differences:
        raise Nonconformance(
            f"expected {PAGE} to agree with the class of {backend}, but {in_one_line(differences)}",
            f"grep -n {backend} {PAGE}",
            findings=differences,
        )
    return {"compared": 1}
