"""Subjects that live in a worker process, one platform's session at a time."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.cache import compiled_python
from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.subjects.base import Options, Session, SubjectInfo
from conformance.subjects.protocol import Worker, ask_all, start
from conformance.worker.contract import (
    BackendDescription,
    DescribeAnswer,
    Op,
    StartAnswer,
    Variable,
    VariablesAnswer,
)
from vllm_editions import load_edition

WORKER = Path(__file__).parents[1] / "worker"
_COMPILES_ANEW, _COMPILED_IN = "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"
# The variables that vLLM keeps from its import and reads again when told to.
READ_AGAIN = "VLLM_ROCM_USE_AITER"


class WorkerSession:
    """A session in a worker process."""

    def __init__(self, worker: Worker, info: SubjectInfo, platform: Platform) -> None:
        self._worker = worker
        self.platform = platform
        self.info = info
        self.open = True

    @property
    def alive(self) -> bool:
        return self.open and self._worker.alive

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        return ask_all(self._worker, asks)

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        answer: VariablesAnswer = self._worker.call("variable", names=list(names))
        return answer["variables"]

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        answer: DescribeAnswer = self._worker.call("describe", backends=list(backends))
        return answer["backends"]

    def reread(self, platform: Platform) -> None:
        """Goes on with a platform's variables.

        Raises:
            InfrastructureError: the subject cannot.
        """
        self._worker.call("environment", env=platform.variables)
        self.platform = platform

    def close(self) -> None:
        if self.open and self._worker.alive:
            self._worker.call("stop")
        self.open = False


def started_as(platform: Platform) -> Platform:
    """A platform without the variables that are read again: what a process must be started for."""
    kept = tuple(pair for pair in platform.env if not pair[0].startswith(READ_AGAIN))
    return replace(platform, env=kept)


class WorkerSubject:
    """A subject behind a worker command: keeps one worker, and starts another when it dies."""

    def __init__(
        self,
        spec: str,
        command: Sequence[str],
        options: Options,
        *,
        env: dict[str, str] | None = None,
        release: str | None = None,
        source_tree: Callable[[], Path | None] | None = None,
        python: Path | None = None,
        libraries: dict[str, str] | None = None,
        note: str = "",
    ) -> None:
        """``note``: what reports must say of the subject. ``libraries``: each library of kernels
        with why it cannot be used (empty: it can). Those that ``command`` does not drive have
        workers of their own, which run in ``python``."""
        self.spec = spec
        self.python = python or Path(sys.executable)
        self.libraries = libraries or {"vllm": ""}
        self.note = note
        self._command = [*options.prefix, *command]
        self._options = options
        self._env = {**_environment(), **(env or {})}
        self._release = release
        self._source_tree = source_tree
        self._tree: Path | None = None
        self._worker: Worker | None = None
        self._session: WorkerSession | None = None
        # The platform that it was started on, whatever it has read again since.
        self._started_on = Platform.make("")
        self._info_anywhere: SubjectInfo | None = None

    @classmethod
    def from_command(cls, spec: str, options: Options) -> WorkerSubject:
        """``worker:COMMAND``: any program that speaks the protocol."""
        try:
            command = shlex.split(spec.removeprefix("worker:"))
        except ValueError as error:
            raise UsageError(f"{spec}: {error}: quote it as for a shell") from error
        if not command:
            raise UsageError("worker: needs a command, as in 'worker:python my_selector.py'")
        return cls(spec, command, options)

    @property
    def command(self) -> list[str]:
        """The words that start a worker of this subject."""
        return list(self._command)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its workers."""
        return dict(self._env)

    @property
    def release(self) -> str:
        if self._release is None:
            self._release = self.info().version
        return self._release

    def info(self) -> SubjectInfo:
        if self._info_anywhere is None:
            self._info_anywhere = self._anywhere().info
        return self._info_anywhere

    def open(self, platform: Platform) -> WorkerSession:
        """Opens a session; the one before ends, because a worker has one at a time.

        Raises:
            OtherMachineError: this is a real machine with an AMD GPU, and it is not that platform.
        """
        return self._started(platform, self._options.simulate)

    def reopen(self, platform: Platform) -> Session:
        """A session on a platform; the open one, if it differs in variables that vLLM reads again.

        Those are AITER's, which it keeps from its import. Starting anew takes seconds, so that
        another session on the machine starts with those of the one before too, and reads its own
        again: its worker can then see that the same import serves both.
        """
        session = self._session
        if session is None or not session.alive:
            return self.open(platform)
        if started_as(session.platform) != started_as(platform):
            if not self._same_machine(session.platform, platform):
                return self.open(platform)
            kept = {n: v for n, v in self._started_on.env if n.startswith(READ_AGAIN)}
            session = self.open(started_as(platform).with_env(kept))
        if session.platform != platform:
            try:
                session.reread(platform)
            except InfrastructureError:
                return self.open(platform)
        return session

    def _same_machine(self, one: Platform, other: Platform) -> bool:
        return (one.target, one.aiter) == (other.target, other.aiter)

    def _anywhere(self) -> WorkerSession:
        """A session that only says what the subject is: simulated, so any machine can open it."""
        return self._started(Platform.make("gfx942"), "always")

    def _started(self, platform: Platform, simulate: str) -> WorkerSession:
        self._end_session()
        if self._worker is None or not self._worker.alive:
            self._drop_worker()
            self._worker = Worker(self._command, self._env, self._options.timeout)
        backends = sorted(load_edition(self._options.edition_or_default).backends)
        worker = self._worker
        answer = start(worker, platform, simulate, backends)
        self._session = WorkerSession(worker, self._info(answer), platform)
        self._started_on = platform
        return self._session

    def call(self, op: Op, **payload: object) -> Any:
        """Sends one message to the open session's worker; see :meth:`Worker.call`."""
        if self._worker is None:
            raise InfrastructureError(f"{self.spec}: no session is open")
        return self._worker.call(op, **payload)

    def source_tree(self) -> Path | None:
        """The release's source distribution, or the checkout that an editable install runs from."""
        if self._source_tree is not None:
            self._tree = self._tree or self._source_tree()
            return self._tree
        session = self._session or self._anywhere()
        root = session.info.root
        checkout = root.parent if root else None
        return checkout if checkout and (checkout / "pyproject.toml").is_file() else None

    def close(self) -> None:
        self._session = None
        self._drop_worker()

    def _info(self, answer: StartAnswer) -> SubjectInfo:
        try:
            root = answer.get("root")
            return SubjectInfo(
                name=str(answer["subject"]),
                version=self._release or str(answer["version"]),
                simulated=bool(answer["simulated"]),
                root=Path(root) if root else None,
                fields=tuple(answer.get("fields", ())),
            )
        except KeyError as error:
            raise InfrastructureError(f"{self.spec}: the start answer lacks {error}") from None

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except InfrastructureError:
                self._drop_worker()

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def compiled_in(folder: Path) -> Path:
    """Where the compiled Python of a folder's modules is kept."""
    return compiled_python() / folder.absolute().relative_to("/")


def _environment() -> dict[str, str]:
    """This process's environment, with compiled Python kept apart.

    A session imports some two hundred modules: compiling them anew takes longer than all the
    rest. The subject's own folders are not written to.
    """
    kept = {k: v for k, v in os.environ.items() if k != _COMPILES_ANEW}
    return {**kept, _COMPILED_IN: str(compiled_python())}


@contextlib.contextmanager
def compiled_kept() -> Iterator[None]:
    """Gives the processes that the block starts such an environment too."""
    before = {name: os.environ.get(name) for name in (_COMPILES_ANEW, _COMPILED_IN)}
    os.environ.pop(_COMPILES_ANEW, None)
    os.environ[_COMPILED_IN] = str(compiled_python())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def vllm_worker(python: Path | None = None) -> list[str]:
    """The command of the worker that drives a vLLM, in a given Python."""
    return worker_command(python or Path(sys.executable), "vllm")


def worker_command(python: Path, library: str) -> list[str]:
    """The command of the worker that drives a library, in a given Python."""
    return [str(python), str(WORKER), *([library] if library != "vllm" else [])]
