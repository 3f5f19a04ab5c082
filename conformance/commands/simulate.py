"""``rocm-conformance simulate``: any command on a simulated AMD machine."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from conformance.commands.options import DeviceOfTests, cases_of_tests, platform_options
from conformance.commands.shared import platform_of, say
from conformance.devices import MODES_TEXT, parse_device
from conformance.errors import ExitCode, InfrastructureError, UsageError
from conformance.subjects.base import Options
from conformance.subjects.spellings import SubjectKind, kind_of, parse_subject
from conformance.subjects.workers import WorkerSubject
from conformance.suites.upstream import machine
from conformance.suites.upstream.machine import CaseOptions
from conformance.suites.upstream.recorded import Recorded, counted, read_record
from vllm_editions import AUTO_EDITION


@click.command(context_settings={"ignore_unknown_options": True})
@platform_options
@click.option(
    "--subject",
    required=True,
    help="The vLLM: vllm==X.Y.Z, vllm (installed beside the suite), or PATH/TO/python.",
)
@click.option(
    "--device",
    type=DeviceOfTests(),
    default="",
    help="Run Triton kernels in Triton's interpreter (interpreter), or as AMD machine code that is "
    f"emulated on the CPU (isa:<gpu>{MODES_TEXT}). Tensors on cuda are then "
    "the CPU's. [default: no kernel runs]",
)
@cases_of_tests("pytest: ")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def simulate(
    target: str | None,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    subject: str,
    device: str,
    limit: float | None,
    sample: int | None,
    seed: int,
    memory: int | None,
    command: Sequence[str],
) -> int:
    """Run COMMAND where vLLM sees an AMD GPU: its own tests, which skip themselves elsewhere, run.

    \b
    rocm-conformance simulate --gpu MI300X --aiter --subject vllm==0.19.0 -- \\
        pytest tests/v1/attention/test_rocm_attention_backends_selection.py
    rocm-conformance simulate --gpu MI300X --subject vllm==0.19.0 --device isa:MI300X \\
        --sample 4 --limit 60 -- pytest tests/kernels/attention/test_triton_decode_attention.py

    The platform is simulated. Without --device no kernel runs, and what needs one fails. A first
    word `pytest` or `python` is that of the vLLM's environment. A path below tests/ that is not
    here is taken from the release's own source distribution.

    Exits as COMMAND does; pytest's run without one passed or failed test is no verdict (75).
    What the harness or the emulator cannot do is unsupported, and no failure.
    """
    platform = platform_of(target, aiter, flash_attn, env)
    if kind_of(subject) is not SubjectKind.VLLM:
        raise UsageError(f"--subject {subject}: simulate runs commands of a vLLM: vllm==X.Y.Z")
    if device.startswith("isa:") and parse_device(device).target != platform.target:
        raise UsageError(
            f"--device {device}: the GPU is {platform.target}; name the same one twice"
        )
    if not machine.is_pytest(command) and (limit or sample or memory):
        raise UsageError("--limit, --sample and --memory are for pytest's cases")
    build = parse_subject(subject, Options(AUTO_EDITION), say)
    assert isinstance(build, WorkerSubject)
    with (
        machine.working_folder(build, command) as folder,
        tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made,
    ):
        record = str(Path(made) / "cases.jsonl") if machine.is_pytest(command) else ""
        cases = CaseOptions(limit or 0.0, sample or 0, seed, memory or 0, record)
        words = machine.words(build, command, folder, plugin=bool(record))
        models = Path(made) / "models" if device and record else None
        environment = machine.environment(build, platform, device, cases, models)
        try:
            code = subprocess.run(words, cwd=folder, env=environment, check=False).returncode
        except OSError as error:
            raise UsageError(f"{command[0]}: cannot be run: {error.strerror or error}") from error
        return _verdict(code, read_record(Path(record))) if record else code


def _verdict(code: int, cases: Sequence[Recorded]) -> int:
    """pytest's exit code, where a run in which nothing was tested is no success."""
    counts = counted(cases)
    say(f"simulated: {machine.shown(counts)}")
    for case in cases:
        if case.ended not in ("passed", "skipped"):
            say(f"  {case.ended}: {case.case}: {first_line(case.message)}")
    return exit_code(code, counts)


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]


def exit_code(code: int, counts: Mapping[str, int]) -> int:
    """The command's exit code, from pytest's and from how its cases ended.

    Raises:
        InfrastructureError: nothing was tested.
    """
    # https://docs.pytest.org/en/stable/reference/exit-codes.html
    if code not in (0, 1):
        ends = {2: ExitCode.INTERRUPTED, 3: ExitCode.INTERNAL, 4: ExitCode.USAGE}
        if code != 2 or not counts["unsupported"]:
            return int(ends.get(code, ExitCode.INFRASTRUCTURE))
    if counts["failed"] or counts["violated"]:
        return int(ExitCode.NOT_CONFORMANT)
    if counts["errored"]:
        raise InfrastructureError("a case took its process along, and those after it")
    if not counts["passed"]:
        raise InfrastructureError(
            "pytest tested nothing: every test was skipped, or could not run here, or there is none"
        )
    return int(ExitCode.CONFORMANT)
