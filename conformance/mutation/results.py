"""The record of a campaign: JSON lines, a mutant each, so that a campaign can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.mutation.mutant import Mutant
from conformance.mutation.verdict import Fate, Verdict

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Header:
    """The first line of a record: what its verdicts are about.

    ``tree`` is a digest of the suite's files and of what is edited, ``available`` the number of
    all mutants, ``settings`` what else decides a verdict.
    """

    part: str
    says: str
    tree: str
    available: int
    settings: str


@dataclass(frozen=True)
class Judged:
    """A line of a record. ``seeds``: those of the campaigns that drew the mutant."""

    mutant: Mutant
    verdict: Verdict
    seeds: tuple[int, ...]


class Record:
    """A file of verdicts. Each is written when it is known: what is interrupted is not lost."""

    def __init__(self, path: Path, header: Header, *, fresh: bool = False) -> None:
        """Opens a record, or begins one.

        Raises:
            UsageError: there is one of another tree, and ``fresh`` does not say to begin anew.
        """
        self._path = path
        self.judged: dict[str, Judged] = {}
        if path.is_file() and not fresh:
            found, judged = read(path)
            if (found.tree, found.settings) != (header.tree, header.settings):
                raise UsageError(
                    f"{path} is about other files, or was made with other options: take another "
                    "--results folder, or --fresh to begin anew"
                )
            self.judged = {one.mutant.id: one for one in judged}
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"header": asdict(header)}) + "\n", encoding="utf-8")

    def knows(self, mutant: Mutant, seeds: Collection[int]) -> bool:
        """Whether a mutant has a verdict; if so, that these seeds drew it too is noted."""
        one = self.judged.get(mutant.id)
        if one is None or one.verdict.fate is Fate.ERRORED:
            return False
        if not set(seeds) <= set(one.seeds):
            self.add(mutant, one.verdict, seeds)
        return True

    def add(self, mutant: Mutant, verdict: Verdict, drawn_by: Iterable[int]) -> None:
        """Writes a verdict down; it takes the place of one of the same mutant."""
        before = self.judged.get(mutant.id)
        seeds = tuple(sorted({*drawn_by, *(before.seeds if before else ())}))
        one = Judged(mutant, verdict, seeds)
        self.judged[mutant.id] = one
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_line(one)) + "\n")


def read(path: Path) -> tuple[Header, list[Judged]]:
    """A record; of several lines about one mutant the last counts. A torn last line is left out.

    Raises:
        UsageError: it is none.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        header = Header(**json.loads(lines[0])["header"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise UsageError(f"{path} is no record of mutants") from None
    return header, list({one.mutant.id: one for one in _judged(lines[1:])}.values())


def _judged(lines: list[str]) -> Iterator[Judged]:
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        verdict = {**told["verdict"], "fate": Fate(told["verdict"]["fate"])}
        mutant = {**told["mutant"], "span": tuple(told["mutant"]["span"])}
        yield Judged(Mutant(**mutant), Verdict(**verdict), tuple(told["seeds"]))


def _line(one: Judged) -> dict[str, Any]:
    verdict = {**asdict(one.verdict), "fate": one.verdict.fate.value}
    return {
        "id": one.mutant.id,
        "mutant": asdict(one.mutant),
        "verdict": verdict,
        "seeds": one.seeds,
    }
