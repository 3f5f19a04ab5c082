"""The mutation score: how many of the mutants that can show were caught, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from conformance.mutation.equivalents import Equivalent, reason_of
from conformance.mutation.results import Judged
from conformance.mutation.verdict import Fate

# What is listed: nothing noticed these, so far.
MISSED = (Fate.SURVIVED, Fate.NOT_REACHED, Fate.UNDECIDED)
# The quantile of the normal distribution for an interval that holds the truth 95 times in 100.
_QUANTILE = 1.959963984540054


@dataclass(frozen=True)
class Score:
    """``quick``, ``standard``: caught by that tier and by none before it (parts without tiers have
    quick alone). ``raised`` of the caught stopped with an error, which any run would notice.
    ``undecided`` survived the quick tier, and time ran out before all of the standard tier that
    may reach them was asked. ``cpu_seconds`` are the processors', ``seconds`` the judges'."""

    judged: int
    quick: int
    standard: int
    raised: int
    timeout: int
    survived: int
    not_reached: int
    undecided: int
    errored: int
    equivalent: int
    seconds: float
    cpu_seconds: float

    @property
    def caught(self) -> int:
        return self.quick + self.standard

    @property
    def valid(self) -> int:
        """Those that count: neither equivalent nor without a verdict."""
        return self.judged - self.equivalent - self.undecided - self.errored

    @property
    def share(self) -> float:
        return self.caught / self.valid if self.valid else math.nan

    @property
    def quick_share(self) -> float:
        of = self.valid + self.undecided  # which the quick tier has judged
        return self.quick / of if of else math.nan

    @property
    def share_of_reached(self) -> float:
        """Of those whose code is run at all."""
        reached = self.valid - self.not_reached
        return self.caught / reached if reached else math.nan

    @property
    def share_of_silent(self) -> float:
        """Of those that do not stop with an error."""
        silent = self.valid - self.raised - self.timeout
        return (self.caught - self.raised - self.timeout) / silent if silent else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of all the part's mutants lies, 95 times in 100.

        Wilson's interval (https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval):
        it holds for few mutants, and for shares near 1, too.
        """
        return wilson(self.caught, self.valid)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The interval of a share of ``hits`` in ``of``, 95 times in 100."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, _QUANTILE**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    spread = math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    half = _QUANTILE * spread / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def score(judged: Iterable[Judged], rows: Iterable[Equivalent]) -> Score:
    """The score of some verdicts. A caught mutant counts, whatever the table of equivalents says:
    it is not equivalent."""
    all_judged, table = list(judged), list(rows)
    fates = [one.verdict.fate for one in all_judged]
    equivalent = [one for one in all_judged if is_equivalent(one, table)]
    missed = [one.verdict.fate for one in all_judged if one not in equivalent]
    caught = [one.verdict for one in all_judged if one.verdict.fate.is_caught]
    return Score(
        judged=len(all_judged),
        quick=sum(verdict.tier != "standard" for verdict in caught),
        standard=sum(verdict.tier == "standard" for verdict in caught),
        raised=fates.count(Fate.RAISED),
        timeout=fates.count(Fate.TIMEOUT),
        survived=missed.count(Fate.SURVIVED),
        not_reached=missed.count(Fate.NOT_REACHED),
        undecided=missed.count(Fate.UNDECIDED),
        errored=fates.count(Fate.ERRORED),
        equivalent=len(equivalent),
        seconds=sum(one.verdict.seconds for one in all_judged),
        cpu_seconds=sum(one.verdict.cpu_seconds for one in all_judged),
    )


def is_equivalent(one: Judged, rows: Iterable[Equivalent]) -> bool:
    """Whether a mutant was missed, and the table says that nobody could have caught it."""
    return one.verdict.fate in MISSED and bool(reason_for(one, rows))


def reason_for(one: Judged, rows: Iterable[Equivalent]) -> str:
    """Why what was missed is equivalent; "" if it is not known to be."""
    return reason_of(one.mutant, rows, reached=one.verdict.fate is not Fate.NOT_REACHED)
