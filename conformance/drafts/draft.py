"""A draft of an edition: as a file, in words, and what it leaves open."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from conformance.comparison.words import described
from conformance.drafts.facts import Facts
from conformance.drafts.learning import Answered
from conformance.drafts.search import Drafted
from conformance.requirements.attribution import Facet, facets
from conformance.results import markdown
from conformance.subjects.reference import answer, selector_on
from conformance.suites.case import show, show_ask
from vllm_editions import Edition, edition_rows
from vllm_editions.changes import Edit

LEFT_SHOWN = 20
_KEYS = ("value", "add", "remove", "at", "before", "drop")


@dataclass(frozen=True)
class Open:
    """What a draft does not explain: how many answers differ like this, and one of them."""

    what: str
    count: int
    example: Answered


@dataclass(frozen=True)
class Report:
    """A draft with the names that its file has."""

    drafted: Drafted
    facts: Facts
    series: str
    release: str

    @property
    def text(self) -> str:
        """The file of the new edition."""
        source = f"https://github.com/vllm-project/vllm/blob/v{self.release}/vllm/platforms/rocm.py"
        parts = [
            f"# What vLLM {self.series} changed since {self.drafted.base}. DRAFT: drawn from the "
            "answers of a release.\n"
            "# Each source is where to begin to look, and nobody has looked there yet.\n"
            f"edition = {_toml(self.series)}\n"
            f"base = {_toml(self.drafted.base)}\n"
            f"source = {_toml(source)}\n",
            *(self._row(row) for row in self.drafted.rows),
        ]
        return "\n".join(parts)

    def _row(self, row: Edit) -> str:
        given = row.model_dump(exclude_defaults=True)
        lines = ["[[change]]", f"path = {_toml(row.path)}"]
        table = row.value if isinstance(row.value, dict) else None
        lines += [
            f"{k} = {_toml(given[k])}" for k in _KEYS if k in given and not (k == "value" and table)
        ]
        lines.append(f"source = {_toml(self.facts.source(row, self.release))}")
        if table is not None:
            lines += ["[change.value]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"

    def changes(self) -> list[str]:
        """The rows in words."""
        table = edition_rows(self.drafted.base)
        return [": ".join(described(row, table)) for row in self.drafted.rows]

    def left(self) -> list[Open]:
        """What the draft does not explain, the most frequent first."""
        edition = Edition.model_validate(self.drafted.table)
        counts: Counter[str] = Counter()
        examples: dict[str, Answered] = {}
        for each in self.drafted.left:
            for what in _differences(edition, each):
                counts[what] += 1
                known = examples.get(what)
                if known is None or len(show_ask(each.ask)) < len(show_ask(known.ask)):
                    examples[what] = each
        return [Open(what, count, examples[what]) for what, count in counts.most_common()]

    def sentence(self) -> str:
        """How far the draft goes, in one line."""
        drafted = self.drafted
        return (
            f"vLLM {self.release} from edition {drafted.base}: of {drafted.asked:,} answers "
            f"{drafted.before:,} differ; with {len(drafted.rows)} rows {len(drafted.left):,} do"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "edition": self.series,
            "base": self.drafted.base,
            "asked": self.drafted.asked,
            "differed": self.drafted.before,
            "differ": len(self.drafted.left),
            "changes": self.changes(),
            "notes": list(self.drafted.notes),
            "left": [
                {"what": each.what, "count": each.count, "example": _spelled(each.example)}
                for each in self.left()
            ],
            "draft": self.text,
        }

    def in_words(self) -> str:
        """For a terminal: what changed, what is open, and the file."""
        lines = [self.sentence(), "", "What it changes"]
        lines += [f"  {change}" for change in self.changes()] or ["  nothing"]
        lines += ["", *self._open("  {}", "      e.g. {}"), "", self.text]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """For an issue or a pull request."""
        lines = [self.sentence(), ""]
        lines += [f"- {markdown.cell(change)}" for change in self.changes()] or ["- nothing"]
        lines += ["", *map(markdown.cell, self._open("- {}", "  - e.g. {}"))]
        return "\n".join([*lines, "", "```toml", self.text + "```"])

    def _open(self, line: str, example: str) -> Iterator[str]:
        left = self.left()
        yield "What it does not explain" if left else "It explains every answer."
        for each in left[:LEFT_SHOWN]:
            yield line.format(f"{each.count:,} x {each.what}")
            yield example.format(_spelled(each.example))
        if len(left) > LEFT_SHOWN:
            yield line.format(f"and {len(left) - LEFT_SHOWN:,} rarer kinds")
        for note in self.drafted.notes:
            yield line.format(note)


def _differences(edition: Edition, each: Answered) -> Iterable[str]:
    try:
        expected = answer(selector_on(edition, each.platform), each.ask)
    except (AttributeError, KeyError, ValueError):
        return [f"the draft has no backend {each.ask.backend}"]
    return [_facet(facet) for facet in facets(each.ask, expected, each.got)]


def _facet(facet: Facet) -> str:
    words = [facet.family, "asked for" if facet.explicit else "", facet.backend]
    kind = facet.kind.replace("_", " ")
    about = " ".join(filter(None, words))
    return " ".join(filter(None, (f"{kind}:", about, repr(facet.reason) if facet.reason else "")))


def _spelled(each: Answered) -> str:
    return f"{each.platform}: {show_ask(each.ask)}: the release {show(each.got)}"


def _toml(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(entry)}' for key, entry in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
