"""The options of the parity suite, and what a run with them leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import click

from conformance.config import RunConfig

PROBLEM = click.Option(
    ["--problem"], default="", help="Run only the problem with this id, as shown in reports."
)


def only_problem(config: RunConfig) -> str:
    """The id of the problem to which the run is restricted; "" if it is not."""
    return str(config.suite_options.get("problem", ""))


def left_out(config: RunConfig) -> Sequence[str]:
    """Parity's requirements, unless the run has the default tier, device and seed.

    Which deviations show depends on the problems and on the device.
    """
    if only_problem(config):
        return ["*"]
    asked = (config.tier, config.device, config.seed)
    usual = (RunConfig.tier, RunConfig.device, RunConfig.seed)
    return ["PAR-*"] if asked != usual else []
