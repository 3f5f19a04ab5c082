"""How a cell's container ended: with a verdict, or with a failure of the infrastructure.

An exit code alone does not tell. A folder that cannot be written, a failed test and a worker that
was killed for lack of memory all end with 1, and when the engine is killed there is no exit code.
So the results file decides, together with what the engine reports.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from conformance.containers.container_options import Limits
from conformance.errors import ExitCode, InfrastructureError
from conformance.results import Run

RETRY = "Worth one retry; if it comes back, "
# An abort. On AMD GPUs it mostly is a hang that the runtime gave up on:
# https://github.com/vllm-project/vllm/blob/v0.18.1/.buildkite/scripts/hardware_ci/run-amd-test.sh
MEANINGS = {
    125: "the engine could not start it",
    126: "its command cannot be executed",
    127: "its command was not found: the image is not one of this suite's",
    128 + signal.SIGABRT: "a process aborted, as after a GPU hang",
    128 + signal.SIGKILL: "it was killed from outside the run (or, by Podman, for want of memory)",
    128 + signal.SIGSEGV: "a process crashed (segmentation fault)",
    128 + signal.SIGTERM: "it was told to stop from outside the run",
}


@dataclass(frozen=True)
class Ending:
    """What is known of a container's end.

    ``code`` is None if the container did not end by itself. ``refused`` is why it could not be
    started, ``lost`` why the engine no longer answered.
    """

    code: int | None = None
    oom: bool = False
    timed_out: bool = False
    refused: str = ""
    lost: str = ""
    log: str = ""
    seconds: float = 0.0


def trouble(ending: Ending, run: Run | None, limits: Limits) -> InfrastructureError | None:
    """Why there is no verdict, and what to do about it; None if there is one.

    ``run`` is the cell's record, or None.
    """
    what = _what(ending, run, limits)
    if what is None:
        return None
    kept = len(run.cases) if run else 0
    cases = f" {kept} finished cases are kept." if kept else " No case had finished."
    return InfrastructureError(f"{what}.{cases}", ending.log)


def _what(ending: Ending, run: Run | None, limits: Limits) -> str | None:
    if ending.refused:
        return _refusal(ending.refused)
    if ending.lost:
        return (
            f"the container engine went away after {ending.seconds:.0f} s ({ending.lost}): start "
            "it again. What is left of the container is removed then, or by the next run"
        )
    if ending.timed_out:
        return (
            f"the container was stopped after its {limits.seconds:g} s. Give it more with "
            "--cell-timeout, or less to do with --quick, --suite or --shard"
        )
    if ending.oom:
        memory = f"{limits.memory / 2**20:,.0f} MiB"
        return (
            f"the kernel killed a process of the container for memory, of which it had {memory}: "
            "give it more with --memory, or run fewer processes with -n"
        )
    return _by_code(ending.code, run)


def _by_code(code: int | None, run: Run | None) -> str | None:
    if code in (ExitCode.CONFORMANT, ExitCode.NOT_CONFORMANT):
        return _by_record(code, run)
    if code == ExitCode.INFRASTRUCTURE:
        return "the run inside the container reached no verdict; its own words follow"
    if code == ExitCode.USAGE:
        return (
            "the suite in the image does not understand this run: build the image from this "
            "checkout (rocm-conformance images build), its words follow"
        )
    if code == ExitCode.INTERNAL:
        return "the suite in the container failed (70), which is a bug of it; its trace follows"
    meaning = MEANINGS.get(code or 0, "no exit code of this suite")
    return f"the container ended with {code}: {meaning}. {RETRY}see its log"


def _by_record(code: int | None, run: Run | None) -> str | None:
    if run is None or run.header is None:
        return (
            f"the container ended with {code} and left no results. Its log says why; where it does "
            "not, see whether its user can write to the results folder, and whether it has room"
        )
    if not run.complete:
        return f"the container ended with {code}, but its results are not whole: {run.problems[0]}"
    if run.exit_code != code:
        return f"the container ended with {code}, and its results say {int(run.exit_code)}"
    return None


def _refusal(words: str) -> str:
    lower = words.lower()
    if "error gathering device information" in lower or "no such device" in lower:
        return (
            f"a device is missing on the engine's host ({words}): see `ls /dev/kfd /dev/dri`, load "
            "the amdgpu driver, or name other render devices"
        )
    if "bind source path does not exist" in lower or "invalid mount config" in lower:
        return (
            f"the engine does not see this machine's folders ({words}): run beside the engine, "
            "not through a remote socket"
        )
    return f"the engine could not start the container: {words}"
