"""What is wrong with a run before its first case: options that do not apply, an absent GPU."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from conformance.config import RunConfig
from conformance.errors import InfrastructureError, UsageError
from conformance.matrix import variables
from conformance.problems.admission import refusals
from conformance.problems.families import backends
from conformance.problems.files import refuse_same_ids
from conformance.problems.named import catalogue, problem_named, seed_in
from conformance.problems.tiers import default_tier
from conformance.requirements import parity_backends
from conformance.suites.parity.options import (
    OwnProblem,
    asked_ids,
    asks_backend,
    own_problems,
)
from conformance.suites.registry import BY_DEFAULT

# Options that say something to some suites only, with those suites.
_OF_SUITES = {
    "sweep": ("selection",),
    "problems": ("parity",),
    "problem": ("parity",),
    "backend": ("parity",),
    "env": ("selection", "parity"),
    "configurations": ("codegen",),
    "shrink": ("parity",),
    "shrink_seconds": ("parity",),
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
                f"--{name.replace('_', '-')} is for the suite {' or '.join(of)}, and this run has "
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

    Under ``--wrap`` the worker says whether it sees one.

    Raises:
        InfrastructureError: this machine has none, or torch cannot drive it.
    """
    if config.device != "gpu" or config.wrap:
        return
    advice = "run this on a machine with one, or leave --device out; rocm-conformance doctor"
    if not any(Path(node).exists() for node in _GPU_NODES):
        raise InfrastructureError(f"--device gpu: this machine has no GPU: {advice}")
    import torch  # noqa: PLC0415 - takes seconds, and only this needs it

    if not torch.cuda.is_available():
        raise InfrastructureError(f"--device gpu: torch can drive no GPU here: {advice}")


def warn_of_variables(config: RunConfig, say: Callable[[str], None]) -> None:
    """Says which variables of ``--env`` vLLM does not know, once for each edition that judges."""
    for edition in dict.fromkeys(map(config.edition_of, config.subjects)):
        for warning in variables.warnings(list(config.env), edition):
            say(f"warning: --env: {warning}")


def check_problem(config: RunConfig) -> None:
    """Ends a run of problems that no subject's edition has.

    Raises:
        UsageError: says which ids are near, or why none of the editions has a file's problem.
    """
    if "parity" not in config.suites:
        return
    judged_by = list(dict.fromkeys(map(config.edition_of, config.subjects)))
    own = own_problems(config)
    refuse_same_ids([each.problem for each in own])
    for each in own:
        _check_own(each, config, judged_by)
    wanted = asked_ids(config)
    if not wanted:
        return
    tier = config.tier or default_tier(config.device)
    for name in wanted:
        made = (problem_named(name, edition, tier, config.seed) for edition in judged_by)
        found = [each for each in made if each is not None]
        if not found:
            raise _unknown_problem(name, config, tier, judged_by)
        if not any(asks_backend(config, each.backend) for each in found):
            raise UsageError(
                f"--problem {name!r} is {found[0].backend}'s, and --backend names others: name it "
                "too, or leave --backend out"
            )


def _check_own(own: OwnProblem, config: RunConfig, editions: Sequence[str]) -> None:
    """
    Raises:
        UsageError: no edition has the backend or admits the problem, or another backend was named.
    """
    problem = own.problem
    where = f"--problem {own.file}: {problem.id}"
    if not asks_backend(config, problem.backend):
        raise UsageError(
            f"{where}: backend: is {problem.backend}, and --backend names others: name it too, or "
            "change the field"
        )
    why: list[str] = []
    for edition in editions:
        if problem.backend not in parity_backends(edition).values():
            has = ", ".join(sorted(set(parity_backends(edition).values()) & set(backends())))
            why.append(f"backend: edition {edition} has no {problem.backend}; allowed: {has}")
        elif not (wrong := refusals(problem, edition)):
            return
        else:
            why += wrong
    if why:
        raise UsageError("\n  ".join([f"{where}:", *dict.fromkeys(why)]))


def _unknown_problem(
    wanted: str, config: RunConfig, tier: str, editions: Sequence[str]
) -> UsageError:
    seed = seed_in(wanted)
    seed = config.seed if seed is None else seed
    known = {
        problem.id
        for edition in editions
        for _, problem in catalogue(
            [tier], [each for each in backends() if asks_backend(config, each)], edition, seed
        )
    }
    near = difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.4)
    hint = f" Near: {', '.join(near)}." if near else ""
    return UsageError(
        f"--problem {wanted!r}: no tier of edition {' or '.join(editions)} has a problem of that "
        f"id with seed {seed}.{hint} Problems depend on the subject's edition, --problems and "
        "--seed. A file of your own problems ends in .json."
    )
