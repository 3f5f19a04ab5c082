"""Mutants of the suite's own code, judged by its own tests: the emulator of AMD machine code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from conformance.errors import InfrastructureError
from conformance.mutation.mutant import AT_IMPORT, Mutant, edited
from conformance.mutation.probes import with_probes
from conformance.mutation.sites import mutants_of
from conformance.mutation.verdict import Fate, Judge, Verdict
from conformance.mutation.workspace import Workspace
from conformance.worker.contract import LINES_MODULE

Say = Callable[[str], None]
CHECKOUT = Path(__file__).parents[2]
COPIED = ("conformance", "kernels", "vllm_editions", "tests", "pyproject.toml")
SERVER = Path(__file__).with_name("pytest_server.py")
EMULATOR = "conformance/devices/isa"
# Native code must equal what is interpreted: both are made from one table, which is what is edited.
NATIVE = f"{EMULATOR}/native"
TESTS = ("tests/emulator",)
# Seconds: for all tests on the right code, and for one set of them on an edited one.
ALL_SECONDS, SET_SECONDS = 600.0, 120.0
# For processes that tests start: they mark their lines too, and nobody asks.
NO_LINES = "files: dict[str, set[int]] = {}\n"
# The words of a table's entries, which tests have in their names.
_ENTRY = re.compile(r"\[([^]]*)\]")


def edited_files() -> Iterator[str]:
    """The emulator's files, from the checkout's folder on."""
    for path in sorted((CHECKOUT / EMULATOR).rglob("*.py")):
        file = path.relative_to(CHECKOUT).as_posix()
        if not file.startswith(NATIVE):
            yield file


class Server:
    """A warm process that runs tests of a copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="checkout-", dir=folder))
        self.spaces = {
            name: Workspace(CHECKOUT / name, self._folder / name)
            for name in COPIED
            if (CHECKOUT / name).is_dir()
        }
        shutil.copy2(CHECKOUT / "pyproject.toml", self._folder)
        (self._folder / f"{LINES_MODULE}.py").write_text(NO_LINES, encoding="utf-8")
        for file in edited_files():
            space, rest = self._space(file)
            space.replace(rest, with_probes(file, space.source(rest)))
        paths = (self._folder, self._folder / "kernels")
        env = {**os.environ, "PYTHONPATH": ":".join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            cwd=self._folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def edit(self, file: str, text: str) -> None:
        """Gives a file of the checkout another text."""
        space, rest = self._space(file)
        space.edit(rest, with_probes(file, text))

    def _space(self, file: str) -> tuple[Workspace, str]:
        top, _, rest = file.partition("/")
        return self.spaces[top], rest

    def run(self, tests: Sequence[str], *, seconds: float, first: bool = True) -> dict[str, Any]:
        """Runs tests; the answer is described in :mod:`.pytest_server`.

        Raises:
            InfrastructureError: the process died.
        """
        order = {
            "tests": list(tests),
            "files": list(TESTS),
            "seconds": seconds,
            "first": first,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            told: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise InfrastructureError("the process that runs tests died") from error
        return told

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class EmulatorPart:
    """The emulator's instructions, by its own tests."""

    name = "emulator"
    says = "the emulator's instructions and what they are made of"

    def __init__(self, say: Say, kept: Path | None = None) -> None:
        self._say = say
        self._kept = kept
        self._scratch = Path(tempfile.mkdtemp(prefix="rocm-mutants-"))
        self._ran: dict[str, dict[str, Any]] = {}

    def mutants(self) -> list[Mutant]:
        return [
            mutant
            for file in edited_files()
            for mutant in mutants_of(self.name, file, (CHECKOUT / file).read_text(encoding="utf-8"))
        ]

    def prepare(self) -> None:
        """Runs every test on the right code, and notes its lines.

        Raises:
            InfrastructureError: a test fails: what fails shows nothing.
        """
        if self._kept is not None and self._kept.is_file():
            self._ran = json.loads(self._kept.read_text(encoding="utf-8"))
            return
        self._say("emulator: running its tests on the right code")
        server = Server(self._scratch)
        try:
            told = server.run([], seconds=ALL_SECONDS, first=False)
        finally:
            server.close()
        if told["broken"] or told["failed"]:
            found = told["broken"] or f"{told['failed']}: {told['message']}"
            raise InfrastructureError(f"the emulator's tests fail as they are: {found}")
        self._ran = told["ran"]
        if self._kept is not None:
            self._kept.write_text(json.dumps(self._ran), encoding="utf-8")

    def judge(self) -> Judge:
        return TestJudge(Server(self._scratch), self._ran)

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


class TestJudge:
    """Runs the tests that run a mutant's lines, the likeliest first, until one fails."""

    __test__ = False  # for pytest, which would take it for a test

    def __init__(self, server: Server, ran: dict[str, dict[str, Any]]) -> None:
        self._server = server
        self._ran = ran
        self._caught: Counter[str] = Counter()

    def judge(self, mutant: Mutant) -> Verdict:
        began = monotonic()
        source = (CHECKOUT / mutant.file).read_text(encoding="utf-8")
        self._server.edit(mutant.file, edited(mutant, source))
        asked = 0
        for tests in self._sets(mutant):
            told = self._server.run(tests, seconds=SET_SECONDS)
            asked += len(told["ran"])
            took = round(monotonic() - began, 3)
            if told["broken"]:
                return Verdict(Fate.TIMEOUT, message=told["broken"], asked=asked, seconds=took)
            if told["failed"]:
                self._caught[told["failed"]] += 1
                fate = Fate.RAISED if told["failed"].startswith("collecting") else Fate.CAUGHT
                said = told["message"].strip()[-200:]
                return Verdict(fate, "", told["failed"], said, asked, seconds=took)
        fate = Fate.SURVIVED if asked else Fate.NOT_REACHED
        return Verdict(fate, asked=asked, seconds=round(monotonic() - began, 3))

    def close(self) -> None:
        self._server.close()

    def _sets(self, mutant: Mutant) -> list[list[str]]:
        """Tests to run, in two sets: those that are likely to fail, and the rest."""
        names = [name for name in self._ran if self._reaches(name, mutant)]
        words = [word for entry in _ENTRY.findall(mutant.function) for word in entry.split()]
        likely = [n for n in names if self._caught[n] or any(word in n for word in words)]
        likely.sort(key=lambda name: (-self._caught[name], self._ran[name]["seconds"]))
        likely = likely[:100]
        others = sorted(set(names) - set(likely), key=lambda name: self._ran[name]["seconds"])
        return [tests for tests in (likely, others) if tests]

    def _reaches(self, name: str, mutant: Mutant) -> bool:
        """Whether a test runs the mutant's lines, or may: tests that start processes do."""
        lines = self._ran[name]["lines"]
        if mutant.span == AT_IMPORT or not lines:
            return True
        return mutant.span[0] in lines.get(mutant.file, ())
