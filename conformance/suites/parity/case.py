"""A case of the parity suite: one problem on one backend."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from conformance.config import RunConfig
from conformance.problems.features import features
from conformance.problems.problem import Problem
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.case import Case

NO_PROBLEM = "all"


@dataclass(frozen=True)
class ParityCase(Case):
    """One problem on one backend, for all cells: what a kernel computes depends on none.

    A case without a ``problem`` reports why the backend's kernels are not judged. ``target`` is the
    GPU that a vLLM is shown; the reference kernels need none. ``file``: the user's, that the
    problem is from.
    """

    problem: Problem | None = None
    backend: str = ""
    device: str = ""
    target: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        return f"{self.requirement} {self.backend} [{self.problem or NO_PROBLEM}]"

    @property
    def group(self) -> str:
        # Any process may run any problem: workers keep nothing from one to the next. But a vLLM
        # that is shown another GPU than the others takes seconds to start, so one process has it.
        problem = self.problem
        if self.of_vllm and problem and (shown := features()[self.backend].shown_to(problem.kind)):
            return f"{self.subject} {self.backend} {shown}"
        return f"{self.subject} {self.backend} {self.problem}"

    @property
    def machine(self) -> str:
        return self.group

    @property
    def where(self) -> dict[str, str]:
        return {
            "target": self.target,
            "platform": f"device {self.device}",
            "backend": self.backend,
        }

    @property
    def of_vllm(self) -> bool:
        """Whether the kernels are a vLLM's."""
        return kind_of(self.subject) is SubjectKind.VLLM

    def command(self, config: RunConfig) -> str:
        """The command that runs this problem on this backend again."""
        words = ["rocm-conformance", "run", "--suite", "parity", "--subject", self.subject]
        words += ["--device", config.device]
        if not self.file:
            words += ["--problems", config.tier, "--seed", str(config.seed)]
        for name, value in config.env.items():
            words += ["--env", f"{name}={value}"]
        return shlex.join([*words, "--problem", self.file or str(self.problem)])
