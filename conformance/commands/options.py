"""Command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from conformance.devices import MODES_TEXT, parse_device
from conformance.errors import UsageError
from conformance.matrix.targets import TARGETS
from conformance.matrix.targets import target as known_target
from conformance.models.presets import presets
from vllm_editions import AUTO_EDITION

F = TypeVar("F", bound=Callable[..., Any])

FORMAT = click.option(
    "--format",
    "style",
    type=click.Choice(["pretty", "json", "markdown"]),
    default="pretty",
    help="Output format; json is stable.",
)
EDITION = click.option(
    "--edition",
    default=AUTO_EDITION,
    show_default=True,
    help="Judge by the specification of this release series; auto: of each subject's own.",
)


class Seconds(click.FloatRange):
    """A number of seconds: positive, and neither NaN nor endless."""

    name = "seconds"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds: expected one such as 120", param, ctx)
        return seconds


SIMULATE = click.option(
    "--simulate",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto simulates the platform if there is no AMD GPU.",
)
TIMEOUT = click.option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)
SEED = click.option(
    "--seed",
    default=36702,
    show_default=True,
    help="Seed of the generated requests and problems.",
)


def cases_of_tests(
    whose: str = "", *, left_out: str = "", gib: int | None = None
) -> Callable[[F], F]:
    """Adds the options by which a vLLM's own tests are cut to what ends.

    ``whose``: whom they are for, before each help; ``left_out``: what counts where one is not
    given. ``gib``: what ``--memory`` is then, none for no limit.
    """
    default = f" [default: {left_out}]" if left_out else ""
    options = (
        click.option(
            "--limit",
            type=Seconds(min=0, min_open=True),
            help=f"{whose}Seconds of the processor past which a case is too slow.{default}",
        ),
        click.option(
            "--sample",
            type=click.IntRange(min=1),
            help=f"{whose}Run so many cases of each test function, drawn by --seed.{default}",
        ),
        SEED,
        click.option(
            "--memory",
            type=click.IntRange(min=1),
            default=gib,
            show_default=gib is not None,
            help=f"{whose}GiB of address space that a process may have.",
        ),
    )

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class DeviceOfTests(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """interpreter, or isa: with a GPU and the emulator's modes."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = str(value)
        if text in ("", "interpreter"):
            return text
        kind, _, rest = text.partition(":")
        name, comma, modes = rest.partition(",")
        try:
            if kind != "isa":
                raise ValueError(f"device {text!r} runs no tests here")
            text = f"{kind}:{known_target(name).name}{comma}{modes}"
            parse_device(text)
        except (ValueError, UsageError) as error:
            expected = f"interpreter or isa:<gpu>{MODES_TEXT}"
            self.fail(f"{error}; expected {expected}", param, ctx)
        return text


class GpuName(click.ParamType):  # type: ignore[type-arg] # generic only in newer clicks
    """A GPU by architecture or by market name; the value is the architecture."""

    name = "gpu"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        del param, ctx
        return known_target(str(value)).name

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        return complete_gpu(ctx, param, incomplete)


def gpus(what: str) -> Callable[[F], F]:
    """The option that names several GPUs; ``what`` is its help."""
    return click.option("--gpu", "--target", "targets", multiple=True, type=GpuName(), help=what)


GPUS = gpus("Ask about this GPU alone. Repeatable. [default: all]")


def complete_gpu(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """GPUs for a shell's completion: architectures, and names that are one word."""
    del ctx, param
    names = [name for row in TARGETS.values() for name in (row.name, *row.market_names)]
    return _beginning(incomplete, (name for name in names if " " not in name))


def _beginning(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    begins = incomplete.lower()
    return [CompletionItem(name) for name in names if name.lower().startswith(begins)]


def complete_model(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Models for a shell's completion; else files."""
    del ctx, param
    found = _beginning(incomplete, presets())
    return found or [CompletionItem(incomplete, type="file")]


GPU = click.option(
    "--gpu",
    "--target",
    "target",
    metavar="NAME",
    shell_complete=complete_gpu,
    help="The GPU: its architecture (gfx942) or its name (MI300X, Radeon PRO W7900).",
)


def platform_options(function: F) -> F:
    """Adds the options that describe a platform."""
    for option in reversed(
        [
            GPU,
            click.option("--aiter", is_flag=True, help="aiter is installed."),
            click.option("--flash-attn", is_flag=True, help="flash_attn is installed."),
            click.option(
                "--env", "env", multiple=True, metavar="NAME=VALUE", help="A variable. Repeatable."
            ),
        ]
    ):
        function = option(function)
    return function
