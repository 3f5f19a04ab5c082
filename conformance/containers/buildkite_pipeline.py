"""Buildkite's pipeline for the whole matrix: images, cells, one report.

The steps are written out one by one, because a Buildkite matrix has at most 50 jobs, cannot be
combined with parallelism, and allows no values in step keys
(https://buildkite.com/docs/pipelines/configure/workflows/build-matrix).

A step fails if its cell fails: there is no `soft_fail`. Infrastructure errors have an exit code of
their own and are retried once. Retries, priorities and queues follow vLLM's AMD CI.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conformance.errors import ExitCode, UsageError, one_of
from conformance.matrix.stacks import Cell, Stack, load_stacks, match_cells
from conformance.matrix.targets import TARGETS, target

BUILD_QUEUE = "amd-cpu"
DEFAULT_TARGETS = ("gfx942",)
IMAGE_MINUTES, CELL_MINUTES, REPORT_MINUTES = 180, 60, 20
HUNG_GPU = 134
LOST_AGENT = -1
MAX_PARALLELISM = 100


@dataclass(frozen=True)
class PipelineOptions:
    """What a pipeline should run.

    ``targets`` are the GPUs to run on: a cell gets a step for each one that its stack supports.
    ``shards`` is the number of jobs a cell's cases are split over; ``arguments`` go to every run.
    """

    cells: tuple[str, ...] = ("*",)
    targets: tuple[str, ...] = DEFAULT_TARGETS
    shards: int = 1
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= MAX_PARALLELISM:
            raise UsageError(f"--shards {self.shards}: expected 1 to {MAX_PARALLELISM}")
        for name in self.targets:
            if name not in queues():
                raise one_of("target with a queue", name, list(queues()))


def queues() -> dict[str, str]:
    """The agent queue of each target that AMD CI has machines for."""
    return {name: target(name).queue for name in TARGETS if target(name).queue}


def pipeline(options: PipelineOptions) -> dict[str, Any]:
    """The pipeline as JSON values (JSON is valid YAML, which the agent reads)."""
    cells = match_cells(options.cells)
    stacks = [stack for stack in load_stacks() if any(cell.stack == stack for cell in cells)]
    placed = [
        (cell, name) for cell in cells for name in options.targets if name in cell.stack.targets
    ]
    missing = [
        cell.name for cell in cells if not any(cell == placed_cell for placed_cell, _ in placed)
    ]
    if missing:
        raise UsageError(
            f"none of {', '.join(options.targets)} is a target of {', '.join(missing)}"
        )
    return {
        "env": {"PYTHONUNBUFFERED": "1"},
        "steps": [
            *(_image_step(stack) for stack in stacks),
            *(_cell_step(cell, name, options) for cell, name in placed),
            {"wait": None, "continue_on_failure": True},
            _report_step([_cell_key(cell, name) for cell, name in placed], options),
        ],
    }


def pipeline_text(options: PipelineOptions) -> str:
    """The pipeline as JSON for ``buildkite-agent pipeline upload``, ``$`` escaped.

    The agent interpolates variables on upload; ``$$`` becomes a dollar sign for the job's shell.
    https://buildkite.com/docs/agent/v3/cli-pipeline#environment-variable-substitution
    """
    return json.dumps(_escaped(pipeline(options)), indent=2) + "\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def _image_key(stack: Stack) -> str:
    return f"image-{stack.name}"


def _cell_key(cell: Cell, name: str) -> str:
    return f"cell-{cell.name}-{name}"


def _image_step(stack: Stack) -> dict[str, Any]:
    return {
        "label": f":docker: {stack.name} (ROCm {stack.rocm})",
        "key": _image_key(stack),
        "command": f"buildkite/build-image.sh {stack.name}",
        "agents": {"queue": BUILD_QUEUE},
        "timeout_in_minutes": IMAGE_MINUTES,
        "retry": _retry(),
    }


def _cell_step(cell: Cell, name: str, options: PipelineOptions) -> dict[str, Any]:
    words = shlex.join(["buildkite/run-cell.sh", cell.name, name, *options.arguments])
    return {
        "label": f":amd: {cell.name} on {name}",
        "key": _cell_key(cell, name),
        "depends_on": _image_key(cell.stack),
        "command": words,
        "agents": {"queue": queues()[name]},
        "timeout_in_minutes": CELL_MINUTES,
        "artifact_paths": ["results/**/*"],
        "retry": _retry(),
        **({"parallelism": options.shards} if options.shards > 1 else {}),
    }


def _report_step(keys: Sequence[str], options: PipelineOptions) -> dict[str, Any]:
    expected = {"CONFORMANCE_STEPS": " ".join(keys), "CONFORMANCE_SHARDS": str(options.shards)}
    return {
        "label": ":bar_chart: report",
        "key": "report",
        "command": "buildkite/report.sh",
        "env": expected,
        "agents": {"queue": BUILD_QUEUE},
        "timeout_in_minutes": REPORT_MINUTES,
        "artifact_paths": ["report/**/*"],
        "retry": _retry(),
    }


def _retry() -> dict[str, Any]:
    """Retries infrastructure errors once, and nothing else.

    A run that was interrupted is one: Buildkite does not retry a job that somebody cancelled.
    """
    codes = (int(ExitCode.INFRASTRUCTURE), int(ExitCode.INTERRUPTED), LOST_AGENT, HUNG_GPU)
    reasons = ("agent_stop", "agent_refused", "stack_error")
    by_code = [{"exit_status": code, "limit": 1} for code in codes]
    by_reason = [{"signal_reason": reason, "limit": 1} for reason in reasons]
    return {"automatic": [*by_code, *by_reason], "manual": {"permit_on_passed": True}}
