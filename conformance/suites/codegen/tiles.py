"""Whether every tile that a launch can choose was among those that were compiled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from packaging.specifiers import SpecifierSet

from conformance.config import RunConfig
from conformance.matrix.targets import target as known_target
from conformance.matrix.toml_rows import read_rows
from conformance.requirements import requirement
from conformance.results import CaseResult, Outcome
from conformance.subjects.spellings import kind_of
from conformance.suites.codegen.findings import Compiled
from conformance.suites.codegen.options import as_served

REQUIREMENT, COMPILES = "CGN-013", "CGN-010"
CHOSE = "tile "
# What kernels call the sides of their tiles.
NAMES = ("BLOCK_M", "BLOCK_N", "TILE", "TILE_SIZE")


@dataclass(frozen=True)
class Tiles:
    """A row of ``tiles.toml``, which explains its columns."""

    name: str
    kernel: str
    subject: str
    choices: tuple[str, ...]
    holds: str = ""
    families: tuple[str, ...] = ()

    def is_about(self, subject: str, edition: str, target: str) -> bool:
        if self.subject != kind_of(subject).name.lower():
            return False
        if self.families and known_target(target).family not in self.families:
            return False
        return SpecifierSet(self.holds).contains(edition)

    def missing(self, chosen: Iterable[str]) -> list[str]:
        """The choices that are not among those of a run, ``kernel BLOCK_M=16 TILE=64 warps=4``."""
        seen = [set(each.split()[1:]) for each in chosen if each.split()[0] == self.kernel]
        return [each for each in self.choices if not any(set(each.split()) <= s for s in seen)]


@cache
def tile_rows() -> tuple[Tiles, ...]:
    text = resources.files(__package__).joinpath("tiles.toml").read_text(encoding="utf-8")
    return tuple(read_rows(text, "codegen/tiles.toml", Tiles).values())


def choices_of(compiled: Compiled) -> dict[str, int]:
    """The tiles that a call's kernels were launched with, as a case counts them."""
    counts = {}
    for kernel in compiled.kernels:
        sides = [f"{n}={kernel['constants'][n]}" for n in NAMES if n in kernel["constants"]]
        if sides:
            words = " ".join([str(kernel["name"]), *sides, f"warps={kernel['num_warps']}"])
            counts[f"{CHOSE}{words}"] = 1
    return counts


def closing_cases(config: RunConfig, cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """A case for each row of tiles and each target that a subject's kernels were compiled for.

    A target is left out if one of its cases has no verdict.
    """
    rule = requirement(REQUIREMENT)
    if not as_served(config):
        return
    asked: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for case in cases:
        if case.requirement == COMPILES:
            asked[case.subject, case.target].append(case)
    for (subject, target), ended in asked.items():
        if any(case.outcome is Outcome.ERRORED for case in ended):
            continue
        chosen = {n.removeprefix(CHOSE) for case in ended for n in case.counts if CHOSE in n}
        for row in tile_rows():
            if row.is_about(subject, config.edition_of(subject), target):
                missing = row.missing(chosen)
                text = f"{row.kernel} was not compiled with {'; '.join(missing)}"
                yield replace(
                    ended[0],
                    name=f"{REQUIREMENT} {row.name} on {target}",
                    requirement=REQUIREMENT,
                    source=rule.source,
                    outcome=Outcome.FAILED if missing else Outcome.PASSED,
                    message=text if missing else "",
                    detail="",
                    reproduce="",
                    findings=(),
                    identities=(),
                    waiver="",
                    seconds=0.0,
                    counts={"tiles": len(row.choices)},
                    measures={},
                )
