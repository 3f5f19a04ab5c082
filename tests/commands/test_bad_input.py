"""Bad input: each kind, with the exit code it ends with and what the message must say.

All of it in this process, because nothing here gets as far as a run.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conformance.cache import CACHE_VARIABLE
from conformance.cli import run_cli
from conformance.commands import run_checks
from conformance.reports.junit_so_far import JUnitSoFar
from conformance.results.folder import held

USAGE, NO_VERDICT = 2, 75
GPU = ("--gpu", "MI300X")
LLAMA = ("explain", "--model", "Llama-3.1-8B-Instruct", *GPU)
RUN = ("run", "--cell", "rocm72-*", "-n", "1")


class Bad(NamedTuple):
    """Arguments, the exit code, and parts of the message."""

    arguments: tuple[str, ...]
    code: int
    says: tuple[str, ...]


BAD = {
    # names
    "no such command": Bad(("judge",), USAGE, ("No such command", "judge")),
    "no such option": Bad((*RUN, "--verbos"), USAGE, ("No such option", "--verbos")),
    "no GPU named": Bad(("explain",), USAGE, ("--gpu MI300X",)),
    "select without a GPU": Bad(("select",), USAGE, ("--gpu MI300X",)),
    "another vendor's GPU": Bad(("explain", "--gpu", "H100"), USAGE, ("'H100'", "MI300X")),
    "a GPU misspelled": Bad(("explain", "--gpu", "MI300XX"), USAGE, ("Did you mean 'MI300X'",)),
    "a target misspelled": Bad(("select", "--target", "gfx924"), USAGE, ("'gfx942'",)),
    "diff of a GPU that is none": Bad(
        ("diff", "reference", "reference", "--gpu", "MI9"), USAGE, ("'MI9'",)
    ),
    "pipeline for a GPU without a queue": Bad(
        ("pipeline", "--gpu", "RX 9070 XT"), USAGE, ("gfx1201", "queue")
    ),
    "a model misspelled": Bad(
        ("explain", "--model", "Lama-3.1-8B", *GPU), USAGE, ("no preset", "Llama-3.1-8B")
    ),
    "a model's file missing": Bad(
        ("explain", "--model", "no/config.json", *GPU), USAGE, ("no/config.json", "cannot be read")
    ),
    "a backend misspelled": Bad(
        ("explain", *GPU, "--backend", "ROCM_ATN"), USAGE, ("Did you mean 'ROCM_ATTN'",)
    ),
    "a backend of another release": Bad(
        ("explain", *GPU, "--vllm", "0.21.0", "--backend", "TREE_ATTN"), USAGE, ("'TREE_ATTN'",)
    ),
    "a dtype misspelled": Bad((*LLAMA, "--kv-cache-dtype", "fp9"), USAGE, ("'fp9'", "fp8_e4m3")),
    "a KV dtype of a later release": Bad(
        (*LLAMA, "--vllm", "0.19.0", "--kv-cache-dtype", "nvfp4"),
        USAGE,
        ("vLLM 0.19 does not know it", "fp8_ds_mla"),
    ),
    "a release that is none": Bad((*LLAMA, "--vllm", "latest"), USAGE, ("'latest'", "0.33.0")),
    "since when": Bad((*LLAMA, "--since", "0.5"), USAGE, ("'0.5'", "0.18", "0.33")),
    "an edition that is none": Bad((*RUN, "--edition", "1.9"), USAGE, ("'1.9'", "0.33")),
    "a cell misspelled": Bad(("run", "--cell", "rocm27-*"), USAGE, ("rocm27",)),
    "a suite misspelled": Bad((*RUN, "--suite", "party"), USAGE, ("party", "parity")),
    "a tier misspelled": Bad((*RUN, "--problems", "quik"), USAGE, ("quik", "quick")),
    "a device misspelled": Bad((*RUN, "--device", "isa:gfx924"), USAGE, ("gfx924", "gfx942")),
    "a mode misspelled": Bad((*RUN, "--device", "isa:gfx942,fast"), USAGE, ("'fast'", "serial")),
    "a runner misspelled": Bad((*RUN, "--runner", "podman"), USAGE, ("podman", "docker")),
    "a format misspelled": Bad(("cells", "--format", "yaml"), USAGE, ("yaml", "markdown")),
    # numbers
    "time limit NaN": Bad((*RUN, "--timeout", "nan"), USAGE, ("--timeout", "nan", "such as 120")),
    "time limit endless": Bad((*RUN, "--timeout", "inf"), USAGE, ("--timeout", "inf")),
    "time limit zero": Bad((*RUN, "--timeout", "0"), USAGE, ("--timeout", "x>0")),
    "time limit negative": Bad((*RUN, "--timeout", "-3"), USAGE, ("--timeout", "x>0")),
    "explain's limit NaN": Bad(("explain", *GPU, "--timeout", "NaN"), USAGE, ("--timeout",)),
    "diff's limit NaN": Bad(
        ("diff", "reference", "reference", "--timeout", "nan"), USAGE, ("--timeout",)
    ),
    "a cell's limit NaN": Bad(
        (*RUN, "--runner", "docker", "--cell-timeout", "nan"), USAGE, ("--cell-timeout",)
    ),
    "processes zero": Bad(("run", "-n", "0"), USAGE, ("-n", "x>=1")),
    "sweep negative": Bad((*RUN, "--sweep", "-1"), USAGE, ("--sweep", "x>=0")),
    "diff's sweep zero": Bad(
        ("diff", "reference", "reference", "--sweep", "0"), USAGE, ("--sweep", "x>=1")
    ),
    "seed no number": Bad((*RUN, "--seed", "x"), USAGE, ("--seed", "integer")),
    "count zero": Bad(("bench", "--count", "0"), USAGE, ("--count", "x>=1")),
    "count negative": Bad(("prove-bound", "--count", "-1"), USAGE, ("--count", "x>=1")),
    "head size zero": Bad(("explain", *GPU, "--head-size", "0"), USAGE, ("--head-size", "x>=1")),
    "block size negative": Bad((*LLAMA, "--block-size", "-16"), USAGE, ("--block-size", "x>=1")),
    "GPUs zero": Bad((*LLAMA, "--tp", "0"), USAGE, ("--tensor-parallel-size", "x>=1")),
    "GPUs that do not divide": Bad((*LLAMA, "--tp", "5"), USAGE, ("32 query heads", "1, 2, 4")),
    "shard zero": Bad((*RUN, "--shard", "0/4"), USAGE, ("'0/4'", "I from 1 to N")),
    "shard past the end": Bad((*RUN, "--shard", "5/4"), USAGE, ("'5/4'",)),
    "shard no fraction": Bad((*RUN, "--shard", "half"), USAGE, ("'half'", "2/4")),
    "shards of a pipeline": Bad(("pipeline", "--shards", "0"), USAGE, ("--shards 0", "expected 1")),
    # subjects
    "subject misspelled": Bad((*RUN, "--subject", "vlm"), USAGE, ("'vlm'", "vllm==X.Y.Z")),
    "worker without words": Bad((*RUN, "--subject", "worker:"), USAGE, ("needs a command",)),
    "worker's quote open": Bad(
        (*RUN, "--subject", "worker:python 'x"), USAGE, ("No closing quotation", "as for a shell")
    ),
    "no file as a Python": Bad((*RUN, "--subject", "/no/python"), USAGE, ("/no/python",)),
    "another program as a Python": Bad(
        (*RUN, "--subject", "/bin/ls"), USAGE, ("/bin/ls", "is no Python 3")
    ),
    "a release that is no version": Bad((*RUN, "--subject", "vllm==x"), USAGE, ("'x'", "0.19.0")),
    "two ways to name a build": Bad(
        ("explain", *GPU, "--vllm", "0.33.0", "--subject", "vllm"), USAGE, ("give one of them",)
    ),
    # options that say nothing
    "an image without containers": Bad(
        (*RUN, "--image", "x"), USAGE, ("--image is for containers", "--runner docker")
    ),
    "memory without containers": Bad((*RUN, "--memory", "8g"), USAGE, ("--memory is for",)),
    "a card without containers": Bad(
        (*RUN, "--render-device", "/dev/dri/renderD128"), USAGE, ("--render-device is for",)
    ),
    "a limit without containers": Bad(
        (*RUN, "--cell-timeout", "60"), USAGE, ("--cell-timeout is for",)
    ),
    "a sweep without its suite": Bad(
        (*RUN, "--suite", "parity", "--sweep", "9"), USAGE, ("--sweep is for the suite selection",)
    ),
    "problems without their suite": Bad(
        (*RUN, "--suite", "removal", "--problems", "quick"), USAGE, ("--problems is for the suite",)
    ),
    "a problem without its suite": Bad(
        (*RUN, "--suite", "selection", "--problem", "x"), USAGE, ("--problem is for the suite",)
    ),
    "a request's option with a model": Bad(
        (*LLAMA, "--head-size", "64"), USAGE, ("--head-size describes a single request",)
    ),
    "a model's option with a request": Bad(("explain", *GPU, "--tp", "8"), USAGE, ("--gqa",)),
    "a tower with sinks": Bad(("explain", *GPU, "--vit", "--sinks"), USAGE, ("vision tower",)),
    "a release and an edition": Bad(
        (*LLAMA, "--vllm", "0.33.0", "--edition", "0.19"), USAGE, ("leave out --edition",)
    ),
    # text
    "a variable without a value": Bad(("select", *GPU, "--env", "A"), USAGE, ("NAME=VALUE",)),
    "no JSON": Bad((*LLAMA, "--attention-config", "{"), USAGE, ("--attention-config", "no JSON")),
    "JSON of another kind": Bad(
        (*LLAMA, "--kv-transfer-config", "[]"), USAGE, ("expected a JSON object, got list",)
    ),
    "a key misspelled": Bad(
        (*LLAMA, "--attention-config", '{"backend_pr_kind": {}}'),
        USAGE,
        ("Did you mean 'backend_per_kind'",),
    ),
    "a kind of layer's backend misspelled": Bad(
        (*LLAMA, "--attention-config", '{"backend_per_kind": {"full_attention": "TRITON"}}'),
        USAGE,
        ("backend_per_kind", "TRITON_ATTN"),
    ),
    # files
    "no waivers there": Bad((*RUN, "--waivers", "/no/file"), USAGE, ("/no/file",)),
    "no requests there": Bad(("select", *GPU, "/no/file"), USAGE, ("/no/file",)),
    "no results there": Bad(("report", "no-such-folder"), USAGE, ("no-such-folder",)),
    # machines
    "a GPU that is not here": Bad(
        (*RUN, "--suite", "parity", "--device", "gpu"), NO_VERDICT, ("no GPU", "leave --device out")
    ),
    "a problem's file missing": Bad(
        (*RUN, "--suite", "parity", "--problem", "none.json"),
        USAGE,
        ("none.json", "be read"),
    ),
    "a backend of problems misspelled": Bad(
        (*RUN, "--suite", "parity", "--backend", "TRITON_ATN"),
        USAGE,
        ("mean 'TRITON_ATTN'",),
    ),
    "a backend without its suite": Bad(
        (*RUN, "--suite", "selection", "--backend", "TRITON_ATTN"), USAGE, ("--backend is for",)
    ),
    "shrinking without its suite": Bad(
        (*RUN, "--suite", "selection", "--shrink"), USAGE, ("--shrink is for the suite parity",)
    ),
    "no time to shrink": Bad(
        (*RUN, "--suite", "parity", "--shrink-seconds", "nan"), USAGE, ("--shrink-seconds",)
    ),
    "a run's variable without a value": Bad(
        (*RUN, "--env", "VLLM_ROCM_USE_AITER"), USAGE, ("NAME=VALUE", "VLLM_ROCM_USE_AITER")
    ),
    "a run's variable without a name": Bad((*RUN, "--env", "=1"), USAGE, ("NAME=VALUE",)),
    "variables of a suite that asks none": Bad(
        (*RUN, "--suite", "codegen", "--env", "A=1"), USAGE, ("--env is for the suite",)
    ),
    "configurations without their suite": Bad(
        (*RUN, "--suite", "parity", "--configurations", "served"),
        USAGE,
        ("suite codegen",),
    ),
    "a problem that no tier has": Bad(
        ("problems", "show", "triton-atn", "--tier", "quick"), USAGE, ("no problem 'triton-atn'",)
    ),
    "a problem that nobody has": Bad(
        (*RUN, "--suite", "parity", "--problem", "nosuch", "--quick", "--device", "interpreter"),
        USAGE,
        ("--problem 'nosuch'", "--seed"),
    ),
}


def test_the_table_is_long_enough() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_at_once_and_says_what_is_allowed(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = BAD[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_checks, "_GPU_NODES", ())
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code = run_cli(bad.arguments)
    printed = capsys.readouterr()
    assert code == bad.code, printed.err
    for part in bad.says:
        assert part in printed.err
    assert "Traceback" not in printed.err
    assert not list(tmp_path.glob("**/*.jsonl")), "a run had begun"


# ---- two runs, one folder --------------------------------------------------------------------


def test_a_results_folder_takes_one_run_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(tmp_path):
        code = run_cli([*RUN, "--suite", "selection", "--sweep", "0", "--results", str(tmp_path)])
    assert code == NO_VERDICT
    assert "another run is writing its results" in capsys.readouterr().err
    with held(tmp_path):
        pass  # it is free again


def test_what_is_returned_is_the_record_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that another process spoiled is no verdict, whatever this one remembers."""
    real = JUnitSoFar.finish

    def spoil(files: JUnitSoFar) -> list[Path]:
        results = tmp_path / "results.jsonl"
        results.write_text(results.read_text("utf-8") * 2, encoding="utf-8")
        return real(files)

    monkeypatch.setattr(JUnitSoFar, "finish", spoil)
    cell = ["--cell", "rocm62-noaiter", "-n", "1", "--suite", "selection", "--sweep", "0"]
    code = run_cli(["run", *cell, "--results", str(tmp_path)])
    assert code == NO_VERDICT
    assert "two runs in one file" in capsys.readouterr().out


