"""The command line: its commands, and how errors become exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click
from rich.console import Console

import conformance
from conformance.cache import keep_compiled
from conformance.errors import ExitCode, SuiteError


class _Versions(str):
    """The text of ``--version``; looked up when it is printed, because that takes a moment."""

    __slots__ = ()

    def __mod__(self, _values: object) -> str:
        parts = [f"rocm-conformance {conformance.__version__}"]
        for package in ("triton", "torch"):
            try:
                parts.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                parts.append(f"no {package}")
        return f"{', '.join(parts)}, Python {platform.python_version()}"


VERSION_TEXT = _Versions("%(version)s")


# In the order of `--help`; the module of each in conformance.commands.
COMMANDS = {
    "run": "run",
    "run-order": "run",
    "select": "select",
    "explain": "explain",
    "simulate": "simulate",
    "upstream": "upstream",
    "diff": "diff",
    "drift": "drift",
    "scoreboard": "scoreboard",
    "bless": "bless",
    "check": "check",
    "cells": "cells",
    "report": "report",
    "defects": "defects",
    "doctor": "doctor",
    "images": "images",
    "pipeline": "pipeline",
    "bench": "bench",
    "bench-kernels": "bench",
    "bench-isa": "bench",
    "bench-tiles": "bench",
    "prove-bound": "bench",
    "mutants": "mutants",
    "coverage": "coverage",
    "problems": "problems",
}


class ClosedPipeError(Exception):
    """Whoever read the output is gone."""


def _closed(_console: Console) -> NoReturn:
    raise BrokenPipeError


# rich would end with 1, which is a verdict.
Console.on_broken_pipe = _closed  # type: ignore[method-assign,assignment] # no other place


class Commands(click.Group):
    """The commands, each imported when it is asked for: some take seconds, and most need few.

    A closed pipe is told to :func:`run_cli`, where click would end with 1.
    """

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **named)
        except BrokenPipeError as error:
            raise ClosedPipeError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"conformance.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ClosedPipeError from error


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(message=VERSION_TEXT, prog_name="rocm-conformance", version="")
def cli() -> None:
    """Conformance of vLLM's attention backends and backend selector on AMD ROCm.

    No AMD GPU is needed: the platform is simulated and vLLM's own code answers.

    \b
    rocm-conformance run --subject vllm==0.19.0      judge a release in every cell
    rocm-conformance explain --model gpt-oss-120b --gpu MI300X
                                                     what will it pick there, and why?
    rocm-conformance cells                           the matrix
    rocm-conformance doctor                          what this machine can run

    Exit codes: 0 conformant, 1 not conformant, 2 usage, 70 internal error, 75 infrastructure
    (no verdict: worth a retry), 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with one of :class:`ExitCode`."""
    keep_compiled()
    raise SystemExit(run_cli(arguments))


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """The command line as a function: returns the exit code, prints errors to stderr."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        return int(code or 0)
    except click.exceptions.Abort:
        _say("interrupted; finished cases are in the results folder")
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        with _perhaps_unheard():
            error.show()
        return int(ExitCode.USAGE)
    except SuiteError as error:
        kind = {ExitCode.USAGE: "usage", ExitCode.INFRASTRUCTURE: "infrastructure"}
        _say(f"{kind.get(error.exit_code, 'internal')} error: {error}")
        return int(error.exit_code)
    except ClosedPipeError:
        # The reader is gone, and with it whatever was left to say: no verdict.
        _silence()
        return int(ExitCode.INFRASTRUCTURE)
    except Exception:
        with _perhaps_unheard():
            Console(stderr=True).print_exception()
        _say("internal error: please report it with the traceback above")
        return int(ExitCode.INTERNAL)


def _say(text: str) -> None:
    with _perhaps_unheard():
        click.echo(text, err=True)


@contextlib.contextmanager
def _perhaps_unheard() -> Iterator[None]:
    """Around a last word: the exit code stands, whether or not anyone is there to read it."""
    try:
        yield
        sys.stderr.flush()
    except BrokenPipeError:
        _silence()


def _silence() -> None:
    """Keeps Python from failing at its end, when it writes what is left for nobody to read."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except ValueError:  # closed already
            continue
