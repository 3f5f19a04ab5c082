"""What ``diff`` prints: what moves, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from conformance.comparison.causes import CANDIDATES, Cause
from conformance.comparison.differential import Comparison, Example, Group
from conformance.comparison.questions import changed_fields
from conformance.comparison.sides import Side, Variables
from conformance.requirements import requirements_of
from conformance.results import markdown
from conformance.suites.case import show, show_ask

MOVES_SHOWN = 3
REQUIREMENTS_SHOWN = 5
CAUSES_SHOWN = 30
# A comment on a pull request holds 65,536 characters.
EXAMPLE_LIMIT = 600


@dataclass(frozen=True)
class Report:
    """A comparison with the names of its sides."""

    both: tuple[Side, Side]
    found: Comparison

    def as_json(self) -> dict[str, Any]:
        found = self.found
        return {
            "subjects": [side.spec for side in self.both],
            "editions": [side.edition for side in self.both],
            "judged_by": self.both[1].judged_by,
            "platforms": len(found.platforms),
            "compared": found.compared,
            "moved": found.moved,
            "other_reasons": found.other_reasons,
            "differing": found.differing,
            "moves": _moves(found.moves),
            "causes": [self._cause_as_json(causes, group) for causes, group in self._causes],
            "by_requirement": dict(found.by_requirement.most_common()),
        }

    def _cause_as_json(self, causes: tuple[Cause, ...], group: Group) -> dict[str, Any]:
        return {
            "causes": [asdict(cause) for cause in causes],
            "moved": group.moves.total(),
            "other_reasons": group.other_reasons,
            "moves": _moves(group.moves),
            "where": self._where(group),
            "requirements": list(group.requirements),
            "example": None if group.example is None else _example_as_json(group.example),
        }

    def in_words(self) -> str:
        """For a terminal."""
        lines = [self.sentence()]
        if self.found.moves:
            lines += ["", "What moves"]
            width = max(len(old) for old, _ in self.found.moves)
            for (old, new), count in self.found.moves.most_common():
                lines.append(f"{count:>9,}  {old:<{width}}  ->  {new}")
        if self.found.groups:
            lines += ["", "Why"]
        for causes, group in self._shown:
            text = "; ".join(cause.text for cause in causes)
            lines.append(f"{group.count:>9,}  {_kinds(causes)}: {text}")
            lines += [f"           {line}" for line in self._about(causes, group)]
        return "\n".join([*lines, *self._left_out()])

    @cached_property
    def _causes(self) -> list[tuple[tuple[Cause, ...], Group]]:
        """The causes, with what is common to the platforms of one that names candidates alone."""
        return [
            (tuple(self._told(cause, group) for cause in causes), group)
            for causes, group in self.found.causes()
        ]

    def _told(self, cause: Cause, group: Group) -> Cause:
        if cause.kind != CANDIDATES:
            return cause
        common = self._common(group)
        decides = any(name in self._variables.defaults for name in common)
        return replace(cause, kind="variable" if decides else "order")

    @property
    def _shown(self) -> list[tuple[tuple[Cause, ...], Group]]:
        """The causes that readers are shown: of a long list the first."""
        return self._causes[:CAUSES_SHOWN]

    def _left_out(self) -> Iterator[str]:
        if left := self._causes[CAUSES_SHOWN:]:
            count = sum(group.count for _, group in left)
            yield f"and {len(left):,} rarer causes of {count:,} requests: see --format json"

    def _about(self, causes: tuple[Cause, ...], group: Group) -> Iterator[str]:
        yield f"{_summary(group)}{self._where(group)}"
        if group.example is not None:
            yield f"e.g. {_spelled(group.example)}"
        if named := self._requirements(group):
            yield named
        yield from dict.fromkeys(source for cause in causes for source in cause.sources)

    def as_markdown(self) -> str:
        """For a comment on a pull request: the tables first, the details folded."""
        parts = [f"### {self.both[0].spec} → {self.both[1].spec}", self.sentence()]
        if self.found.moves:
            rows = [(old, new, f"{n:,}") for (old, new), n in self.found.moves.most_common()]
            parts.append(markdown.table(("selected before", "selected now", "requests"), rows))
        if self.found.groups:
            rows = [
                (_kinds(causes), "; ".join(c.text for c in causes), f"{group.count:,}")
                for causes, group in self._shown
            ]
            parts.append(markdown.table(("cause", "what changed", "requests"), rows))
            details = "\n".join(self._details())
            head = "<details><summary>The simplest request of each cause</summary>"
            parts += [*self._left_out(), f"{head}\n\n{details}\n\n</details>"]
        return "\n\n".join(parts)

    def _details(self) -> Iterator[str]:
        for causes, group in self._shown:
            links = dict.fromkeys(source for cause in causes for source in cause.sources)
            text = "; ".join(cause.text for cause in causes)
            summary = _summary(group) + self._where(group)
            yield f"- **{markdown.cell(text)}**: {markdown.cell(summary)}"
            if group.example is not None:
                yield f"  - {markdown.cell(_clipped(_spelled(group.example)))}"
            if named := self._requirements(group):
                yield f"  - {markdown.cell(named)}"
            yield from (f"  - {link}" for link in links)

    def sentence(self) -> str:
        """What was asked and how much of it moved, in one line."""
        found, (left, right) = self.found, self.both
        share = f" ({found.moved / found.compared:.1%})" if found.compared else ""
        number = len(found.platforms)
        platforms = f"{number:,} platform{'' if number == 1 else 's'}"
        return (
            f"{_named(left)} and {_named(right)}: of {found.compared:,} requests on "
            f"{platforms} {found.moved:,} select otherwise{share}, "
            f"{found.other_reasons:,} give other reasons only"
        )

    def _requirements(self, group: Group) -> str:
        known = requirements_of(self.both[1].judged_by)
        common = group.requirements.most_common(REQUIREMENTS_SHOWN)
        named = [name for name, _ in common if name in known]
        return f"about {', '.join(named)}" if named else ""

    def _where(self, group: Group) -> str:
        """Where a cause shows, if that is not everywhere: " (gfx942 alone)"."""
        asked = self.found.platforms
        parts = []
        if group.platforms < asked:
            targets = list(dict.fromkeys(p.target for p in sorted(group.platforms, key=str)))
            if set(targets) < {p.target for p in asked}:
                parts.append("on " + ", ".join(targets))
            common = self._common(group).items()
            parts += [f"{n}={v}" if n.isupper() else f"{n} {v}" for n, v in common if v]
        return f" ({'; '.join(parts)})" if parts else ""

    @cached_property
    def _variables(self) -> Variables:
        return Variables.of(*(side.table for side in self.both))

    def _common(self, group: Group) -> dict[str, str]:
        """What all platforms of a cause have in common, and not all that were asked."""
        everywhere = [self._variables.settings(platform) for platform in self.found.platforms]
        there = [self._variables.settings(platform) for platform in group.platforms]
        found = {}
        for name in dict.fromkeys(name for settings in everywhere for name in settings):
            values = {settings.get(name, "") for settings in there}
            if len(values) == 1 < len({settings.get(name, "") for settings in everywhere}):
                found[name] = values.pop()
        return found


def _moves(moves: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"old": old, "new": new, "count": n} for (old, new), n in moves.most_common()]


def _example_as_json(example: Example) -> dict[str, Any]:
    return {
        "platform": example.platform.as_json(),
        "question": type(example.ask.question).__name__,
        "request": changed_fields(example.ask),
        "backend": example.ask.backend,
        "before": example.before.as_json(),
        "after": example.after.as_json(),
    }


def _spelled(example: Example) -> str:
    return (
        f"{example.platform}: {show_ask(example.ask)}: {show(example.before)} -> "
        f"{show(example.after)}"
    )


def _clipped(text: str) -> str:
    return text if len(text) <= EXAMPLE_LIMIT else f"{text[:EXAMPLE_LIMIT]} …"


def _summary(group: Group) -> str:
    """The most frequent moves of a cause, and how many answers moved not at all."""
    parts = [f"{old} -> {new}: {n:,}" for (old, new), n in group.moves.most_common(MOVES_SHOWN)]
    if (more := len(group.moves) - MOVES_SHOWN) > 0:
        parts.append(f"{more} more")
    if group.other_reasons:
        parts.append(f"other reasons only: {group.other_reasons:,}")
    return ", ".join(parts)


def _kinds(causes: tuple[Cause, ...]) -> str:
    return " + ".join(dict.fromkeys(cause.kind for cause in causes))


def _named(side: Side) -> str:
    if side.spec == side.edition:
        return f"edition {side.edition}"
    return f"{side.spec} (edition {side.edition})"
