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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

from conformance.errors import InfrastructureError
from conformance.mutation.baseline import side_by_side
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
# The table of instructions, and the arithmetic that it is made of: what an instruction means is
# said there and nowhere else, and native code is made from it too.
TABLE = ("instructions/*.py", "numbers.py", "elementary.py", "mode.py")
TESTS = ("tests/emulator",)
# Seconds: for a file of tests on the right code; for a set of tests on edited code so many times as
# long as on the right one, and at least so many.
FILE_SECONDS = 600.0
TIMES, LEAST_SECONDS = 10.0, 60.0
# So many tests are tried before all others.
MOST_LIKELY = 100
# For processes that tests start: they mark their lines too, and nobody asks.
NO_LINES = "files: dict[str, set[int]] = {}\n"
# The words of a table's entries, which tests have in their names.
_ENTRY = re.compile(r"\[([^]]*)\]")


def edited_files() -> Iterator[str]:
    """The files of the emulator's table, from the checkout's folder on."""
    for pattern in TABLE:
        for path in sorted((CHECKOUT / EMULATOR).glob(pattern)):
            yield path.relative_to(CHECKOUT).as_posix()


def test_files() -> list[str]:
    """The files of the tests that judge, the longest first, from the checkout's folder on."""
    paths = [path for tests in TESTS for path in (CHECKOUT / tests).rglob("test_*.py")]
    paths.sort(key=lambda path: -path.stat().st_size)
    return [path.relative_to(CHECKOUT).as_posix() for path in paths]


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

    def run(
        self, tests: Sequence[str], *, seconds: float, file: str = "", first: bool = True
    ) -> dict[str, Any]:
        """Runs tests, or all of a file; the answer is described in :mod:`.pytest_server`.

        Raises:
            InfrastructureError: the process died.
        """
        order = {"tests": list(tests), "files": [file], "seconds": seconds, "first": first}
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
    """The emulator's table of instructions, by its own tests."""

    name = "emulator"
    says = "the emulator's table: what each instruction does, and the arithmetic that it is made of"

    def __init__(self, say: Say, kept: Path | None = None) -> None:
        self._say = say
        self._kept = kept
        self._scratch = Path(tempfile.mkdtemp(prefix="rocm-mutants-"))
        self._ran: dict[str, dict[str, Any]] = {}
        # By file, the lines of functions that ran when it was imported: they make what tests use.
        self._imported: dict[str, set[int]] = {}

    def mutants(self) -> list[Mutant]:
        return [
            mutant
            for file in edited_files()
            for mutant in mutants_of(self.name, file, (CHECKOUT / file).read_text(encoding="utf-8"))
        ]

    def prepare(self, workers: int) -> None:
        """Runs every test on the right code, and notes its lines; goes on with what it kept.

        Raises:
            InfrastructureError: no test passes.
        """
        files = test_files()
        if self._kept is not None and self._kept.is_file():
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
            self._ran = kept["ran"]
            self._imported = {file: set(lines) for file, lines in kept["imported"].items()}
            known = {name.partition("::")[0] for name in self._ran}
            files = [file for file in files if file not in known]
        if files:
            self._say(f"emulator: running {len(files)} files of its tests on the right code")
            begin = partial(_begin, self._scratch)
            for told in side_by_side(begin, _ask, files, workers):
                self._note(told)
        if not self._ran:
            raise InfrastructureError("no test of the emulator passes as it is")

    def _note(self, told: dict[str, Any]) -> None:
        """Keeps what passed: what fails on right code shows nothing."""
        if wrong := told["broken"] or told["failed"]:
            self._say(f"left out, for right code fails it: {wrong} {told['message'][-120:]}")
        passed = {name: ran for name, ran in told["ran"].items() if name not in told["failing"]}
        self._ran |= passed
        for file, lines in told["imported"].items():
            self._imported.setdefault(file, set()).update(lines)
        if self._kept is not None:
            imported = {file: sorted(lines) for file, lines in self._imported.items()}
            kept = json.dumps({"ran": self._ran, "imported": imported})
            self._kept.write_text(kept, encoding="utf-8")

    def judge(self) -> Judge:
        return TestJudge(Server(self._scratch), self._ran, self._imported)

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


# In a process that runs the right code: what does.
_RIGHT: list[Server] = []


def _begin(scratch: Path) -> None:
    _RIGHT.append(Server(scratch))


def _ask(file: str) -> dict[str, Any]:
    return _RIGHT[0].run([], seconds=FILE_SECONDS, file=file, first=False)


class TestJudge:
    """Runs the tests that run a mutant's lines, the likeliest first, until one fails."""

    __test__ = False  # for pytest, which would take it for a test

    def __init__(
        self,
        server: Server,
        ran: dict[str, dict[str, Any]],
        imported: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._ran = ran
        self._imported = imported
        self._asked: Counter[str] = Counter()
        self._caught: Counter[str] = Counter()

    def judge(self, mutant: Mutant) -> Verdict:
        began = monotonic()
        source = (CHECKOUT / mutant.file).read_text(encoding="utf-8")
        self._server.edit(mutant.file, edited(mutant, source))
        asked = 0
        for tests in self._sets(mutant):
            right = sum(self._ran[name]["seconds"] for name in tests)
            told = self._server.run(tests, seconds=max(LEAST_SECONDS, TIMES * right))
            asked += len(told["ran"])
            self._asked.update([*told["ran"]])
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
        """Tests to run, in sets: those that are likely to fail, the rest of those that run the
        mutant's lines or, of what runs at import, other lines of its file; and for the latter
        those that may use what the file defines."""
        words = [word for entry in _ENTRY.findall(mutant.function) for word in entry.split()]
        names = {name for name in self._ran if self._reaches(name, mutant)}
        may = {*self._ran} if self._is_at_import(mutant) else names
        named = {name for name in may if any(word in name for word in words)}
        likely = named or {name for name in names if self._caught[name]}
        first = sorted(likely, key=self._cost)[:MOST_LIKELY]
        sets = [first, *(sorted(left, key=self._cost) for left in (names - {*first}, may - names))]
        sets[2] = [name for name in sets[2] if name not in first]
        return [tests for tests in sets if tests]

    def _cost(self, name: str) -> float:
        """How many seconds of a test it takes to catch one mutant, by what it caught so far."""
        seconds = float(self._ran[name]["seconds"])
        return seconds * (self._asked[name] + 2) / (self._caught[name] + 1)

    def _is_at_import(self, mutant: Mutant) -> bool:
        """Whether what is edited runs before any test does, and makes what tests use."""
        lines = self._imported.get(mutant.file, ())
        return mutant.span == AT_IMPORT or mutant.span[0] in lines

    def _reaches(self, name: str, mutant: Mutant) -> bool:
        """Whether a test runs the mutant's lines, or may: tests that start processes do."""
        ran = self._ran[name]
        lines = ran["lines"].get(mutant.file, ())
        return ran["starts"] or (
            bool(lines) if self._is_at_import(mutant) else mutant.span[0] in lines
        )
