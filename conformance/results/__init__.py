"""Outcomes of cases, and ``results.jsonl``: the stable record of a run.

A results file has a header line, a line for each case, and a footer line that counts them. A file
without a footer is incomplete, and every reader reports it.
"""

from conformance.results.reading import PROBLEM_LIMIT, read_results
from conformance.results.records import (
    KINDS,
    SCHEMA,
    SMALLEST,
    CaseResult,
    Host,
    Identity,
    JudgedSubject,
    Outcome,
    Run,
    RunHeader,
    Tally,
    exit_code,
    outcome_counts,
    subject_label,
    tally,
    verdict,
)
from conformance.results.writing import ResultsWriter

__all__ = [
    "KINDS",
    "PROBLEM_LIMIT",
    "SCHEMA",
    "SMALLEST",
    "CaseResult",
    "Host",
    "Identity",
    "JudgedSubject",
    "Outcome",
    "ResultsWriter",
    "Run",
    "RunHeader",
    "Tally",
    "exit_code",
    "outcome_counts",
    "read_results",
    "subject_label",
    "tally",
    "verdict",
]
