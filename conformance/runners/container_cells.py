"""Runs cells in containers of their stacks' images, one after another, because they share a GPU.

Each cell writes its results to a folder of this machine that is mounted into its container, so that
finished cases survive the container. A cell that ends without a verdict gets an errored case that
says why, in the same files as every other case.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from docker.errors import NotFound  # type: ignore[import-untyped] # the SDK ships no types

from conformance.cache import cache_root
from conformance.config import RunConfig
from conformance.containers.container_options import (
    CELL_LABEL,
    DEFAULT_SHARE,
    IMAGE_USER,
    RUN_LABEL,
    ContainerJob,
    Limits,
    container_options,
    is_abandoned,
    owner_id,
    parse_size,
)
from conformance.containers.engine import TROUBLE, Engine, in_words, remove, short
from conformance.containers.reaper import Reaper
from conformance.errors import InfrastructureError
from conformance.results import Run
from conformance.results.folder import CONTAINER_LOG, cleared
from conformance.runners.cell_records import cell_record, record_trouble
from conformance.runners.choice import ImageChoice, RunnerOptions
from conformance.runners.container_verdict import Ending, trouble
from conformance.runners.interrupts import interruptible
from conformance.runners.local import PROCESSES

LOG_TAIL_LINES = 60
STOPPED_TOO_LATE = 0.5
Say = Callable[[str], None]


@dataclass(frozen=True)
class CellRun:
    """One cell's record, and what kept it from a verdict, if anything did."""

    cell: str
    run: Run
    trouble: InfrastructureError | None


