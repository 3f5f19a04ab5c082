"""Compares two sides on every target, with and without aiter, for every setting of the flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cached_property

from conformance.comparison.causes import Between, Cause, Explainer, Observed, Why
from conformance.comparison.questions import Questions, changed_fields
from conformance.comparison.sides import (
    UNKNOWN_BACKEND,
    UNKNOWN_DTYPE,
    Side,
    Variables,
    Words,
    answers,
    label,
)
from conformance.config import RunConfig
from conformance.matrix.requests import Ask, Platform, Selection
from conformance.matrix.targets import TARGETS
from conformance.requirements import requirements_of
from conformance.requirements.attribution import Rule, facets, requirement_of, rules_on
from conformance.runners.local import Progress
from conformance.subjects.base import Session, Subject

UNATTRIBUTED = "(no requirement)"


@dataclass(frozen=True)
class Scope:
    """Where to ask: no targets are all; without ``aiter`` both; without ``env`` every setting."""

    targets: tuple[str, ...] = ()
    aiter: bool | None = None
    flash_attn: bool = False
    env: tuple[tuple[str, str], ...] | None = None

    def machines(self, variables: Variables) -> list[list[Platform]]:
        """The platforms, those of one target and the same packages together."""
        env = None if self.env is None else dict(self.env)
        found: dict[Platform, list[Platform]] = {}
        for target in self.targets or TARGETS:
            for platform in variables.platforms(target, self.aiter, self.flash_attn, env):
                found.setdefault(replace(platform, env=()), []).append(platform)
        return list(found.values())


@dataclass(frozen=True)
class Example:
    """A question that both sides answer differently, with both answers."""

    platform: Platform
    ask: Ask
    before: Selection
    after: Selection

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Small for what is quickly read: few fields and few variables that are not defaults."""
        platform = self.platform
        given = len(platform.env) + platform.aiter + platform.flash_attn
        place = list(TARGETS).index(platform.target)
        return len(changed_fields(self.ask)) + bool(self.ask.backend), given, place


@dataclass
class Group:
    """The differences with one cause."""

    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    other_reasons: int = 0
    platforms: set[Platform] = field(default_factory=set)
    requirements: Counter[str] = field(default_factory=Counter)
    example: Example | None = None

    @property
    def count(self) -> int:
        return self.moves.total() + self.other_reasons

    def add(self, other: Group) -> None:
        self.moves += other.moves
        self.other_reasons += other.other_reasons
        self.platforms |= other.platforms
        self.requirements += other.requirements
        shown = [e for e in (self.example, other.example) if e is not None]
        self.example = min(shown, key=lambda example: example.size, default=None)


@dataclass
class Comparison:
    """What was asked, and how often the answers differ, by cause.

    An answer *moved* if it selects another backend; otherwise it has ``other_reasons``.
    """

    platforms: set[Platform] = field(default_factory=set)
    compared: int = 0
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    other_reasons: int = 0
    groups: dict[Why, Group] = field(default_factory=dict)
    by_requirement: Counter[str] = field(default_factory=Counter)
    said: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))

    @property
    def moved(self) -> int:
        return self.moves.total()

    @property
    def differing(self) -> int:
        return self.moved + self.other_reasons

    def add(self, other: Comparison) -> None:
        self.platforms |= other.platforms
        self.compared += other.compared
        self.moves += other.moves
        self.other_reasons += other.other_reasons
        self.by_requirement += other.by_requirement
        for said, others in zip(self.said, other.said, strict=True):
            said.update(others)
        for why, group in other.groups.items():
            self.groups.setdefault(why, Group()).add(group)

    def causes(self) -> list[tuple[tuple[Cause, ...], Group]]:
        """The groups by their causes, the most frequent first; words are told from reasons."""
        named: dict[tuple[Cause, ...], Group] = {}
        for why, group in self.groups.items():
            named.setdefault(tuple(dict.fromkeys(self._named(why))), Group()).add(group)
        return sorted(
            named.items(), key=lambda item: (-item[1].moves.total(), -item[1].count, item)
        )

    def _named(self, why: Why) -> Iterator[Cause]:
        for cause in why:
            if isinstance(cause, Observed):
                yield from cause.causes(*self.said)
            else:
                yield cause


def run(
    config: RunConfig,
    both: tuple[Side, Side],
    scope: Scope,
    processes: int,
    on_progress: Callable[[Progress], None],
) -> Comparison:
    """Compares two sides on ``config.sweep`` questions in all.

    Raises:
        InfrastructureError: a build died, so there is no result.
    """
    variables = Variables.of(*(side.table for side in both))
    machines = scope.machines(variables)
    shares = _shares(machines, config.sweep)
    total = Comparison()
    state = (config, both)
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=state) as pool:
        tasks = [pool.submit(_compare_all, share) for share in shares]
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                total.add(task.result())
                on_progress(Progress(done, len(tasks), 0, 0))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


Share = tuple[Platform, int]


