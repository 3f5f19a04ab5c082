"""A release's own kernels in Triton's interpreter, right or with faults in their files."""

from __future__ import annotations

import os
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
class Fault:
    """A line of a file of vLLM's that is another, and the problem that shows it.

    ``file``: below the package, or a name in the folder of its Triton kernels.
    """

    file: str
    line: str
    instead: str
    problem: Problem

    @property
    def path(self) -> Path:
        return Path(self.file) if "/" in self.file else OPS / self.file


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
        made, source = self._folder_of_faults / "vllm", self._release.root
        folders = {folder for fault in faults for folder in fault.path.parents}
        for folder in folders:
            (made / folder).mkdir(parents=True, exist_ok=True)
        for folder in folders:
            for entry in (source / folder).iterdir():
                if not (made / folder / entry.name).exists():
                    (made / folder / entry.name).symlink_to(entry)
        for fault in faults:
            path = made / fault.path
            text = path.read_text(encoding="utf-8")
            assert fault.line in text
            path.unlink()
            path.write_text(text.replace(fault.line, fault.instead, 1), encoding="utf-8")
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


def case_of(problem: Problem, release: str = "0.19.0", target: str = "gfx942") -> ParityCase:
    platform = Platform.make(target)
    return ParityCase(
        *("parity", "parity", f"vllm=={release}", "PAR-001", platform, (), platform),
        problem=problem,
        backend=problem.backend,
        device="interpreter",
        target=target,
    )
