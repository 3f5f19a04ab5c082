"""The options of the codegen suite, and what a run with them leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import click

from conformance.config import RunConfig

SHIPPED, SERVED = "shipped", "served"
CONFIGURATIONS = click.Option(
    ["--configurations"],
    type=click.Choice([SHIPPED, SERVED]),
    default=SHIPPED,
    show_default=True,
    help="What kernels are compiled for: examples, or the layers of served models as vLLM launches "
    "them, which takes hours.",
)


def as_served(config: RunConfig) -> bool:
    """Whether kernels are compiled for the layers of served models."""
    return bool(config.suite_options.get("configurations") == SERVED)


def left_out(config: RunConfig) -> Sequence[str]:
    """The requirements of the configurations that are not compiled."""
    served = ["CGN-010", "CGN-011", "CGN-012", "CGN-013"]
    return [f"CGN-00{n}" for n in range(1, 10)] if as_served(config) else served
