"""``rocm-conformance simulate``: any command on a simulated AMD machine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from junitparser import Error, Failure, JUnitXml, JUnitXmlError, Skipped

from conformance.commands.options import platform_options
from conformance.commands.shared import platform_of, say
from conformance.errors import ExitCode, InfrastructureError, UsageError
from conformance.matrix.requests import Platform
from conformance.subjects.base import Options
from conformance.subjects.spellings import SubjectKind, kind_of, parse_subject
from conformance.subjects.workers import WORKER, WorkerSubject
from vllm_editions import AUTO_EDITION

SIMULATED = WORKER / "simulated"
VARIABLE = "ROCM_CONFORMANCE_SIMULATED"
TESTS = "tests"
# What a machine of its own may have set, and a simulated one has not.
_CLEARED = ("VLLM_", "AITER_", "FLASH_ATTENTION_", "HIP_VISIBLE", "ROCR_VISIBLE")
_OFFLINE = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
# With no visible device vLLM keeps Triton on although no Triton driver is active.
_NO_DEVICE = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


@click.command(context_settings={"ignore_unknown_options": True})
@platform_options
@click.option(
    "--subject",
    required=True,
    help="The vLLM: vllm==X.Y.Z, vllm (installed beside the suite), or PATH/TO/python.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def simulate(
    target: str | None,
    aiter: bool,
    flash_attn: bool,
    env: Sequence[str],
    subject: str,
    command: Sequence[str],
) -> int:
    """Run COMMAND where vLLM sees an AMD GPU: its own tests, which skip themselves elsewhere, run.

    \b
    rocm-conformance simulate --gpu MI300X --aiter --subject vllm==0.19.0 -- \\
        pytest tests/v1/attention/test_rocm_attention_backends_selection.py

    The platform is simulated, and no kernel runs: what needs one fails. A first word `pytest` or
    `python` is that of the vLLM's environment. A path below tests/ that is not here is taken from
    the release's own source distribution.

    Exits as COMMAND does; pytest's run without one passed or failed test is no verdict (75).
    """
    platform = platform_of(target, aiter, flash_attn, env)
    if kind_of(subject) is not SubjectKind.VLLM:
        raise UsageError(f"--subject {subject}: simulate runs commands of a vLLM: vllm==X.Y.Z")
    build = parse_subject(subject, Options(AUTO_EDITION), say)
    assert isinstance(build, WorkerSubject)
    with _folder(build, command) as folder:
        words = _words(build, command, folder)
        environment = _environment(build.environment, platform)
        try:
            if Path(command[0]).name == "pytest":
                return _pytest(words, folder, environment)
            return subprocess.run(words, cwd=folder, env=environment, check=False).returncode
        except OSError as error:
            raise UsageError(f"{command[0]}: cannot be run: {error.strerror or error}") from error


def _environment(of_subject: Mapping[str, str], platform: Platform) -> dict[str, str]:
    kept = {k: v for k, v in of_subject.items() if not k.startswith(_CLEARED)}
    paths = [str(SIMULATED), *filter(None, [kept.get("PYTHONPATH")])]
    present = {"aiter": platform.aiter, "flash_attn": platform.flash_attn}
    return {
        **kept,
        **_OFFLINE,
        **_NO_DEVICE,
        **platform.variables,
        "PYTHONPATH": os.pathsep.join(paths),
        VARIABLE: json.dumps({"target": platform.target, "present": present}),
    }


def _words(build: WorkerSubject, command: Sequence[str], folder: Path) -> list[str]:
    """The command's words, with the vLLM's Python in place of a bare ``pytest`` or ``python``."""
    first, *rest = command
    if first in ("python", "python3"):
        return [str(build.python), *rest]
    if first != "pytest":
        return list(command)
    usual = ["-p", "no:cacheprovider", "--rootdir", str(folder), "-c", os.devnull]
    # vLLM's top conftest.py loads all of its engine's test utilities, and what those need.
    usual += [f"--confcutdir={place}" for place in _places(rest, folder)[:1]]
    return [str(build.python), "-m", "pytest", *usual, *rest]


def _places(arguments: Sequence[str], folder: Path) -> list[Path]:
    """The folders of the test files that a command names."""
    named = [Path(word.partition("::")[0]) for word in arguments if not word.startswith("-")]
    there = [folder / path for path in named if (folder / path).exists()]
    return [path if path.is_dir() else path.parent for path in there]


@contextmanager
def _folder(build: WorkerSubject, command: Sequence[str]) -> Iterator[Path]:
    """Where the command runs: here, or in a folder that holds a release's tests and no vLLM.

    Beside its tests lies the source of vLLM itself, which would hide the build that is asked.
    """
    wanted = [word for word in command if word.startswith(f"{TESTS}/")]
    if not wanted or all(Path(word.partition("::")[0]).exists() for word in wanted):
        yield Path.cwd()
        return
    tree = build.source_tree()
    if tree is None or not (tree / TESTS).is_dir():
        raise UsageError(f"{wanted[0]}: not here, and {build.spec} has no tests of its own to take")
    if missing := [w for w in wanted if not (tree / w.partition("::")[0]).exists()]:
        raise UsageError(f"{missing[0]}: {build.spec} has no such file")
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made:
        (Path(made) / TESTS).symlink_to(tree / TESTS)
        yield Path(made)


@dataclass(frozen=True)
class Counted:
    """How pytest's tests ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


def _pytest(words: list[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Runs pytest, and sees to it that a run in which nothing was tested is no success."""
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made:
        given = [w.partition("=")[2] for w in words if w.startswith("--junitxml=")]
        record = Path(given[0]).absolute() if given else Path(made) / "junit.xml"
        words = [*words, f"--junitxml={record}"]
        code = subprocess.run(words, cwd=folder, env=environment, check=False).returncode
        found = _counted(record)
    say(f"simulated: {found.passed} passed, {found.failed} failed, {found.skipped} skipped")
    if code == 0 and not found.passed:
        raise InfrastructureError("pytest tested nothing: every test was skipped, or there is none")
    # https://docs.pytest.org/en/stable/reference/exit-codes.html
    ends = {2: ExitCode.INTERRUPTED, 3: ExitCode.INTERNAL, 4: ExitCode.USAGE}
    return int(ends.get(code, code if code in (0, 1) else ExitCode.INFRASTRUCTURE))


def _counted(record: Path) -> Counted:
    try:
        cases = [case for suite in JUnitXml.fromfile(str(record)) for case in suite]
    except (OSError, SyntaxError, JUnitXmlError):
        return Counted()  # it ended before it wrote one
    failed = sum(any(isinstance(r, (Failure, Error)) for r in case.result) for case in cases)
    skipped = sum(any(isinstance(r, Skipped) for r in case.result) for case in cases)
    return Counted(len(cases) - failed - skipped, failed, skipped)
