"""Pages whose console output is real: what follows a command in them is what the command prints.

``python -m tests.support.console_pages`` writes the output anew. A block ``console`` holds commands
after ``$``, a command's further lines after a backslash; what follows, up to the next command or
the end of the block, is output. Output is folded at the width of a page.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from conformance.cli import run_cli

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs/tutorials/ten-questions.md",)
WIDTH = 100
PROGRAM = "rocm-conformance"


def rewritten(text: str) -> str:
    """A page with the output of every command as it is now."""
    made: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        made.append(line)
        if line == "```console":
            for command in _commands(lines):
                made += [*command, *_output(command)]
            made.append("```")
    return "\n".join(made) + "\n"


def _commands(lines: Iterator[str]) -> Iterator[list[str]]:
    """The lines of each command up to the end of a block; what it printed is dropped."""
    command: list[str] = []
    for line in lines:
        if line == "```":
            break
        if line.startswith("$ "):
            if command:
                yield command
            command = [line]
        elif command and command[-1].endswith("\\"):
            command.append(line)
    if command:
        yield command


def _output(command: list[str]) -> Iterator[str]:
    """What a command prints, a long line folded with an indent."""
    joined = " ".join(line.rstrip("\\").strip() for line in command).removeprefix("$ ")
    program, *arguments = shlex.split(joined)
    if program != PROGRAM:
        raise ValueError(f"{joined!r}: only {PROGRAM} can be run here")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run_cli(arguments)
    if code:
        raise ValueError(f"{joined!r} ended with {code}: {printed.getvalue()}")
    for line in printed.getvalue().splitlines():
        if len(line) <= WIDTH or " " not in line.strip():
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()) + 6)
        yield from textwrap.wrap(
            line,
            WIDTH,
            subsequent_indent=indent,
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        )


def main() -> None:
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
        sys.stdout.write(f"wrote {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
