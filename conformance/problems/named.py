"""Problems by the ids that reports and ``problems list`` print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from conformance.errors import UsageError
from conformance.problems.defects import known_defects
from conformance.problems.encodings import in_each_encoding
from conformance.problems.families import backends, problems_for
from conformance.problems.problem import Problem
from conformance.problems.tiers import TIERS

DEFECTS = "defects"


def catalogue(
    tiers: Sequence[str], of: Sequence[str], edition: str, seed: int
) -> Iterator[tuple[str, Problem]]:
    """Problems of some backends, each with its tier; those of known defects have no seed."""
    for name in tiers:
        if name == DEFECTS:
            yield from ((name, d.problem) for d in known_defects() if d.problem.backend in of)
            continue
        for backend in of:
            yield from ((name, problem) for problem in problems_for(backend, name, seed, edition))


def seed_in(name: str) -> int | None:
    """The seed that an id ends with."""
    ending = name.rpartition("-s")[2]
    return int(ending) if ending.isdecimal() and len(ending) < 20 else None


def with_id(
    name: str, tiers: Sequence[str], edition: str, seed: int
) -> tuple[dict[Problem, list[str]], list[str]]:
    """The different problems of an id, each with its tiers; and the ids that were looked through.

    A vLLM may have been given a problem in the fp8 of the GPU that it was shown: its id is then
    another than in the catalogue.
    """
    found: dict[Problem, list[str]] = {}
    ids: list[str] = []
    # An id begins with its backend: the others need not be made.
    of_id = [each for each in backends() if name.startswith(each.lower().replace("_", "-"))]
    for tier in tiers:
        # A defect's id has any name.
        for backend in backends() if tier == DEFECTS else of_id or backends():
            known = _by_id(tier, backend, edition, seed)
            ids += known
            for problem in known.get(name, ()):
                found.setdefault(problem, []).append(tier)
    return found, ids


@cache
def _by_id(tier: str, backend: str, edition: str, seed: int) -> dict[str, list[Problem]]:
    """A backend's problems in each encoding, by id."""
    found: dict[str, list[Problem]] = {}
    for _, made in catalogue([tier], [backend], edition, seed):
        for problem in in_each_encoding(made):
            same = found.setdefault(problem.id, [])
            # An id that does not say its encoding is that of the problem as it was made.
            if problem == made or problem.id != made.id:
                same += [problem] if problem not in same else []
    return found


@cache
def problem_named(name: str, edition: str, tier: str, seed: int) -> Problem | None:
    """The problem of an id, of the seed that it names: the tier's, if that has one, else any's.

    Raises:
        UsageError: several other tiers have different ones.
    """
    own = seed_in(name)
    for tiers in ([tier], [each for each in (*TIERS, DEFECTS) if each != tier]):
        found, _ = with_id(name, tiers, edition, seed if own is None else own)
        if len(found) > 1:
            several = ", ".join(of[0] for of in found.values())
            raise UsageError(
                f"--problem {name!r}: the tiers {several} have different problems of that id: name "
                "one by --problems"
            )
        if found:
            return next(iter(found))
    return None
