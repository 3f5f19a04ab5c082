"""The page of the site with the mutation score, made from the records of campaigns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from conformance.mutation.equivalents import Equivalent
from conformance.mutation.operators import OPERATORS
from conformance.mutation.results import Header, Judged
from conformance.mutation.score import MISSED, Score, is_equivalent, reason_for, score
from conformance.mutation.verdict import Fate
from conformance.results import markdown

PAGE = "mutation-score.md"
COLUMNS = (
    *("part", "seeds", "mutants", "caught", "quick alone", "95 %"),
    *("survived", "not reached", "not judged", "equivalent", "minutes"),
)
_HEAD = """\
# The mutation score

<!-- Made by `make mutants`. Do not edit. -->

How sure is the suite? Code is put wrong on purpose, one edit at a time (a *mutant*), and the suite
judges it like any other build. A mutant that it finds fault with is *caught*; one that passes has
*survived*, and shows what the suite does not look at. The score is the share that is caught of all
that can be. Mutants are drawn at random from all that the [operators](#operators) make of a part's
files; the seeds are given, so that each campaign can be had again:

    rocm-conformance mutants --part kernels --seed 1 --seed 2 --seed 3 --count 200

"""
_READ = """\
*Quick alone* is the share that the quick tier catches, which `make conformance` runs (of the
reference by its first edition; `run --subject reference --edition 0.33 --quick` runs the newest's);
survivors are given the standard tier's problems for a limited time. *95 %* is the interval in which
the share of all mutants of the part lies, as far as a sample of that size can say. *Not reached*:
no problem, row or test that was asked runs the code; these count as missed. *Not judged*: the quick
tier missed it, and time ran out before all of the standard tier that may reach it was asked; these
count in *quick alone* only. *Equivalent*: nobody could notice; [each has its
reason](#equivalent-mutants), and they do not count. Kernels are run in Triton's interpreter: what
only a GPU runs cannot be reached. *Minutes* are the processors' own, added up.

"""
_PARTS = {
    "kernels": "by the parity suite's problems of the first and of the newest edition",
    "vllm": "by the parity suite's problems; of those that the release fails as it is, by the ones "
    "that fail in another way",
    "editions": "by the selection suite, in every cell",
    "selector": "by the selection suite, in every cell",
    "requirements": "by the reference, which a wrong row blames",
    "emulator": "by the emulator's own tests",
}

Campaign = tuple[Header, Sequence[Judged]]


def page(
    campaigns: Sequence[Campaign], rows: Sequence[Equivalent], known: Sequence[str] = ()
) -> str:
    """The page about some campaigns, one for each part. ``known``: all parts that there are."""
    measured = {header.part for header, _ in campaigns}
    left = ", ".join(name for name in known if name not in measured)
    table = [summary(header, score(judged, rows), judged) for header, judged in campaigns]
    parts = [
        f"- **{header.part}**: {header.says}; judged {_judged_by(header.part)}. "
        f"{header.available:,} mutants in all." + _settings(header)
        for header, _ in campaigns
    ]
    operators = [f"- **{operator.name}**: {operator.says}" for operator in OPERATORS]
    return "\n".join(
        [
            _HEAD + markdown.table(COLUMNS, table) + "\n",
            *([f"No campaign is on record here for {left}.\n"] if left else []),
            _READ + "\n".join(parts) + "\n",
            *(_silent(campaigns, rows)),
            "## Survivors\n",
            *(_survivors(campaigns, rows)),
            "## Equivalent mutants\n",
            *(_equivalents(campaigns, rows)),
            "## Operators\n",
            "Of Python code; annotations, documentation, errors that are raised and arguments that "
            "only tune a launch are left alone. Tables are changed a cell at a time.\n",
            "\n".join(operators) + "\n",
        ]
    )


def summary(header: Header, found: Score, judged: Iterable[Judged]) -> tuple[str, ...]:
    """A part's row: of :data:`COLUMNS`."""
    low, high = found.interval
    seeds = sorted({seed for one in judged for seed in one.seeds})
    return (
        header.part,
        ", ".join(map(str, seeds)),
        str(found.judged),
        f"{found.caught} ({percent(found.share)})",
        percent(found.quick_share),
        f"{percent(low)} to {percent(high)}",
        str(found.survived),
        str(found.not_reached),
        str(found.undecided),
        str(found.equivalent),
        f"{found.cpu_seconds / 60:.1f}",
    )


def percent(share: float) -> str:
    """A share, rounded down: 99.96 % is not all."""
    return "-" if math.isnan(share) else f"{math.floor(share * 1000) / 10:.1f} %"


def _settings(header: Header) -> str:
    """What a campaign was limited to, in words."""
    return f" Limits: {header.settings}." if header.settings else ""


def _judged_by(part: str) -> str:
    return next(text for name, text in _PARTS.items() if part.startswith(name))


def _silent(campaigns: Sequence[Campaign], rows: Sequence[Equivalent]) -> Iterator[str]:
    """What the score is without mutants that anybody would notice."""
    for header, judged in campaigns:
        found = score(judged, rows)
        if found.raised or found.timeout:
            yield (
                f"Of {header.part}'s caught mutants {found.raised} stopped with an error and "
                f"{found.timeout} gave no answer in time; without these "
                f"{percent(found.share_of_silent)} are caught.\n"
            )


def _survivors(campaigns: Sequence[Campaign], rows: Sequence[Equivalent]) -> list[str]:
    columns = ("id", "where", "operator", "put wrong", "asked")
    listed: list[str] = []
    for header, judged in campaigns:
        missed = [
            one for one in judged if one.verdict.fate in MISSED and not is_equivalent(one, rows)
        ]
        if missed:
            listed.append(f"### {header.part}\n")
            rows_of = [_survivor(one) for one in sorted(missed, key=_place)]
            listed.append(_table(columns, rows_of))
    return listed or ["None.\n"]


def _place(one: Judged) -> tuple[str, int]:
    return one.mutant.file, one.mutant.line


def _survivor(one: Judged) -> tuple[str, ...]:
    mutant, verdict = one.mutant, one.verdict
    where = f"{mutant.file}:{mutant.line} {mutant.function}" if mutant.line else mutant.function
    where = _code(where.strip())
    asked = "not reached" if verdict.fate is Fate.NOT_REACHED else str(verdict.asked)
    asked += ", then time ran out" if verdict.fate is Fate.UNDECIDED else ""
    return mutant.id, where, mutant.operator, _change(mutant.before, mutant.after), asked


def _change(before: str, after: str) -> str:
    return " → ".join(_code(text) for text in (before, after) if text)


def _code(text: str) -> str:
    """A code span of a table's cell, in which only bars need care; long text is cut."""
    shown = text if len(text) <= 90 else f"{text[:88]}…"
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}".replace("|", "\\|")


def _equivalents(campaigns: Sequence[Campaign], rows: Sequence[Equivalent]) -> Iterator[str]:
    reasons = Counter(
        (header.part, reason_for(one, rows))
        for header, judged in campaigns
        for one in judged
        if is_equivalent(one, rows)
    )
    table = [(part, str(count), reason) for (part, reason), count in sorted(reasons.items())]
    yield _table(("part", "mutants", "why nobody could notice"), table) if table else "None.\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
