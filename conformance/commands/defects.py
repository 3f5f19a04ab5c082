"""``rocm-conformance defects``: what is known to be wrong with vLLM's attention, by release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from conformance.commands.options import FORMAT, SIMULATE, TIMEOUT
from conformance.commands.shared import print_table, say, write_files
from conformance.config import RunConfig
from conformance.errors import ExitCode, UsageError
from conformance.problems.defects import known_defects
from conformance.requirements.waivers import load_waivers
from conformance.results import markdown
from conformance.runners.preparation import settle_all
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.case import Context
from conformance.suites.parity.defects_table import COLUMNS, HIDDEN, RIGHT, WRONG, Seen, rows

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
PAGE = "known-defects.md"
HEAD = """\
# Known defects of vLLM's ROCm attention

<!-- Made by `make defects-page`. Do not edit. -->

What vLLM's own kernels compute that is not the attention asked for: the smallest problem of each
defect, given by `rocm-conformance defects` to the unmodified kernels of these releases, in Triton's
interpreter, with an MI300X simulated, for ROCM_SEGMENTED_ATTN an RX 9070: {releases}.
No AMD GPU was used.

*First* and *last* are the first and the last of them that showed the defect; *right in* is the
first later one that did not, and empty where the newest has it. *Not claimed*: the backend says
from then on that it does not support this. *Not asked*: the engine of later releases gives no
backend such a problem. Each defect is [waived](requirements.md#waivers) for the releases that show
it.

"""


@click.command()
@click.argument("subjects", nargs=-1, required=True, metavar="vllm==X...")
@click.option("--device", default="interpreter", show_default=True, help="Where kernels run.")
@click.option("--write", type=_FOLDER, help=f"Write {PAGE} into this folder.")
@SIMULATE
@TIMEOUT
@FORMAT
def defects(
    subjects: Sequence[str],
    device: str,
    write: Path | None,
    simulate: str,
    timeout: float,
    style: str,
) -> int:
    """List known defects of releases: the first and the last that shows each.

    Each defect's smallest problem is given to each release; a waiver says why it is accepted.
    """
    from conformance.suites.parity.defects import seen_in  # noqa: PLC0415 - torch is slow to import

    if others := [name for name in subjects if kind_of(name) is not SubjectKind.VLLM]:
        raise UsageError(f"{others[0]!r} is no vLLM: name releases, such as vllm==0.33.0")
    seen: list[Seen] = []
    asked: dict[str, Any] = {
        "device": device,
        "simulate": simulate,
        "timeout": timeout,
        "tier": "quick",
    }
    config = settle_all(RunConfig(subjects=tuple(subjects), cells=("*",), **asked), say)
    waivers = load_waivers().waivers
    for one in seen_in(known_defects(), config.subjects, Context(config), waivers):
        seen.append(one)
        say(f"{one.release} {one.defect.problem.id}: {one.answer}")
    table = [*rows(seen, waivers)]
    if write:
        releases = ", ".join(str(one) for one in dict.fromkeys(one.release for one in seen))
        text = HEAD.format(releases=releases) + markdown.table(COLUMNS, table) + "\n"
        write_files(write, {PAGE: text})
    elif style == "json":
        click.echo(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in table], indent=2))
    else:
        print_table(COLUMNS, table, style)
    no_answer = [one for one in seen if one.answer not in (WRONG, RIGHT, HIDDEN)]
    return ExitCode.INFRASTRUCTURE if len(no_answer) == len(seen) else ExitCode.CONFORMANT
