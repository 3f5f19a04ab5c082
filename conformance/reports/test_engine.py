"""The results as Buildkite Test Engine imports them: one result a case and cell, with tags.

JUnit imports have tags of a whole upload only; here every result has its own, so that Test Engine
can group by target, cell, backend and suite. The results of each CI job go into files of their own:
a job's results are sent once, whatever is retried after it.
https://buildkite.com/docs/pipelines/configure/tests/test-collection/importing-json
https://buildkite.com/docs/pipelines/configure/tests/test-suites/tags
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from conformance.reports.junit_writer import (
    RESULTS_PER_FILE,
    cells_of,
    classname,
    clip,
    failure_message,
    reproduce_line,
    visible,
)
from conformance.reports.merge import Entry
from conformance.results import CaseResult, Outcome

NO_JOB = "no-job"
TAG_BYTES = 127
REASON_BYTES = 1024
DETAIL_BYTES = 16 * 1024
_RESULTS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.WAIVED: "skipped",
    Outcome.UNSUPPORTED: "skipped",
    Outcome.ERRORED: "unknown",  # no verdict is neither
}


def write_test_engine(entries: Iterable[Entry], folder: Path) -> list[Path]:
    """Writes ``<job id>.1.json``, ``<job id>.2.json`` …, 5,000 results a file; returns the files.

    Files of an earlier report are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    jobs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        job = re.sub(r"[^A-Za-z0-9-]", "_", entry.job.id if entry.job else "") or NO_JOB
        jobs[job] += (_result(entry.case, cell) for cell in cells_of(entry.case))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    paths = []
    for job, results in sorted(jobs.items()):
        for number, start in enumerate(range(0, len(results), RESULTS_PER_FILE), start=1):
            path = folder / f"{job}.{number}.json"
            text = json.dumps(results[start : start + RESULTS_PER_FILE], separators=(",", ":"))
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths


def _result(case: CaseResult, cell: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "scope": classname(case, cell),
        "name": visible(case.name),
        "result": _RESULTS[case.outcome],
        "history": {"start_at": 0.0, "end_at": case.seconds, "duration": case.seconds},
        "tags": dict(_tags(case, cell)),
    }
    if case.outcome is not Outcome.PASSED:
        message = failure_message(case, cell, reproduce=False)
        detail = "\n\n".join(filter(None, [message, reproduce_line(case, cell), case.detail]))
        lines = clip(visible(detail), DETAIL_BYTES).split("\n")
        result["failure_reason"] = clip(visible(message), REASON_BYTES)
        result["failure_expanded"] = [{"expanded": lines, "backtrace": []}]
    return result


def _tags(case: CaseResult, cell: str) -> Iterator[tuple[str, str]]:
    """At most ten tags, none of them blank."""
    values = {
        "target": case.target,
        "cell": cell,
        "backend": case.backend,
        "suite": case.suite,
        "subject": case.subject,
        "edition": case.edition,
        "requirement": case.requirement,
        "outcome": case.outcome.value,
        "simulated": str(case.simulated).lower(),
        "gpu": case.gpu,
    }
    for key, value in values.items():
        text = visible(value).strip().encode()[:TAG_BYTES].decode(errors="ignore").strip()
        if text:
            yield key, text
