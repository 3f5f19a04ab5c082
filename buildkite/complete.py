"""Whether every job of the pipeline left a whole record: nothing is silently missing.

    python -m buildkite.complete FOLDER

``FOLDER`` holds the artifacts of all jobs: ``results/<step key>/<part>/results.jsonl``.
``CONFORMANCE_EXPECTED`` says which steps and parts there were; the pipeline sets it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from conformance.errors import ExitCode
from conformance.results import RunHeader, read_results
from conformance.shards import missing_shards

EXPECTED = "CONFORMANCE_EXPECTED"


def problems(folder: Path, expected: str) -> Iterator[str]:
    """What is missing or broken, a sentence each."""
    order = json.loads(expected)
    headers: dict[str, list[RunHeader]] = {}
    for step in order["steps"]:
        for number in range(1, order["shards"] + 1):
            path = folder / step / str(number) / "results.jsonl"
            if not path.is_file():
                yield f"{step}: part {number} of {order['shards']} left no results"
                continue
            run = read_results(path)
            yield from (f"{step}, part {number}: {problem}" for problem in run.problems)
            if run.header is not None:
                headers.setdefault(step, []).append(run.header)
    for step, of_step in headers.items():
        yield from (f"{step}: {sentence}" for sentence in missing_shards(of_step))


def main(folder: str) -> int:
    """Prints every problem; 75 if there is one."""
    found = list(problems(Path(folder), os.environ[EXPECTED]))
    for sentence in found:
        sys.stderr.write(f"incomplete: {sentence}\n")
    return int(ExitCode.INFRASTRUCTURE if found else ExitCode.CONFORMANT)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
