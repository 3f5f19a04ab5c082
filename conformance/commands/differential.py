"""Compares two subjects on every target, with and without aiter, for every setting of the flags."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.config import RunConfig
from conformance.matrix.requests import AITER, MHA, Ask, Platform, Request
from conformance.matrix.targets import TARGETS
from conformance.requirements import requirements_of
from conformance.requirements.attribution import facets, requirement_of, rules_on
from conformance.results import markdown
from conformance.runners.local import Progress
from conformance.subjects.base import Subject
from conformance.subjects.reference import edition_table
from conformance.subjects.spellings import parse_subject
from conformance.suites.case import show, show_ask
from conformance.suites.selection import sampling
from vllm_editions import editions

FLAGS = (AITER, MHA, "VLLM_ROCM_USE_AITER_MLA", "VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION")
UNATTRIBUTED = "(no requirement)"
# One request in this many also sets the engine option that vLLM 0.18 reads.
OPTION_SHARE = 10


@dataclass
class Difference:
    """The result of a comparison; ``wrong`` counts differing facets by requirement."""

    subjects: tuple[str, str]
    edition: str
    platforms: int = 0
    compared: int = 0
    differing: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, other: Difference) -> None:
        self.platforms += other.platforms
        self.compared += other.compared
        self.differing += other.differing
        self.wrong += other.wrong
        for requirement, example in other.first.items():
            self.first.setdefault(requirement, example)

    def as_json(self) -> dict[str, Any]:
        return {
            "subjects": list(self.subjects),
            "edition": self.edition,
            "platforms": self.platforms,
            "compared": self.compared,
            "differing": self.differing,
            "by_requirement": dict(self.wrong.most_common()),
            "first": self.first,
        }

    def in_words(self) -> str:
        lines = [self._sentence()]
        for requirement, title, count in self._causes():
            lines.append(f"{count:>9}  {requirement}  {title}")
            lines.append(f"           e.g. {self.first[requirement]}")
        return "\n".join(lines)

    def as_markdown(self) -> str:
        rows = [(*cause, self.first[cause[0]]) for cause in self._causes()]
        columns = ("requirement", "title", "differences", "the first one")
        return "\n\n".join([self._sentence(), *([markdown.table(columns, rows)] if rows else [])])

    def _sentence(self) -> str:
        left, right = self.subjects
        return (
            f"{left} and {right}, edition {self.edition}: {self.compared:,} requests on "
            f"{self.platforms} platforms, {self.differing:,} differences"
        )

    def _causes(self) -> Iterator[tuple[str, str, str]]:
        """Each requirement with its title and how many facets differ, most frequent first."""
        known = requirements_of(self.edition)
        for requirement, count in self.wrong.most_common():
            title = known[requirement].title if requirement in known else ""
            yield requirement, title, f"{count:,}"


def platforms(targets: Sequence[str] = ()) -> Iterator[Platform]:
    """Every target, or those named, with aiter and without, for every setting of the flags."""
    for target, aiter in itertools.product(targets or TARGETS, (True, False)):
        for values in itertools.product("10", repeat=len(FLAGS)):
            yield Platform.make(target, aiter=aiter, env=dict(zip(FLAGS, values, strict=True)))


def run(
    config: RunConfig,
    processes: int,
    on_progress: Callable[[Progress], None],
    targets: Sequence[str] = (),
) -> Difference:
    """Compares ``config``'s two subjects on ``config.sweep`` requests in all.

    ``targets`` are those asked about; none named: all.

    Raises:
        InfrastructureError: a subject died, so there is no result.
    """
    left, right = config.subjects
    everywhere = list(platforms(targets))
    shares = [
        config.sweep * (i + 1) // len(everywhere) - config.sweep * i // len(everywhere)
        for i in range(len(everywhere))
    ]
    total = Difference((left, right), config.edition_of(right))
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(config,)) as pool:
        tasks = [pool.submit(_compare_all, machine) for machine in _machines(everywhere, shares)]
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                total.add(task.result())
                on_progress(Progress(done, len(tasks), total.differing, 0))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


Share = tuple[Platform, int]


def _machines(everywhere: Sequence[Platform], shares: Sequence[int]) -> list[list[Share]]:
    """Platforms with their shares of the requests, those of one machine together."""
    found: dict[Platform, list[Share]] = {}
    for platform, share in zip(everywhere, shares, strict=True):
        found.setdefault(replace(platform, env=()), []).append((platform, share))
    return list(found.values())


_STATE: dict[str, Any] = {}


def _begin(config: RunConfig) -> None:
    _STATE["config"] = config
    _STATE["subjects"] = [parse_subject(spec, config.options_of(spec)) for spec in config.subjects]


def _compare_all(machine: Sequence[Share]) -> Difference:
    """One machine under all its variables, which need not be another process of the subject."""
    first, *others = (_compare(platform, count) for platform, count in machine)
    for other in others:
        first.add(other)
    return first


def _compare(platform: Platform, count: int) -> Difference:
    config: RunConfig = _STATE["config"]
    left, right = _STATE["subjects"]
    asks = _asks(config, platform, count)
    judged_by = config.edition_of(right.spec)
    rules = rules_on(platform, requirements_of(judged_by), config.releases[right.spec])
    found = Difference((left.spec, right.spec), judged_by, 1, len(asks))
    for ask, expected, got in zip(asks, *_answers(left, right, platform, asks), strict=True):
        differing = list(facets(ask, expected, got))
        found.differing += bool(differing)
        for facet in differing:
            requirement = requirement_of(facet, rules) or UNATTRIBUTED
            found.wrong[requirement] += 1
            found.first.setdefault(
                requirement,
                f"{platform}: {show_ask(ask)}: {show(expected)} / {show(got)}",
            )
    return found


def _answers(left: Subject, right: Subject, platform: Platform, asks: list[Ask]) -> Iterator[Any]:
    for subject in (left, right):
        session = subject.reopen(platform)
        yield session.ask(asks)


def _asks(config: RunConfig, platform: Platform, count: int) -> list[Ask]:
    # What both can be asked: a field that came later is none of the older one's.
    older = min(map(config.edition_of, config.subjects), key=editions().index)
    edition = edition_table(older)
    asks = list(sampling.requests(f"{config.seed} {platform}", count, edition))
    return [_with_option(ask) if i % OPTION_SHARE == 0 else ask for i, ask in enumerate(asks)]


def _with_option(ask: Ask) -> Ask:
    assert isinstance(ask.question, Request)
    return Ask(replace(ask.question, use_prefill_decode_attention=True), ask.backend)
