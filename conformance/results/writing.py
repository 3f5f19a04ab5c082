"""Writes ``results.jsonl``: a header line, one line per case, and a footer that counts them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from conformance.errors import ExitCode, InfrastructureError
from conformance.results.records import (
    CaseResult,
    Outcome,
    RunHeader,
    exit_code_of,
    outcome_counts,
    tally,
    utc_now,
)


class ResultsWriter:
    """Writes ``results.jsonl`` and flushes each line, so that a killed run leaves its cases.

    As a context manager it writes the footer only if the block ends without an exception: a missing
    footer tells readers that the run was interrupted.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self._counts = tally((), header.subjects)
        self._stream: TextIO | None = None

    def __enter__(self) -> ResultsWriter:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (self.close if kind is None else self.abandon)()

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the cases written so far."""
        return exit_code_of(self._counts)

    def open(self) -> None:
        """Starts the file with the header line; overwrites an older one."""
        self._guarded(lambda: self.path.parent.mkdir(parents=True, exist_ok=True))
        self._stream = self._guarded(lambda: self.path.open("w", encoding="ascii", newline="\n"))
        self._line("header", asdict(self.header))

    def write(self, case: CaseResult) -> None:
        """Appends one case, which is in the file when this returns."""
        self._line("case", case.as_json())
        for subject, outcomes in tally([case]).items():
            self._counts.setdefault(subject, Counter()).update(outcomes)

    def close(self) -> None:
        """Writes the footer and closes the file: the run is complete."""
        outcomes = sum(self._counts.values(), Counter[Outcome]())
        footer = {
            "cases": outcomes.total(),
            "outcomes": outcome_counts(outcomes),
            "exit": int(self.exit_code),
            "finished": utc_now(),
        }
        try:
            self._line("footer", footer)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes the file without a footer: the run was interrupted."""
        if self._stream is not None:
            self._guarded(self._stream.close)
            self._stream = None

    def _line(self, kind: str, payload: dict[str, Any]) -> None:
        if (stream := self._stream) is None:
            raise RuntimeError(f"{self.path} is not open: write between open() and close()")
        text = json.dumps({"kind": kind, **payload}, sort_keys=True, allow_nan=False)
        self._guarded(lambda: print(text, file=stream, flush=True))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise InfrastructureError(
                f"cannot write results to {self.path}: {error.strerror or error}; "
                "give a folder that can be written and has space left"
            ) from error
