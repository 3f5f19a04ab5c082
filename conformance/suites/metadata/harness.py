"""Asks a subject's builders in a worker process, and keeps the findings for the cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance.errors import InfrastructureError
from conformance.matrix.requests import AITER, Platform
from conformance.subjects.base import SubjectInfo
from conformance.subjects.protocol import Worker, start
from conformance.subjects.workers import WorkerSubject
from conformance.suites.case import Context, Unsupported
from conformance.suites.metadata.asked import Question, questions
from conformance.suites.metadata.built import Finding
from conformance.suites.metadata.judging import asks, findings, reached
from conformance.worker.contract import DEVICE
from conformance.worker.metadata_contract import MetadataAnswer

INTERPRETED = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", DEVICE: "interpreter"}


@dataclass
class Judged:
    """What was found about a backend.

    ``refused``: why its builder was not called. ``traces``: of the errors. ``reached``: the
    requirements that something of it was held against. ``steps``: calls of the builder.
    """

    refused: str = ""
    found: list[Finding] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    steps: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether nothing was made; a layer may be refused where others are taken."""
        return bool(self.refused) and not self.steps

    def add(self, question: Question, answer: MetadataAnswer) -> None:
        """Holds one more answer against the requirements."""
        if answer["refused"]:
            self.refused = answer["refused"]
            return
        self.found += findings(question, answer)
        self.reached |= reached(question, answer)
        self.traces += filter(None, [answer["trace"]])
        if asks(question, answer):
            self.traces += filter(None, (step["trace"] for step in answer["steps"]))
            self.steps += len(answer["steps"])


def ask_all(worker: Worker, backend: str, asked: Iterable[Question]) -> Judged:
    """Asks a backend's builder everything, unless the first answer says that there is none."""
    judged = Judged()
    for question in asked:
        answer: MetadataAnswer = worker.call(
            "metadata",
            backend=backend,
            layer=question.layer,
            steps=[step.fields() for step in question.steps],
        )
        judged.add(question, answer)
        if judged.is_refused:
            break
    return judged


class Builders:
    """The workers of this process, one for each subject and target, and what they answered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._workers: dict[tuple[str, str], Worker] = {}
        self._judged: dict[tuple[str, str, str], Judged | InfrastructureError] = {}

    def judged(self, spec: str, target: str, backend: str) -> Judged:
        """What was found about a backend; asked once.

        Raises:
            InfrastructureError: the worker died, hung, or does not know what this build needs.
        """
        key = spec, target, backend
        if key not in self._judged:
            try:
                self._judged[key] = self._ask(spec, target, backend)
            except InfrastructureError as error:
                self._judged[key] = error
        known = self._judged[key]
        if isinstance(known, InfrastructureError):
            raise known
        return known

    def _ask(self, spec: str, target: str, backend: str) -> Judged:
        config = self._context.config
        asked = questions(backend, self._context.edition(spec), config.tier, config.seed)
        return ask_all(self._worker(spec, target), backend, asked)

    def _worker(self, spec: str, target: str) -> Worker:
        key = spec, target
        if key not in self._workers or not self._workers[key].alive:
            subject = self._context.subject(spec)
            if not isinstance(subject, WorkerSubject):
                raise Unsupported(f"{spec} has no metadata builders that the suite can drive")
            config = self._context.config
            worker = Worker(subject.command, {**subject.environment, **INTERPRETED}, config.timeout)
            self._workers[key] = worker
            platform = Platform.make(target, aiter=True, env={AITER: "1"})
            answer = start(worker, platform, "always", [])
            self._context.infos[spec] = SubjectInfo(
                str(answer["subject"]), str(answer["version"]), bool(answer["simulated"])
            )
        return self._workers[key]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
