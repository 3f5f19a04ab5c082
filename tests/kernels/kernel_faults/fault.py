"""A fault in the kernels: the edits that make it, and the problem that must show it."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.mutation.edit import Edit
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, and what must show it.

    ``caught_by``: a problem, or a backend and a tag of its quick tier. ``setting``: edits under
    which the kernels are still right, made together with the fault's: smaller chunks, so that a
    small problem has many.
    """

    name: str
    caught_by: Problem | tuple[str, str]
    edits: tuple[Edit, ...]
    setting: tuple[Edit, ...] = ()

    def problems(self) -> list[Problem]:
        """The problems that are run until one shows the fault."""
        if isinstance(self.caught_by, Problem):
            return [self.caught_by]
        backend, tag = self.caught_by
        return [problem for problem in problems_for(backend, "quick") if tag in problem.tags]


def one_edit(
    name: str,
    caught_by: Problem | tuple[str, str],
    file: str,
    function: str,
    find: str,
    replace: str,
    setting: tuple[Edit, ...] = (),
) -> Fault:
    """A fault of one edit; see :class:`~conformance.mutation.edit.Edit`."""
    return Fault(name, caught_by, (Edit(file, function, find, replace),), setting)
