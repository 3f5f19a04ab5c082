"""Mutants of kernels, judged by the parity suite's problems in Triton's interpreter."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.mutation.baseline import Baseline, Lines, Ran, side_by_side
from conformance.mutation.equivalents import equivalents, reason_of
from conformance.mutation.kernel_sources import Source, is_triton
from conformance.mutation.known_faults import KnownFaults
from conformance.mutation.mutant import AT_IMPORT, Mutant, edited
from conformance.mutation.probes import with_probes
from conformance.mutation.sites import mutants_of
from conformance.mutation.verdict import Fate, Verdict
from conformance.mutation.workspace import Workspace
from conformance.runners.preparation import settle_all
from conformance.subjects.workers import compiled_in
from conformance.suites.case import Context, Nonconformance, Unsupported
from conformance.suites.parity import test_parity
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.harness import KernelWorkers, run_problem
from conformance.worker.contract import LINES_TO

Say = Callable[[str], None]

# For one answer of right kernels, which take a few seconds, and much longer on a machine that is
# busy; of edited ones so many times as long as the right ones took, and at least so many seconds.
ANSWER_SECONDS = 300.0
TIMES, LEAST_SECONDS = 10.0, 30.0
# In a case's name what comes before its heads and sizes: the kind of problem that it is.
_FAMILY = re.compile(r"^.*?\[.*?(?=-h\d)")


class Runner:
    """Runs cases on a copy of the kernels, in this process and its workers."""

    def __init__(self, source: Source, folder: Path) -> None:
        torch.set_num_threads(1)
        self.source = source
        self._folder = Path(tempfile.mkdtemp(prefix=f"{source.name}-", dir=folder))
        self.workspace = Workspace(source.folder, self._folder / source.folder.name)
        spec, env = source.made(self.workspace.folder)
        self._lines = self._folder / "lines.json"
        self._lines.write_text("{}", encoding="utf-8")
        env = {**env, LINES_TO: str(self._lines)}
        for file in source.files():
            self.workspace.replace(file, self._marked(file, self.workspace.source(file)))
        config = RunConfig(
            subjects=(spec,), cells=("*",), device="interpreter", timeout=ANSWER_SECONDS
        )
        self._config = settle_all(config, lambda _text: None)
        self.context = Context(self._config)
        self.workers = KernelWorkers(self.context, env)
        self._known = KnownFaults()

    def cases(self, tier: str) -> list[ParityCase]:
        """The cases of the subject that have a problem to run, of each of the source's editions."""
        found: dict[str, ParityCase] = {}
        for edition in self.source.editions or (self._config.edition,):
            config = replace(self._config, tier=tier, edition=edition)
            for case in test_parity.cases(Context(config, subjects=self.context.subjects)):
                if case.problem is not None:
                    found.setdefault(case.name, case)
        return [*found.values()]

    def run(self, case: ParityCase, seconds: float = ANSWER_SECONDS) -> str:
        """Runs a case, which may take ``seconds`` to answer; what is wrong with it, or "".

        What a waiver accepts of the subject is not wrong.

        Raises:
            Unsupported: the subject does not take the problem.
            InfrastructureError: the worker died or hung.
        """
        assert case.problem is not None
        self.workers.allow(case, seconds)
        try:
            run_problem(case, case.problem, self.context, self.workers)
        except Nonconformance as error:
            return "" if self._known.accept(case, error, self.context) else str(error)
        return ""

    def lines(self) -> Lines:
        """The lines that the last case ran."""
        told = json.loads(self._lines.read_text(encoding="utf-8"))
        return {file: set(numbers) for file, numbers in told.items()}

    def edit(self, file: str, text: str) -> None:
        """Goes on with another text of a file.

        Raises:
            InfrastructureError: the subject cannot be imported with it.
        """
        self.workspace.edit(file, self._marked(file, text))
        self.workers.restart()

    def _marked(self, file: str, text: str) -> str:
        return with_probes(file, text, is_triton if self.source.triton_only else None)

    def restore(self) -> None:
        """Goes on with the right kernels."""
        self.workspace.restore()
        self.workers.restart()

    def close(self) -> None:
        self.workers.close()
        self.context.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def baseline_of(
    names: Sequence[str], ran: Callable[[Sequence[str]], Iterator[Ran]], say: Say, kept: Path
) -> Baseline:
    """What the right kernels do with the cases of these names; goes on with what ``kept`` holds.

    ``ran`` runs those that are left.
    """
    baseline = Baseline.kept_in(kept)
    left = [name for name in names if name not in baseline.known]
    if left:
        say(f"running {len(left)} problems on the right kernels")
        for one in ran(left):
            one.note(baseline, say)
            kept.write_text(baseline.dumps(), encoding="utf-8")
    return baseline