def _shares(machines: Sequence[Sequence[Platform]], sweep: int) -> list[list[Share]]:
    """Each platform with the number of questions that it is asked: as many as any other."""
    number = sum(map(len, machines))
    counts = iter([sweep * (i + 1) // number - sweep * i // number for i in range(number)])
    return [[(platform, next(counts)) for platform in machine] for machine in machines]


class _Comparer:
    """Both sides in one process, and what makes and explains their questions."""

    def __init__(self, config: RunConfig, both: tuple[Side, Side]) -> None:
        self._config = config
        self._both = both
        self._subjects: list[Subject] = [side.subject(config.options) for side in both]
        self._questions = Questions(*(side.table for side in both))
        self._explainer = Explainer(Between.editions(*(side.edition for side in both)))
        self._smallest: dict[Why, tuple[int, int, int]] = {}

    def compare(self, platform: Platform, count: int) -> Comparison:
        """Asks both sides ``count`` questions on one platform."""
        asks = self._questions.seeded(f"{self._config.seed} {platform}", count)
        sessions = [subject.reopen(platform) for subject in self._subjects]
        words = [Words.of(side, s) for side, s in zip(self._both, sessions, strict=True)]
        here = _Here(platform, (sessions[0], sessions[1]), (words[0], words[1]), self._explainer)
        found = Comparison({platform}, len(asks))
        judged = self._both[1]
        rules = rules_on(platform, requirements_of(judged.judged_by), judged.release)
        for example in here.asked(asks):
            for said, answer in zip(found.said, (example.before, example.after), strict=True):
                said.update(reason for c in answer.candidates for reason in c.rejected)
            if differ(example):
                self._count(found, here, rules, example)
        return found

    def _count(
        self, found: Comparison, here: _Here, rules: tuple[Rule, ...], example: Example
    ) -> None:
        move = move_of(example)
        group = Group(platforms={here.platform})
        if move:
            found.moves[move] += 1
            group.moves[move] += 1
        else:
            found.other_reasons += 1
            group.other_reasons += 1
        differing = facets(example.ask, example.before, example.after)
        group.requirements.update({requirement_of(f, rules) or UNATTRIBUTED for f in differing})
        found.by_requirement.update(group.requirements)
        why = here.why(example)
        # A move has all its causes together; reasons have one each.
        for cause in [why] if move else [(one,) for one in why]:
            group.example = self._example(here, example, cause)
            found.groups.setdefault(cause, Group()).add(group)

    def _example(self, here: _Here, example: Example, cause: Why) -> Example | None:
        """The simplest like it, unless this process has one on as simple a platform."""
        known = self._smallest.get(cause)
        if known is not None and example.size[0] >= known[0] and example.size[1:] >= known[1:]:
            return None
        small = here.simplest(example, cause)
        if known is None or small.size < known:
            self._smallest[cause] = small.size
            return small
        return None


@dataclass(frozen=True)
class _Here:
    """Both sides on one platform."""

    platform: Platform
    sessions: tuple[Session, Session]
    words: tuple[Words, Words]
    explainer: Explainer

    def asked(self, asks: Sequence[Ask]) -> Iterator[Example]:
        both = (answers(s, w, asks) for s, w in zip(self.sessions, self.words, strict=True))
        for ask, before, after in zip(asks, *both, strict=True):
            yield Example(self.platform, ask, before, after)

    def why(self, example: Example) -> Why:
        given = (example.before, example.after)
        return self.explainer.why(self.platform, example.ask, given, self.words)

    def simplest(self, example: Example, cause: Why) -> Example:
        """A question of fewer fields that differs for the same cause."""
        while True:
            for smaller in self.asked(list(_simpler(example.ask))):
                moves = bool(move_of(smaller))
                if differ(smaller) and moves == bool(move_of(example)):
                    why = self.why(smaller)
                    if why == cause or (not moves and cause[0] in why):
                        example = smaller
                        break
            else:
                return example


def differ(example: Example) -> bool:
    """Whether the answers differ; to what one side cannot be asked both may select nothing."""
    before, after = example.before, example.after
    new_word = {before.error, after.error} & {UNKNOWN_BACKEND, UNKNOWN_DTYPE}
    return before != after and bool(not new_word or before.selected or after.selected)


def move_of(example: Example) -> tuple[str, str] | None:
    """What was selected and what is; None if that is the same."""
    before, after = label(example.ask, example.before), label(example.ask, example.after)
    return None if before == after else (before, after)


def _simpler(ask: Ask) -> Iterator[Ask]:
    """The same question with one field less."""
    if ask.backend is not None:
        yield replace(ask, backend=None)
    defaults = type(ask.question)()
    for name in changed_fields(ask):
        yield replace(ask, question=replace(ask.question, **{name: getattr(defaults, name)}))


_STATE: list[_Comparer] = []


def _begin(config: RunConfig, both: tuple[Side, Side]) -> None:
    _STATE[:] = [_Comparer(config, both)]


def _compare_all(machine: Iterable[Share]) -> Comparison:
    """One machine under all its variables, which need not be another process of a build."""
    (comparer,) = _STATE
    total = Comparison()
    for platform, count in machine:
        total.add(comparer.compare(platform, count))
    return total
