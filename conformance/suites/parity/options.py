"""The options of the parity suite, and what a run with them leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import click

from conformance.config import RunConfig
from conformance.errors import one_of
from conformance.problems.problem import Problem

OWN, FILE = "problem", "file"


class ProblemType(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """A problem's id, or a file of problems: then the value is what is in it."""

    name = "problem"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        del param, ctx
        if not isinstance(value, str) or not is_file(value):
            return value
        from conformance.problems.files import read_problems  # noqa: PLC0415 - only for a file

        return [{FILE: value, OWN: each.to_json()} for each in read_problems(Path(value))]


class BackendType(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """A backend that problems are made for."""

    name = "backend"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        del param, ctx
        from conformance.problems.families import backends  # noqa: PLC0415 - only for a name

        if value not in backends():
            raise one_of("backend", str(value), backends())
        return str(value)


class _Limit(click.FloatRange):
    """Seconds: a range alone would take NaN."""

    name = "seconds"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds: expected one such as 300", param, ctx)
        return seconds


def is_file(name: str) -> bool:
    """Whether a value of ``--problem`` names a file and not an id."""
    return name.endswith(".json") or Path(name).is_file()


PROBLEM = click.Option(
    ["--problem"],
    multiple=True,
    type=ProblemType(),
    metavar="ID|FILE.json",
    help="Run only the problem with this id, as shown in reports, or those of a file: `problems "
    "schema` prints what it may hold, `problems show ID --format json` makes one. Repeatable.",
)
BACKEND = click.Option(
    ["--backend"],
    multiple=True,
    type=BackendType(),
    help="Run only this backend's problems. Repeatable. [default: all]",
)

SHRINK = click.Option(
    ["--shrink"],
    is_flag=True,
    help="Shrink the problems that fail, one for each finding, to the smallest with the same "
    "finding; waived ones too if --problem names them.",
)
SHRINK_SECONDS = click.Option(
    ["--shrink-seconds"],
    type=_Limit(min=1, max=86_400),
    default=300.0,
    show_default=True,
    help="Time limit for each finding that is shrunk.",
)


@dataclass(frozen=True)
class OwnProblem:
    """A problem of the user's, and the file that it is from."""

    file: str
    problem: Problem


def asked_ids(config: RunConfig) -> tuple[str, ...]:
    """The ids of problems to which the run is restricted."""
    return tuple(each for each in config.suite_options.get("problem", ()) if isinstance(each, str))


def own_problems(config: RunConfig) -> tuple[OwnProblem, ...]:
    """The problems of the user's own files to which the run is restricted."""
    files = [each for each in config.suite_options.get("problem", ()) if not isinstance(each, str)]
    return tuple(
        OwnProblem(row[FILE], Problem.from_json(row[OWN])) for file in files for row in file
    )


def is_restricted(config: RunConfig) -> bool:
    """Whether the run has only the problems that were named."""
    return bool(config.suite_options.get("problem"))


def asks_backend(config: RunConfig, backend: str) -> bool:
    """Whether the run is about a backend."""
    chosen = config.suite_options.get("backend", ())
    return not chosen or backend in chosen


def left_out(config: RunConfig) -> Sequence[str]:
    """Parity's requirements, unless the run has the default tier, device, seed and variables.

    Which deviations show depends on the problems and on the device. Of codegen's requirements about
    resources, parity judges what its problems happen to launch.
    """
    if is_restricted(config):
        return ["*"]
    asked = (config.tier, config.device, config.seed)
    usual = (RunConfig.tier, RunConfig.device, RunConfig.seed)
    narrowed = config.suite_options.get("backend") or config.env
    codegen = ["CGN-*"] if config.device.startswith(("aot:", "isa:")) else []
    return [*(["PAR-*"] if asked != usual or narrowed else []), *codegen]
