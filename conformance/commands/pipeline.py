"""``rocm-conformance pipeline``: the Buildkite pipeline of the matrix."""

from __future__ import annotations

from collections.abc import Sequence

import click

from conformance.commands.options import gpus
from conformance.commands.run import run
from conformance.containers.build_context import checkout_root
from conformance.containers.buildkite_pipeline import (
    DEFAULT_TARGETS,
    PipelineOptions,
    pipeline_text,
)
from conformance.errors import ExitCode, UsageError


@click.command()
@click.option(
    "--cell", "cells", multiple=True, help="A cell or pattern, such as rocm72-*. [default: all]"
)
@gpus(f"GPUs to run on. Repeatable. [default: {' '.join(DEFAULT_TARGETS)}]")
@click.option(
    "--shards", default=1, show_default=True, help="Number of jobs to split each cell's cases over."
)
@click.argument("arguments", nargs=-1)
def pipeline(
    cells: Sequence[str], targets: Sequence[str], shards: int, arguments: Sequence[str]
) -> int:
    """Print a Buildkite pipeline for the matrix. ARGUMENTS are passed to every run.

    Needs a checkout: its jobs run scripts that a wheel does not have.

    \b
    rocm-conformance pipeline | buildkite-agent pipeline upload
    rocm-conformance pipeline --cell 'rocm72-*' --target gfx90a --target gfx950 -- --quick
    """
    checkout_root()  # its jobs run scripts that only a checkout has
    _check(arguments)
    options = PipelineOptions(
        tuple(cells) or ("*",), tuple(targets) or DEFAULT_TARGETS, shards, tuple(arguments)
    )
    click.echo(pipeline_text(options), nl=False)
    return ExitCode.CONFORMANT


# Every job has its own of these.
_OF_THE_JOB = ("cells", "targets", "shard", "results", "runner", "image", "devices")


def _check(arguments: Sequence[str]) -> None:
    """Refuses here the options that every job would refuse, or that would undo its own.

    Raises:
        UsageError: an option is none of ``run``, or one that each job has of its own.
    """
    _, _, order = run.make_parser(click.Context(run)).parse_args(list(arguments))
    for parameter in order:
        if parameter.name in _OF_THE_JOB:
            hint = {"cells": ": use the pipeline's --cell", "targets": ": use its --target"}
            raise UsageError(
                f"{parameter.opts[-1]} after --: each job of the pipeline has its own"
                f"{hint.get(parameter.name, '')}"
            )
