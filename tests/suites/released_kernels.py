"""A release's own kernels in Triton's interpreter, right or with faults in their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.matrix.requests import Platform
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from conformance.subjects.kernels import Attended, KernelWorker
from conformance.subjects.protocol import start
from conformance.subjects.vllm.environment import ManagedVllm
from conformance.subjects.workers import vllm_worker
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.judging import verdict

OPS = Path("v1/attention/ops")


@dataclass(frozen=True)
class Change:
    """A line of a file of vLLM's that is another.

    ``file``: below the package, or a name in the folder of its Triton kernels.
    """

    file: str
    line: str
    instead: str

    @property
    def path(self) -> Path:
        return Path(self.file) if "/" in self.file else OPS / self.file


@dataclass(frozen=True)
class Fault(Change):
    """A change that makes a kernel wrong, and the problem that shows it."""

    problem: Problem


class Vllm(KernelWorker):
    """A release in Triton's interpreter; a session of it may see files with faults in them."""

    def __init__(self, release: ManagedVllm, folder: Path, target: str = "gfx942") -> None:
        self._release = release
        self._target = target
        self._folder_of_faults = folder
        # Python never looks again into a folder on its path that was not there.
        folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(map(str, (folder, *release.path)))
        env = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        super().__init__(vllm_worker(), "interpreter", 240, env, target)

    def break_it(self, faults: list[Fault]) -> None:
        """From here on vLLM is a copy with these faults: links, but for the files at fault."""
        broken_copy(self._release.root, self._folder_of_faults, faults)
        self._worker.call("stop")
        start(self._worker, Platform.make(self._target), "always", [])

    def ask(self, problem: Problem, cache_filling: str = "zero") -> tuple[Attended, list[str]]:
        """What vLLM made of a problem, and what is wrong with it."""
        tensors = materialise(problem)
        attended = self.attend(problem, tensors, wants_lse=False, cache_filling=cache_filling)
        if attended.refused:
            return attended, []
        return attended, [
            *verdict(case_of(problem, self._release.version, self._target), attended, tensors).wrong
        ]

    def known(self, problem: Problem, cache_filling: str) -> list[str]:
        """What is known to be wrong with vLLM's answer to a problem that it gets wrong."""
        tensors = materialise(problem)
        attended = self.attend(problem, tensors, wants_lse=False, cache_filling=cache_filling)
        values = verdict(
            case_of(problem, self._release.version, self._target),
            attended,
            tensors,
            poison=not cache_filling,
        ).values
        assert values, problem
        return [each.name for each in values.explained]


def broken_copy(source: Path, folder: Path, faults: Iterable[Change]) -> None:
    """A package ``vllm`` in a folder: links to a release's, but for the files with a fault."""
    made, known = folder / "vllm", [*faults]
    folders = {below for fault in known for below in fault.path.parents}
    for below in folders:
        (made / below).mkdir(parents=True, exist_ok=True)
    for below in folders:
        for entry in (source / below).iterdir():
            if not (made / below / entry.name).exists():
                (made / below / entry.name).symlink_to(entry)
    for fault in known:
        path = made / fault.path
        text = path.read_text(encoding="utf-8")
        assert fault.line in text
        path.unlink()
        path.write_text(text.replace(fault.line, fault.instead, 1), encoding="utf-8")


def missed(
    release: ManagedVllm, faults: Mapping[str, Fault], folder: Path, target: str = "gfx942"
) -> list[str]:
    """The faults that do not show, each made alone: what one does, another may undo."""
    unseen = []
    for number, (name, fault) in enumerate(faults.items()):
        broken = Vllm(release, folder / str(number), target)
        try:
            broken.break_it([fault])
            attended, wrong = broken.ask(fault.problem)
        finally:
            broken.close()
        assert (attended.refused, attended.raised) == ("", ""), name
        unseen += [] if wrong else [name]
    return unseen


def case_of(problem: Problem, release: str = "0.19.0", target: str = "gfx942") -> ParityCase:
    platform = Platform.make(target)
    return ParityCase(
        *("parity", "parity", f"vllm=={release}", "PAR-001", platform, (), platform),
        problem=problem,
        backend=problem.backend,
        device="interpreter",
        target=target,
    )
