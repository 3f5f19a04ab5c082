"""Workers that run under a command of the user's."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.runners import preparation
from conformance.subjects.base import Options
from conformance.subjects.workers import WorkerSubject
from conformance.suites.parity.shown_gpu import shown_gpu

# Says how it was started, in its version.
WORKER = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = {"subject": "s", "version": os.environ.get("EMULATED", "bare"), "simulated": False}
    given = answer if asked["op"] == "start" else {}
    print(json.dumps({"id": asked["id"], "ok": given}), flush=True)
"""
# A stand-in for an emulator: shows the process that it runs something, and keeps a record.
PREFIX = """
import os, sys
open(sys.argv[1], "a").write("started ")
os.environ["EMULATED"] = sys.argv[2]
os.execvp(sys.argv[4], sys.argv[4:])
"""


@pytest.fixture
def wrap(tmp_path: Path) -> str:
    emulator = tmp_path / "emulator.py"
    emulator.write_text(PREFIX, encoding="utf-8")
    record = tmp_path / "it's a record"
    return shlex.join([sys.executable, str(emulator), str(record), "MI300X", "--"])


@pytest.fixture
def spec(tmp_path: Path) -> str:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    return f"worker:{shlex.join([sys.executable, str(worker)])}"


def version(spec: str, wrap: str) -> str:
    subject = WorkerSubject.from_command(spec, Options("0.19", wrap=wrap))
    try:
        return subject.info().version
    finally:
        subject.close()


def test_a_worker_runs_under_the_command(tmp_path: Path, spec: str, wrap: str) -> None:
    assert version(spec, "") == "bare"
    assert version(spec, wrap) == "MI300X"
    assert (tmp_path / "it's a record").read_text(encoding="utf-8") == "started "


def test_results_say_so(spec: str, wrap: str) -> None:
    said: list[str] = []
    config = RunConfig(("reference", spec), ("*",), edition="0.19", wrap=wrap)
    settled = preparation.settle_all(config, said.append)
    for subject in config.subjects:
        assert f"its workers ran under: {wrap}" in settled.notes[subject]
    assert any(wrap in text for text in said)
    assert RunConfig.loads(settled.dumps()).options.wrap == wrap


def test_the_target_is_the_one_that_was_named() -> None:
    config = RunConfig(("vllm",), ("*",), device="gpu", wrap="emulator", targets=("gfx950",))
    assert shown_gpu(config) == "gfx950"


def test_words_that_are_not_quoted_rightly() -> None:
    with pytest.raises(UsageError, match='--wrap "it\'s": No closing quotation'):
        WorkerSubject.from_command("worker:true", Options("0.19", wrap="it's"))
