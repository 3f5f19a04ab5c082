"""A fault in the kernels: the edits that make it, and the problem that must show it."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.mutation.edit import Edit
from conformance.problems.axes import values_of
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from vllm_editions import DEFAULT_EDITION, editions

_EDITIONS = (DEFAULT_EDITION, editions()[-1])

CaughtBy = Problem | tuple[str, str] | tuple[str, str, str]


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, and what must show it.

    ``caught_by``: a problem; or a backend and a tag of its quick tier; or a backend, an axis and a
    value that problems of its quick tier have: the first edition's, or else the newest's.
    ``setting``: edits under which the kernels are still right, made together with the fault's:
    smaller chunks, so that a small problem has many.
    """

    name: str
    caught_by: CaughtBy
    edits: tuple[Edit, ...]
    setting: tuple[Edit, ...] = ()

    def problems(self) -> list[Problem]:
        """The problems that are run until one shows the fault."""
        if isinstance(self.caught_by, Problem):
            return [self.caught_by]
        backend, *sought = self.caught_by
        of_editions = (self._sought(backend, sought, edition) for edition in _EDITIONS)
        return next((found for found in of_editions if found), [])

    def _sought(self, backend: str, sought: list[str], edition: str) -> list[Problem]:
        quick = problems_for(backend, "quick", edition=edition)
        if len(sought) == 1:
            return [problem for problem in quick if sought[0] in problem.tags]
        axis, value = sought
        return [problem for problem in quick if values_of(problem).get(axis) == value]


def one_edit(
    name: str,
    caught_by: CaughtBy,
    file: str,
    function: str,
    find: str,
    replace: str,
    setting: tuple[Edit, ...] = (),
) -> Fault:
    """A fault of one edit; see :class:`~conformance.mutation.edit.Edit`."""
    return Fault(name, caught_by, (Edit(file, function, find, replace),), setting)