# ---- select ----------------------------------------------------------------------------------


@pytest.fixture
def answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], tuple[int, str]]]:
    def ask(text: str) -> tuple[int, str]:
        file = tmp_path / "requests"
        file.write_text(text, encoding="utf-8")
        code = run_cli(["select", *GPU, str(file)])
        return code, capsys.readouterr().out

    yield ask


def test_a_byte_order_mark_is_taken(answers: Callable[[str], tuple[int, str]]) -> None:
    code, out = answers('\ufeff{"request": {}}\n')
    assert code == 0
    assert '"selected": "ROCM_ATTN"' in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"request": {"head_sise": 64}}', "Did you mean 'head_size'"),
        ('{"request": {"use_sink": true}}', "Did you mean 'has_sink'"),
        ('{"request": {"head_size": "64"}}', 'expected an integer, got \\"64\\"'),
        ('{"request": {"use_mla": null}}', "expected a boolean, true or false, got null"),
        ('{"request": [1]}', "expected a JSON object, got [1]"),
        ("{,}", "is no JSON at character 2"),
    ],
)
def test_a_bad_line_is_told_in_words_with_the_nearest_field(
    line: str, says: str, answers: Callable[[str], tuple[int, str]]
) -> None:
    code, out = answers(line + "\n")
    assert code == USAGE
    assert says in out
    assert "pydantic" not in out


def test_a_closed_pipe_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        code = run_cli(["cells", "--format", "json"])
        monkeypatch.undo()
    assert code == NO_VERDICT


# ---- the cache -------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_says_how_to_name_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert run_cli(["explain", *GPU, "--subject", "vllm==0.19.0"]) == NO_VERDICT
    assert CACHE_VARIABLE in capsys.readouterr().err


def test_locks_do_not_outlive_their_thread(tmp_path: Path) -> None:
    """A run that died does not lock its folder for ever: the lock is the process's."""
    done = threading.Event()

    def hold() -> None:
        with held(tmp_path):
            done.set()

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert done.is_set()
    with held(tmp_path):
        pass
