"""``--shrink``: the smallest problem with the same finding, for each finding of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.problems.admission import refusals
from conformance.problems.families import problems_for
from conformance.problems.files import as_text
from conformance.problems.problem import Problem
from conformance.problems.shrinking import Shrunk, shrink
from conformance.requirements import parity_backends
from conformance.results import SMALLEST, CaseResult, Identity, Outcome
from conformance.results.folder import SHRUNK
from conformance.suites.case import Context, Nonconformance, Unsupported
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.harness import KernelWorkers, run_problem
from conformance.suites.parity.options import is_restricted, own_problems

NOT_WHOLE = "the time was up: a smaller problem may have the same finding"
Say = Callable[[str], None]
# What makes two failures the same: the requirement, and what each of their findings is.
Seen = tuple[str, frozenset[Identity]]


def shrunk_cases(
    config: RunConfig, cases: Sequence[CaseResult], folder: Path, say: Say
) -> Iterator[CaseResult]:
    """A case for each distinct finding of a run, of the smallest problem that has it.

    The problem is written into ``folder`` too. Of waived findings only those of problems that were
    named: which these are, is known. The cheapest problem of each finding is the first to be
    shrunk, and cheap ones come before others.
    """
    context = Context(config)
    found = list(_origins(context, cases))
    if not found:
        say("--shrink: no finding of a problem to shrink")
        return
    with closing(KernelWorkers(context)) as workers:
        for number, (origin, case, problem) in enumerate(found, 1):
            say(f"--shrink: {number} of {len(found)}: {origin.name}")
            shrinker = _Shrinker(context, workers, case, origin, say)
            yield shrinker.ended(problem, folder)
    context.close()


def _origins(
    context: Context, cases: Sequence[CaseResult]
) -> Iterator[tuple[CaseResult, ParityCase, Problem]]:
    """The cheapest problem of each finding, as a result and as the case that was asked."""
    outcomes = [Outcome.FAILED]
    outcomes += [Outcome.WAIVED] if is_restricted(context.config) else []
    known: dict[tuple[str, str, str], tuple[str, Problem]] = {}
    ended: list[tuple[float, CaseResult, Problem, str]] = []
    for case in cases:
        if case.suite != "parity" or case.outcome not in outcomes or not case.identities:
            continue
        if not known:
            known = _problems(context)
        place = known.get((case.subject, case.backend, case.name.partition("[")[2][:-1]))
        if place:
            ended.append((place[1].cost, case, place[1], place[0]))
    seen: set[tuple[str, str, Seen]] = set()
    for _, case, problem, file in sorted(ended, key=lambda each: (each[0], each[1].name)):
        key = (case.subject, case.backend, (case.requirement, frozenset(case.identities)))
        if key not in seen:
            seen.add(key)
            yield case, _asked(context, case, problem, file), problem


def _problems(context: Context) -> dict[tuple[str, str, str], tuple[str, Problem]]:
    """The run's problems by subject, backend and id, each with the file it is from."""
    config = context.config
    found: dict[tuple[str, str, str], tuple[str, Problem]] = {}
    for subject in config.subjects:
        edition = context.edition(subject)
        for backend in parity_backends(edition).values():
            made = problems_for(backend, config.tier, config.seed, edition)
            found |= {(subject, backend, each.id): ("", each) for each in made}
        for own in own_problems(config):
            problem = own.problem
            found[subject, problem.backend, problem.id] = (own.file, problem)
    return found


def _asked(context: Context, case: CaseResult, problem: Problem, file: str) -> ParityCase:
    platform = next(iter(context.platforms))
    own = next(
        name
        for name, backend in parity_backends(context.edition(case.subject)).items()
        if backend == case.backend
    )
    return ParityCase(
        *("parity", "parity", case.subject, own, platform, case.cells, platform),
        problem=problem,
        backend=case.backend,
        device=context.config.device,
        target=case.target,
        file=file,
    )


class _Shrinker:
    """Shrinks the problem of one result."""

    def __init__(
        self,
        context: Context,
        workers: KernelWorkers,
        case: ParityCase,
        origin: CaseResult,
        say: Say,
    ) -> None:
        self._context, self._workers, self._case = context, workers, case
        self._origin, self._say = origin, say
        self._edition = context.edition(case.subject)
        self._wanted: Seen = (origin.requirement, frozenset(origin.identities))
        self._last: Nonconformance | None = None

    def ended(self, problem: Problem, folder: Path) -> CaseResult:
        """The result of the smallest problem, which is in a file then."""
        limit = float(self._context.config.suite_options.get("shrink_seconds") or 0)
        found = shrink(problem, self._holds, seconds=limit, on_step=self._tell)
        smallest = replace(found.problem, id=f"{problem.id}-{SMALLEST}", tags=())
        path = folder / SHRUNK / f"{smallest.id.replace(' ', '-')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(as_text([smallest]), encoding="utf-8")
        self._say(f"--shrink: {problem.id}: {said(problem, found)}: {path}")
        return self._result(smallest, found, path)

    def _holds(self, problem: Problem) -> bool:
        """Whether a problem has the same findings as the result, and no others."""
        if refusals(problem, self._edition):
            return False
        try:
            case = replace(self._case, problem=problem)
            run_problem(case, problem, self._context, self._workers)
        except Nonconformance as error:
            seen = (error.requirement or self._case.requirement, frozenset(error.identities))
            if seen == self._wanted:
                self._last = error
                return True
        except (Unsupported, InfrastructureError):
            pass
        return False

    def _tell(self, problem: Problem, tried: int) -> None:
        self._say(f"--shrink:   {lengths(problem)} ({tried} tried)")

    def _result(self, smallest: Problem, found: Shrunk, path: Path) -> CaseResult:
        origin, error = self._origin, self._last
        shown = json.dumps(smallest.to_json())
        told = [f"smallest problem, of {found.tried} tried: {shown}"]
        told += [] if found.whole else [NOT_WHOLE]
        words = ["rocm-conformance", "run", "--suite", "parity", "--subject", origin.subject]
        words += ["--device", self._context.config.device]
        for name, value in self._context.config.env.items():
            words += ["--env", f"{name}={value}"]
        return replace(
            origin,
            name=f"{origin.requirement} {origin.backend} [{smallest.id}]",
            message=str(error) if error else origin.message,
            findings=error.findings if error else origin.findings,
            identities=error.identities if error else origin.identities,
            detail="\n\n".join(filter(None, (*told, origin.detail))),
            reproduce=shlex.join([*words, "--problem", str(path)]),
            counts={**origin.counts, SMALLEST: 1},
            measures=error.measured.measures if error and error.measured else origin.measures,
        )


def lengths(problem: Problem) -> str:
    """A problem's sizes in a few words."""
    queries = ",".join(map(str, problem.query_lens[:4]))
    keys = ",".join(map(str, problem.seq_lens[:4]))
    more = ",..." if problem.num_sequences > 4 else ""
    return (
        f"queries {queries}{more}, keys {keys}{more}, {problem.num_heads} x "
        f"{problem.num_kv_heads} heads of {problem.head_size}"
    )


def said(before: Problem, found: Shrunk) -> str:
    """What a search came to, in half a sentence."""
    end = "" if found.whole else f"; {NOT_WHOLE}"
    return f"{lengths(before)} came to {lengths(found.problem)}, of {found.tried} tried{end}"
