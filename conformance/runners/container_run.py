"""A run in containers, from its configuration to its summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from conformance.config import RunConfig
from conformance.containers.engine import Engine
from conformance.reports.console import show
from conformance.requirements import all_requirements
from conformance.runners.cell_records import merge
from conformance.runners.choice import ImageChoice
from conformance.runners.container_cells import DockerRunner
from conformance.runners.local import PROCESSES
from conformance.runners.plan import RunPlan
from conformance.runners.preparation import settle_all
from conformance.subjects.spellings import is_installed


def run(
    plan: RunPlan, engine: Engine, choices: Sequence[ImageChoice], say: Callable[[str], None]
) -> int:
    """Runs every cell in its image, shows the summary of all, and returns the exit code.

    Raises:
        InfrastructureError: nothing could be run, or the engine went away.
    """
    say(f"runner: docker, engine {engine.version} at {engine.url}")
    devices = choices[0].devices  # the host's: every cell has the same
    settled = _settle(plan.config.on_device("gpu" if devices.gpu else "interpreter"), say)
    usual = devices.cards if settled.device == "gpu" else PROCESSES
    processes = plan.processes or usual or 1
    runner = DockerRunner(engine, settled, plan.runner, processes, plan.waivers, say)
    done = runner.run(choices, plan.folder)
    merged = merge([cell.run for cell in done], settled, [cell.cell for cell in done])
    if plan.style is not None:
        show(merged, plan.style, sys.stdout, all_requirements())
    say(f"wrote JUnit files and results.jsonl of {len(done)} cells to {plan.folder}/")
    return merged.exit_code


def _settle(config: RunConfig, say: Callable[[str], None]) -> RunConfig:
    """Prepares the subjects that a container, which has no network, cannot fetch.

    The other subjects are in the image, and their versions are known only there.
    """
    fetched = tuple(spec for spec in config.subjects if not is_installed(spec))
    settled = settle_all(replace(config, subjects=fetched), say)
    return replace(config, releases=settled.releases)
