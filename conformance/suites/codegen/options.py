"""The options of the codegen suite, and what a run with them leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import click

from conformance.config import RunConfig

SHIPPED, SERVED, HIP = "shipped", "served", "hip"
CONFIGURATIONS = click.Option(
    ["--configurations"],
    type=click.Choice([SHIPPED, SERVED, HIP]),
    default=SHIPPED,
    show_default=True,
    help="What kernels are compiled for: examples; the layers of served models as vLLM launches "
    "them, which takes hours; or each instance of vLLM's HIP decode, which takes minutes a target.",
)


def as_served(config: RunConfig) -> bool:
    """Whether kernels are compiled for the layers of served models."""
    return bool(config.suite_options.get("configurations") == SERVED)


def of_hip(config: RunConfig) -> bool:
    """Whether every instance of vLLM's HIP decode is compiled, and nothing else."""
    return bool(config.suite_options.get("configurations") == HIP)


def left_out(config: RunConfig) -> Sequence[str]:
    """The requirements of the configurations that are not compiled."""
    served, examples = [f"CGN-01{n}" for n in range(4)], [f"CGN-00{n}" for n in range(1, 10)]
    if of_hip(config):
        return [*examples, *served, "CGN-014"]
    return examples if as_served(config) else served