def run_right(case: ParityCase, runner: Runner) -> Ran:
    """A case on the right kernels."""
    began = time.monotonic()
    try:
        wrong = runner.run(case)
    except Unsupported as error:
        return Ran(case.name, wrong=str(error), says=False)
    except InfrastructureError as error:
        wrong = str(error)
    if wrong:
        return Ran(case.name, wrong=wrong)
    return Ran(case.name, time.monotonic() - began, runner.lines())


# In a process that runs right kernels: its runner, and the cases by name.
_RIGHT: list[tuple[Runner, dict[str, ParityCase]]] = []


def _begin(source: Source, scratch: Path) -> None:
    runner = Runner(source, scratch)
    _RIGHT.append((runner, {case.name: case for case in runner.cases("quick")}))


def _ask(name: str) -> Ran:
    runner, cases = _RIGHT[0]
    return run_right(cases[name], runner)


class KernelJudge:
    """Asks the cases that run a mutant's lines, the likeliest for their time first, until one
    fails."""

    def __init__(self, runner: Runner, baseline: Baseline, standard_seconds: float) -> None:
        self._runner = runner
        self._baseline = baseline
        self._standard_seconds = standard_seconds
        self._quick = {case.name: case for case in runner.cases("quick")}
        self._standard = {
            case.name: case for case in (runner.cases("standard") if standard_seconds else [])
        }
        # What was learnt on the way: how often a case was asked and caught something; of the
        # standard tier what lines one runs, how long it takes, which the right kernels fail.
        self._asked: Counter[str] = Counter()
        self._caught: Counter[str] = Counter()
        self._lines: dict[str, Lines] = dict(baseline.lines)
        self._seconds: dict[str, float] = dict(baseline.seconds)
        self._unfit: set[str] = set(baseline.unfit)
        self._fit: set[str] = set(baseline.lines)

    def judge(self, mutant: Mutant) -> Verdict:
        began = time.monotonic()
        verdict = self._judge(mutant)
        return replace(verdict, seconds=round(time.monotonic() - began, 3))

    def close(self) -> None:
        self._runner.close()

    def _judge(self, mutant: Mutant) -> Verdict:
        text = edited(mutant, self._runner.workspace.source(mutant.file))
        try:
            self._runner.edit(mutant.file, text)
        except InfrastructureError as error:
            return Verdict(Fate.RAISED, "quick", "import", str(error)[:200])
        quick = self._reaching(mutant)
        verdict = self._ask(quick, mutant, "quick", float("inf"))
        if verdict.fate is Fate.SURVIVED and reason_of(mutant, equivalents(), reached=bool(quick)):
            return verdict if quick else Verdict(Fate.NOT_REACHED)
        if verdict.fate is not Fate.SURVIVED or not self._standard_seconds:
            return verdict if quick else Verdict(Fate.NOT_REACHED)
        return self._by_standard(mutant, quick, verdict)

    def _by_standard(self, mutant: Mutant, reaching: Sequence[str], quick: Verdict) -> Verdict:
        """What the standard tier says, in its time; a third of it where quick has nothing that
        runs the code: then the standard tier seldom has."""
        names = self._standard_order(mutant, reaching)
        seconds = self._standard_seconds if reaching else self._standard_seconds / 3
        verdict = self._ask(names, mutant, "standard", seconds)
        asked = quick.asked + verdict.asked
        if verdict.fate in (Fate.SURVIVED, Fate.UNDECIDED) and not asked:
            return replace(verdict, fate=Fate.NOT_REACHED)
        return replace(verdict, asked=asked)

    def _reaching(self, mutant: Mutant) -> list[str]:
        """The quick cases that run the mutant's lines, in the order of :meth:`_cost`."""
        names = [name for name in self._baseline.lines if self._reaches(name, mutant) is not False]
        return sorted(names, key=self._cost)

    def _cost(self, name: str) -> float:
        """How many seconds of a case it takes to catch one mutant, by what it caught so far."""
        return self._seconds[name] * (self._asked[name] + 2) / (self._caught[name] + 1)

    def _reaches(self, name: str, mutant: Mutant) -> bool | None:
        """Whether a case runs the mutant's lines; None: not known."""
        if name not in self._lines:
            return None
        lines = self._lines[name].get(mutant.file, set())
        if mutant.span == AT_IMPORT:
            return bool(lines)
        return mutant.span[0] in lines

    def _standard_order(self, mutant: Mutant, reaching: Sequence[str]) -> list[str]:
        """Those that may run the lines, of backends of which quick cases do (or at least use the
        file): one of each kind that is known to run them, then of the others, then a second."""
        near = {self._quick[name].backend for name in reaching} or {
            case.backend for name, case in self._quick.items() if self._uses(name, mutant.file)
        }
        names = [
            name
            for name, case in self._standard.items()
            if (not near or case.backend in near)
            and name not in self._unfit
            and self._reaches(name, mutant) is not False
        ]
        random.Random(mutant.id).shuffle(names)
        reach = {_family(name) for name in self._lines if self._reaches(name, mutant)}
        number_in: Counter[str] = Counter()
        place: dict[str, tuple[int, bool]] = {}
        for name in sorted(names, key=lambda name: not self._reaches(name, mutant)):
            family = _family(name)
            place[name] = number_in[family], family not in reach
            number_in[family] += 1
        return sorted(names, key=place.__getitem__)

    def _uses(self, name: str, file: str) -> bool:
        return file in self._lines.get(name, {})

    def _ask(self, names: Sequence[str], mutant: Mutant, tier: str, seconds: float) -> Verdict:
        cases = self._quick if tier == "quick" else self._standard
        until = time.monotonic() + seconds
        asked = 0
        for name in names:
            if time.monotonic() > until:
                return Verdict(Fate.UNDECIDED, asked=asked)
            self._asked[name] += 1
            fate, message = self._fails(cases[name])
            if fate is None:
                asked += bool(self._reaches(name, mutant))
            elif fate is Fate.TIMEOUT and not self._is_fit(cases[name], mutant, anew=True):
                return Verdict(Fate.ERRORED, message=f"right kernels take as long: {message}"[:200])
            elif self._is_fit(cases[name], mutant):
                self._caught[name] += 1
                return Verdict(fate, tier, name, message[:200], asked + 1)
        return Verdict(Fate.SURVIVED, asked=asked)

    def _fails(self, case: ParityCase) -> tuple[Fate | None, str]:
        """How a case ends badly; None: it does not."""
        took = self._seconds.get(case.name)
        most = ANSWER_SECONDS if took is None else max(LEAST_SECONDS, TIMES * took)
        began = time.monotonic()
        try:
            wrong = self._runner.run(case, most)
        except Unsupported:
            return None, ""
        except InfrastructureError as error:
            return Fate.TIMEOUT, str(error)
        self._lines.setdefault(case.name, self._runner.lines())
        self._seconds.setdefault(case.name, time.monotonic() - began)
        raised = "refused a problem that it admits" in wrong
        return (Fate.RAISED if raised else Fate.CAUGHT) if wrong else None, wrong

    def _is_fit(self, case: ParityCase, mutant: Mutant, *, anew: bool = False) -> bool:
        """Whether the right kernels pass a case: what they fail shows nothing.

        ``anew``: they are asked though they passed it before, for the machine may be busy now.
        """
        if case.name in self._fit and not anew:
            return True
        self._runner.restore()
        fate, _ = self._fails(case)
        if fate is None:
            self._fit.add(case.name)
            return True
        if not anew:
            self._unfit.add(case.name)
        text = edited(mutant, self._runner.workspace.source(mutant.file))
        self._runner.edit(mutant.file, text)
        return False


