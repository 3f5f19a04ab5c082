"""Fault drills with a real engine: what goes wrong is said, exits 75, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.containers.engine import Engine, connect
from conformance.containers.image_plan import IMAGE_LABEL
from conformance.errors import ExitCode
from conformance.results import Outcome
from conformance.runners.container_cells import leftovers
from tests.containers.started import CELL, ROOT, Ended, start, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

# The reference's cases end within seconds, and a real vLLM's go on for minutes.
LONG = ("--subject", "reference", "--subject", "vllm==0.19.0")
SHORT = ("--sweep", "100")
DRILL_IMAGE = "rocm-conformance-drill:memory"


def no_verdict(ended: Ended, *said: str) -> None:
    assert ended.code == ExitCode.INFRASTRUCTURE, ended.words
    assert ended.said(*said), ended.words


def trouble_is_on_record(ended: Ended, *, kept: bool) -> None:
    record = ended.record
    assert record.complete, record.problems
    *others, last = record.cases
    assert last.outcome is Outcome.ERRORED
    assert last.cells == (CELL,)
    assert last.message in " ".join(ended.words.split())
    assert bool(others) == kept
    assert (ended.folder / f"junit-{CELL}.xml").is_file()


def test_the_main_process_runs_out_of_memory(tmp_path: Path) -> None:
    ended = start(tmp_path, *SHORT, "--memory", "40m").end()
    no_verdict(ended, "for memory, of which it had 40 MiB", "--memory")
    trouble_is_on_record(ended, kept=False)


@pytest.fixture
def memory_image(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The cell's image, with an xdist worker that hoards."""
    (image, *_) = engine.images(f"{IMAGE_LABEL}=rocm72-cpu")
    drill = (ROOT / "tests/containers/drill/sitecustomize.py").read_text(encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(drill, encoding="utf-8")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image.tags[0]}\nCOPY sitecustomize.py /drill/\nENV PYTHONPATH=/drill\n"
        f"LABEL {IMAGE_LABEL}=drill\n",
        encoding="utf-8",
    )
    engine.client.images.build(path=str(tmp_path), tag=DRILL_IMAGE, rm=True, forcerm=True)
    yield DRILL_IMAGE
    engine.client.images.remove(DRILL_IMAGE, force=True)


def test_an_xdist_worker_runs_out_of_memory(memory_image: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    limits = ("--image", memory_image, "--memory", "1500m")
    ended = start(folder, *LONG, *limits).end()
    no_verdict(ended, "for memory, of which it had 1,500 MiB", "run fewer processes with -n")
    assert len(ended.record.cases) > 1


def test_time_runs_out(tmp_path: Path) -> None:
    ended = start(tmp_path, *LONG, "--cell-timeout", "30").end()
    no_verdict(ended, "the container was stopped after its 30 s", "--cell-timeout")
    trouble_is_on_record(ended, kept=True)


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system without room."""
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_results_cannot_be_written(full_folder: Path) -> None:
    ended = start(full_folder, *SHORT).end()
    no_verdict(ended, "cannot write results to", "No space left", "that can be written")


def test_the_image_is_missing(tmp_path: Path) -> None:
    asked = start(tmp_path, "--image", "rocm-conformance:nothing").end()
    no_verdict(asked, "the image rocm-conformance:nothing is not here", "docker pull")
    own = start(tmp_path, cell="rocm63-aiter").end()
    no_verdict(own, "no image of rocm63", "rocm-conformance images build --cpu rocm63")


def test_a_device_is_missing(tmp_path: Path) -> None:
    ended = start(tmp_path, *SHORT, "--render-device", "/dev/dri/renderD999").end()
    no_verdict(ended, "a device is missing on the engine's host", "/dev/dri/renderD999", "amdgpu")
    trouble_is_on_record(ended, kept=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_run_is_cancelled(engine: Engine, tmp_path: Path, number: int) -> None:
    run = start(tmp_path, *LONG)
    run.until_cases()
    run.process.send_signal(number)
    ended = run.end()
    assert ended.code == ExitCode.INTERRUPTED, ended.words
    assert ended.said("interrupted", "finished cases are in the results folder"), ended.words
    assert leftovers(engine) == []
    assert ended.record.cases


def test_the_run_is_killed(engine: Engine, tmp_path: Path) -> None:
    run = start(tmp_path, *LONG)
    run.until_cases()
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    wait_for(lambda: leftovers(engine) == [], 30)
    assert run.end().record.cases


def test_the_run_and_its_watchdog_are_killed(engine: Engine, tmp_path: Path) -> None:
    run = start(tmp_path, *LONG)
    run.until_cases()
    children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text()
    for pid in (*children.split(), str(run.process.pid)):
        os.kill(int(pid), signal.SIGKILL)
    run.process.wait()
    assert leftovers(engine) == [CELL]
    ended = start(tmp_path / "next", *SHORT).end()
    assert ended.code == ExitCode.CONFORMANT, ended.words
    assert ended.said("left behind by a run that is gone")


def test_the_engine_is_killed(engine_folder: Path, tmp_path: Path) -> None:
    run = start(tmp_path, *LONG)
    run.until_cases()
    os.kill(int((engine_folder / "pid").read_text()), signal.SIGKILL)
    ended = run.end()
    subprocess.run([str(ROOT / ".ci/engine"), "start", str(engine_folder)], check=True)
    no_verdict(ended, "the container engine went away", "start it again")
    trouble_is_on_record(ended, kept=True)
    wait_for(lambda: leftovers(connect()) == [], 30)
