"""Mutants of selectors and editions: builds that select wrongly, judged by the selection suite."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from conformance.matrix.requests import Platform
from conformance.mutation.edition_changes import Change, changes
from conformance.mutation.limit import OutOfTimeError, limited
from conformance.mutation.mutant import Mutant, edited, numbered
from conformance.mutation.sites import mutants_of
from conformance.mutation.verdict import Fate, Judge, Verdict
from conformance.mutation.wrong_builds import Build, failures
from conformance.subjects.reference import edition_table
from rocm_reference import selector
from vllm_editions import Edition, editions

# As many questions as `run --quick` asks, in every cell.
SWEEP, EXAMPLES, CELLS = 2_000, 15, ("*",)
# Of the processor, for one build: a right one takes a tenth of that.
SECONDS = 300.0
# The selector's code is judged under the first edition and the newest.
JUDGED_UNDER = (editions()[0], editions()[-1])
SELECTOR = Path(selector.__file__)


def release_of(edition: str) -> str:
    """A release of a series."""
    return f"{edition}.0"


class EditionPart:
    """One cell of an edition's table changed, in every edition: a build that obeys that table."""

    name = "editions"
    says = "one cell of an edition's table, or the order of two candidates; the selector obeys it"

    def mutants(self) -> list[Mutant]:
        return list(numbered(self._mutants()))

    def prepare(self, workers: int) -> None:
        pass

    def judge(self) -> Judge:
        return SelectionJudge(self.builds)

    def close(self) -> None:
        pass

    def _mutants(self) -> Iterator[Mutant]:
        for name in editions():
            for change in changes(edition_table(name, release_of(name))):
                yield Mutant(self.name, f"{name}.toml", change.cell, change.kind, "", change.name)

    def builds(self, mutant: Mutant) -> Iterator[tuple[str, Build]]:
        name = mutant.file.removesuffix(".toml")
        right = edition_table(name, release_of(name))
        wrong = with_change(right, next(c for c in changes(right) if c.name == mutant.after))
        yield name, _build(mutant, name, partial(_selector_on, selector.Selector, wrong))


class SelectorPart:
    """The reference's selector with one edit of its code, under two editions."""

    name = "selector"
    says = "one edit of the reference selector's code"

    def mutants(self) -> list[Mutant]:
        return mutants_of(self.name, SELECTOR.name, SELECTOR.read_text(encoding="utf-8"))

    def prepare(self, workers: int) -> None:
        pass

    def judge(self) -> Judge:
        return SelectionJudge(self.builds)

    def close(self) -> None:
        pass

    @staticmethod
    def builds(mutant: Mutant) -> Iterator[tuple[str, Build]]:
        text = edited(mutant, SELECTOR.read_text(encoding="utf-8"))
        module = types.ModuleType(selector.__name__)
        module.__dict__["__file__"] = str(SELECTOR)
        exec(compile(text, str(SELECTOR), "exec"), module.__dict__)
        for name in JUDGED_UNDER:
            table = edition_table(name, release_of(name))
            yield (
                name,
                _build(mutant, name, partial(_selector_on, module.__dict__["Selector"], table)),
            )


def with_change(edition: Edition, change: Change) -> Edition:
    """A copy of an edition with one cell changed."""
    table = deepcopy(edition.model_dump())
    change.apply(table)
    return Edition.model_validate(table)


def _selector_on(make: Callable[..., Any], edition: Edition, platform: Platform) -> Any:
    return make(
        edition,
        platform.target,
        aiter=platform.aiter,
        flash_attn=platform.flash_attn,
        env=platform.variables,
    )


def _build(mutant: Mutant, edition: str, selector_on: Callable[[Platform], Any]) -> Build:
    return Build(f"worker:{mutant.id} under {edition}", release_of(edition), selector_on)


class SelectionJudge:
    """Asks the selection suite about the builds that a mutant makes, until a case fails."""

    def __init__(
        self,
        builds: Callable[[Mutant], Iterator[tuple[str, Build]]],
        cells: Sequence[str] = CELLS,
        sweep: int = SWEEP,
        seconds: float = SECONDS,
    ) -> None:
        self._builds_of = builds
        self._cells = tuple(cells)
        self._sweep = sweep
        self._seconds = seconds

    def judge(self, mutant: Mutant) -> Verdict:
        began = monotonic()
        try:
            with limited(self._seconds):
                verdict = self._judge(mutant)
        except OutOfTimeError:
            verdict = Verdict(Fate.TIMEOUT)
        return Verdict(
            verdict.fate,
            "quick",
            verdict.by,
            verdict.message,
            seconds=round(monotonic() - began, 3),
        )

    def _judge(self, mutant: Mutant) -> Verdict:
        try:
            for edition, build in self._builds_of(mutant):
                found = failures(build, edition, self._cells, sweep=self._sweep, examples=EXAMPLES)
                for case, error in found:
                    return Verdict(Fate.CAUGHT, by=case.name, message=str(error)[:200])
        except Exception as error:  # a selector that stops with an error answers nothing
            return Verdict(Fate.RAISED, message=f"{type(error).__name__}: {error}"[:200])
        return Verdict(Fate.SURVIVED)

    def close(self) -> None:
        pass
