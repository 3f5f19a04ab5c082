"""What a run can ask of parity, and what it leaves out by asking."""

from __future__ import annotations

from collections.abc import Sequence

import click

from conformance.config import RunConfig

PROBLEM = click.Option(
    ["--problem"], default="", help="Run only the problem with this id, as shown in reports."
)


def only_problem(config: RunConfig) -> str:
    """The id of the only problem that was asked for; "" for all."""
    return str(config.suite_options.get("problem", ""))


def left_out(config: RunConfig) -> Sequence[str]:
    """Parity's requirements, unless it is run in full in the interpreter with the usual seed.

    Which deviations show depends on the problems, and on where they are computed.
    """
    if only_problem(config):
        return ["*"]
    asked = (config.tier, config.device, config.seed)
    usual = (RunConfig.tier, RunConfig.device, RunConfig.seed)
    return ["PAR-*"] if asked != usual else []
