"""What a case of the suite ends as, and ``results.jsonl``: the stable record of a run.

A results file is a header line, one line per case, and a footer line that counts them. A file
without its footer was cut short, and every reader says so.
"""

from conformance.results.reading import PROBLEM_LIMIT, read_results
from conformance.results.records import (
    SCHEMA,
    CaseResult,
    Host,
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
    "PROBLEM_LIMIT",
    "SCHEMA",
    "CaseResult",
    "Host",
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
