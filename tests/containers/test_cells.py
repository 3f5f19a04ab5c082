"""Two cells in containers and on this machine: the same verdict on every case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.containers.build_context import checkout_root, sources_hash
from conformance.containers.engine import Engine
from conformance.containers.image_plan import IMAGE_LABEL, SOURCES_LABEL
from conformance.results import Run, read_results
from conformance.suites.registry import SUITES
from tests.containers.started import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

CELLS = ("rocm62-aiter-mha", "rocm72-noaiter-nomha")
WHOLE = ("--suite", "selection", "--suite", "removal")
# Parity does not depend on the cell but for its Triton; the interpreter takes its time.
PART = ("--suite", "parity", "--shard", "3/24")


def run(folder: Path, *arguments: str, cells: tuple[str, ...] = CELLS) -> str:
    chosen = [word for cell in cells for word in ("--cell", cell)]
    command = [sys.executable, "-m", "conformance", "run", *chosen, "--quick"]
    command += ["-n", "2", "--results", str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def verdicts(run: Run) -> dict[tuple[str, str, str, str], str]:
    """Outcomes by cell, subject, suite and name."""
    assert run.complete, run.problems
    return {
        (cell, case.subject, case.suite, case.name): case.outcome.value
        for case in run.cases
        for cell in case.cells
    }


@pytest.mark.parametrize("suites", [WHOLE, PART], ids=["selection and removal", "parity"])
def test_verdicts_are_those_of_the_same_cells_run_here(
    suites: tuple[str, ...], tmp_path: Path
) -> None:
    words = run(tmp_path / "contained", *suites, "--runner", "docker")
    here: dict[tuple[str, str, str, str], str] = {}
    # A case that no platform changes is named by the first of its run's: so one cell at a time.
    for cells in (CELLS,) if suites == PART else tuple((cell,) for cell in CELLS):
        folder = tmp_path / "local" / cells[0]
        run(folder, *suites, cells=cells)
        here |= verdicts(read_results(folder / "results.jsonl"))
    contained: dict[tuple[str, str, str, str], str] = {}
    for cell in CELLS:
        record = read_results(tmp_path / "contained" / cell / "results.jsonl")
        assert record.header is not None
        assert record.header.image.startswith(f"rocm-conformance:{cell.split('-')[0]}-cpu-")
        assert (tmp_path / "contained" / cell / f"junit-{cell}.xml").is_file()
        contained |= verdicts(record)
    assert {key[2] for key in here} == {suite for suite in suites if suite in SUITES}
    assert {key[0] for key in here} == set(CELLS)
    assert contained == here
    assert "no GPU, simulated" in words


def test_images_are_what_they_say_and_hold_no_secret(engine: Engine) -> None:
    (image, *_) = engine.images(f"{IMAGE_LABEL}=rocm72-cpu")
    assert image.labels[SOURCES_LABEL] == sources_hash(checkout_root())
    assert image.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.attrs["Config"]["User"] == "10001:10001"
    history = str(image.history())
    assert "PRIVATE" not in history
    output = engine.client.containers.run(
        image.id,
        ["sh", "-c", "cat /app/versions.txt; ls -A /run/secrets /wheels 2>/dev/null; id -u"],
        network_mode="none",
        remove=True,
    ).decode()
    assert "triton: triton 3.6.0" in output
    assert "torch: torch 2.13.0" in output
    assert output.splitlines()[-1] == "10001"
    assert not {"ca_bundle", "pip_conf"} & set(output.split())


def test_tox_in_a_container_installs_nothing(engine: Engine) -> None:
    (image, *_) = engine.images(f"{IMAGE_LABEL}=rocm72-cpu")
    arguments = ["--suite", "selection", "--sweep", "10", "-n", "1", "--results", "/tmp/out"]
    output = engine.client.containers.run(
        image.id,
        ["tox", "run", "-e", "rocm72-noaiter-nomha", "--", *arguments],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "exec,mode=1777"},
        remove=True,
        stderr=True,
    ).decode()
    assert "runner: local" in output
    assert "CONFORMANT: reference" in output
    assert "install_deps" not in output