@dataclass
class DockerRunner:
    """Runs a configuration's cells in containers of an engine."""

    engine: Engine
    config: RunConfig
    options: RunnerOptions
    processes: int
    waivers: Path | None
    say: Say
    run_id: str = field(default_factory=lambda: f"{owner_id()}/{time.monotonic_ns()}")

    def sweep(self) -> int:
        """Removes the containers of runs whose process no longer exists; returns how many."""
        abandoned = [
            container
            for container in self.engine.containers(RUN_LABEL)
            if is_abandoned(container.labels.get(RUN_LABEL, ""))
        ]
        for container in abandoned:
            self.say(f"removing {container.short_id}, left behind by a run that is gone")
            remove(container)
        return len(abandoned)

    def run(self, choices: Sequence[ImageChoice], folder: Path) -> list[CellRun]:
        """Runs every cell in its image; several cells each get a folder below ``folder``."""
        self.sweep()
        cleared(folder)
        done = []
        with interruptible(), Reaper(self.engine.url, self.run_id):
            for number, choice in enumerate(choices, 1):
                name = choice.cell.name
                self.say(f"[{number}/{len(choices)}] {name} in {choice.tag} ({choice.reason})")
                where = folder / name if len(choices) > 1 else folder
                done.append(self._cell(choice, where))
                if (problem := done[-1].trouble) is not None:
                    self.say(f"{name}: {problem.args[0]}")
                if done[-1].trouble is not None and not self.engine.answers():
                    raise done[-1].trouble
        return done

    def _cell(self, choice: ImageChoice, folder: Path) -> CellRun:
        cleared(folder, owner=None if os.getuid() else IMAGE_USER)
        config = replace(self.config, cells=(choice.cell.name,))
        job = ContainerJob(
            cell=choice.cell,
            image=choice.image_id,
            run_id=self.run_id,
            folder=folder,
            order=json.dumps(self._order(config, choice)),
            limits=self._limits(),
            devices=choice.devices,
            waivers=self.waivers,
            cache=cache_root(),
            podman=self.engine.podman,
        )
        ending = self._contain(job)
        record = cell_record(folder)
        problem = trouble(ending, record, job.limits)
        if problem is not None:
            record_trouble(folder, choice.cell.name, config, problem, image=choice.tag)
        run = cell_record(folder)
        if run is None:
            raise InfrastructureError(f"{folder}: the results of {choice.cell.name} are gone")
        return CellRun(choice.cell.name, run, problem)

    def _order(self, config: RunConfig, choice: ImageChoice) -> dict[str, Any]:
        return {
            "config": asdict(config),
            "processes": self.processes,
            "waivers": self.waivers is not None,
            "argv": sys.argv,
            "image": choice.tag,
        }

    def _limits(self) -> Limits:
        asked = self.options.memory
        memory = parse_size(asked) if asked else int(self.engine.memory * DEFAULT_SHARE)
        # A process that uses a GPU also compiles kernels, on as many CPUs as there are.
        cpus = max(self.processes, PROCESSES) if self.config.device == "gpu" else self.processes
        return Limits(memory, float(cpus), self.options.cell_timeout)

    def _contain(self, job: ContainerJob) -> Ending:
        """Creates, starts and watches one container; removes it whatever happens."""
        started = time.monotonic()
        try:
            container = self.engine.client.containers.create(**container_options(job))
        except TROUBLE as error:
            return self._refused(error, started)
        try:
            try:
                container.start()
            except TROUBLE as error:
                return self._refused(error, started)
            return self._watch(container, job, started)
        finally:
            remove(container)

    def _refused(self, error: BaseException, started: float) -> Ending:
        seconds = time.monotonic() - started
        if self.engine.answers():
            return Ending(refused=short(error), seconds=seconds)
        return Ending(lost=short(error), seconds=seconds)

    def _watch(self, container: Any, job: ContainerJob, started: float) -> Ending:
        follower = _Follower(container, job.cell.name, job.folder / CONTAINER_LOG)
        follower.start()
        ending = self._wait(container, job.limits.seconds, started)
        follower.join(timeout=10)
        return replace(ending, log=follower.tail, seconds=time.monotonic() - started)

    def _wait(self, container: Any, seconds: float, started: float) -> Ending:
        deadline = started + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return self._stop(container)
            try:
                container.wait(timeout=max(left, 1))
                container.reload()
            except NotFound as error:
                return Ending(lost=f"the container was removed by somebody else: {short(error)}")
            except TROUBLE as error:
                # A timeout and a dead engine raise the same error: the clock and a ping tell.
                if time.monotonic() < deadline - STOPPED_TOO_LATE and not self.engine.answers():
                    return Ending(lost=short(error))
                continue
            state = container.attrs["State"]
            return Ending(code=int(state["ExitCode"]), oom=bool(state.get("OOMKilled")))

    def _stop(self, container: Any) -> Ending:
        try:
            with in_words("stop a container"):
                container.kill()
        except (NotFound, InfrastructureError):
            pass  # it ended in this moment, or its removal will say what is wrong
        return Ending(timed_out=True)


class _Follower(threading.Thread):
    """Copies a container's output, as it comes, to its log file and to this run's stderr."""

    def __init__(self, container: Any, name: str, log: Path) -> None:
        super().__init__(daemon=True, name=f"log of {name}")
        self._container = container
        self._name = name
        self._log = log
        self._lines: list[str] = []

    @property
    def tail(self) -> str:
        return "\n".join(self._lines)

    def run(self) -> None:
        rest = ""
        try:
            for chunk in self._container.logs(stream=True, follow=True):
                *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
                self._take(lines)
        except TROUBLE:
            pass  # the one who waits for the container says what became of the engine
        if rest:
            self._take([rest])

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            sys.stderr.write(f"{self._name} | {line}\n")
        # A full disk ends no run here: what the run inside says of it is the better message.
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.writelines(f"{line}\n" for line in lines)
        self._lines = [*self._lines, *lines][-LOG_TAIL_LINES:]


def leftovers(engine: Engine) -> list[str]:
    """The cells of all containers that any run of this suite has left in the engine."""
    return [str(c.labels.get(CELL_LABEL)) for c in engine.containers(RUN_LABEL)]