def _family(name: str) -> str:
    """The kind of problem that a case is about, with its backend."""
    found = _FAMILY.match(name)
    return found.group() if found else name


class KernelPart:
    """Mutants of one source of kernels. ``standard_seconds``: for a survivor of the quick tier."""

    def __init__(self, source: Source, standard_seconds: float, say: Say, kept: Path) -> None:
        self.name = source.name
        self.says = source.says
        self._source = source
        self._standard_seconds = standard_seconds
        self._say = say
        self._kept = kept
        self._scratch = Path(tempfile.mkdtemp(prefix="rocm-mutants-"))
        self._baseline = Baseline()

    def mutants(self) -> list[Mutant]:
        keep = is_triton if self._source.triton_only else None
        return [
            mutant
            for file in self._source.files()
            for mutant in mutants_of(
                self.name,
                file,
                (self._source.folder / file).read_text(encoding="utf-8"),
                keep,
            )
        ]

    def prepare(self, workers: int) -> None:
        runner = Runner(self._source, self._scratch)
        names = [case.name for case in runner.cases("quick")]
        runner.close()
        begin = partial(_begin, self._source, self._scratch)
        self._baseline = baseline_of(
            names,
            lambda left: side_by_side(begin, _ask, left, workers),
            lambda text: self._say(f"{self.name}: {text}"),
            self._kept,
        )

    def judge(self) -> KernelJudge:
        runner = Runner(self._source, self._scratch)
        return KernelJudge(runner, self._baseline, self._standard_seconds)

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.rmtree(compiled_in(self._scratch), ignore_errors=True)
