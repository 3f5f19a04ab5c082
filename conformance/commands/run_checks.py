"""What is wrong with a run before its first case: options that do not apply, an absent GPU."""

from __future__ import annotations

import difflib
from pathlib import Path

import click
from click.core import ParameterSource

from conformance.config import RunConfig
from conformance.errors import InfrastructureError, UsageError
from conformance.problems.families import backends, problems_for
from conformance.problems.tiers import default_tier
from conformance.requirements import parity_backends
from conformance.suites.parity.options import only_problem
from conformance.suites.registry import BY_DEFAULT

# Options that say something to some suites only, with those suites.
_OF_SUITES = {
    "sweep": ("selection",),
    "problems": ("parity",),
    "problem": ("parity",),
}
_OF_CONTAINERS = {
    "image": "--image",
    "memory": "--memory",
    "cell_timeout": "--cell-timeout",
    "devices": "--render-device",
}
_GPU_NODES = ("/dev/kfd", "/dev/nvidiactl", "/dev/dxg")


def refuse_what_does_not_apply(context: click.Context) -> None:
    """Refuses options that this run would silently ignore.

    Raises:
        UsageError: names the option, and what it needs.
    """
    values = context.params
    suites = values["suites"] or BY_DEFAULT
    for name, of in _OF_SUITES.items():
        if _given(context, name) and not set(of) & set(suites):
            raise UsageError(
                f"--{name} is for the suite {' or '.join(of)}, and this run has "
                f"{', '.join(suites)}: leave it out, or add --suite {of[0]}"
            )
    if values["runner"] == "local":
        for name, option in _OF_CONTAINERS.items():
            if _given(context, name):
                raise UsageError(
                    f"{option} is for containers, and --runner local uses none: leave it out, or "
                    "say --runner docker"
                )


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def check_gpu(config: RunConfig) -> None:
    """Ends a run on a GPU that is not there before it prepares anything.

    Raises:
        InfrastructureError: this machine has none, or torch cannot drive it.
    """
    if config.device != "gpu":
        return
    advice = "run this on a machine with one, or leave --device out; rocm-conformance doctor"
    if not any(Path(node).exists() for node in _GPU_NODES):
        raise InfrastructureError(f"--device gpu: this machine has no GPU: {advice}")
    import torch  # noqa: PLC0415 - takes seconds, and only this needs it

    if not torch.cuda.is_available():
        raise InfrastructureError(f"--device gpu: torch can drive no GPU here: {advice}")


def check_problem(config: RunConfig) -> None:
    """Ends a run of one problem that no subject's edition has.

    Raises:
        UsageError: says which ids are near.
    """
    wanted = only_problem(config)
    if not wanted or "parity" not in config.suites:
        return
    tier = config.tier or default_tier(config.device)
    judged_by = dict.fromkeys(map(config.edition_of, config.subjects))
    known = {
        problem.id
        for edition in judged_by
        for backend in set(parity_backends(edition).values()) & set(backends())
        for problem in problems_for(backend, tier, config.seed, edition)
    }
    if wanted in known:
        return
    near = difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.4)
    hint = f" Near: {', '.join(near)}." if near else ""
    raise UsageError(
        f"--problem {wanted!r}: the {tier} problems of seed {config.seed} have none of that id."
        f"{hint} Problems depend on --problems, --seed and the device."
    )
