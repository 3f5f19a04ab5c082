"""What a fault in the kernels is made of, and how it gets into a copy of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import rocm_reference as kernels
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem

KERNELS = Path(kernels.__file__).parent


@dataclass(frozen=True)
class Edit:
    """Replaces ``find``, which ``file`` of ``rocm_reference`` holds exactly once."""

    file: str
    find: str
    replace: str

    def apply(self, folder: Path) -> None:
        """Edits a copy of the package.

        Raises:
            ValueError: the text does not stand there exactly once.
        """
        path = folder / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"{self.file} has this text {count} times, not once:\n{self.find}")
        path.write_text(text.replace(self.find, self.replace), encoding="utf-8")


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, and what must show it.

    ``caught_by``: a problem, or a backend and a tag of its quick tier. ``setting``: edits under
    which the kernels are still right, and are tested with: smaller chunks, so that a small
    problem has many.
    """

    name: str
    caught_by: Problem | tuple[str, str]
    edits: tuple[Edit, ...]
    setting: tuple[Edit, ...] = ()

    def problems(self) -> list[Problem]:
        """What is asked until the fault shows."""
        if isinstance(self.caught_by, Problem):
            return [self.caught_by]
        backend, tag = self.caught_by
        return [problem for problem in problems_for(backend, "quick") if tag in problem.tags]


def one_edit(
    name: str,
    caught_by: Problem | tuple[str, str],
    file: str,
    find: str,
    replace: str,
    setting: tuple[Edit, ...] = (),
) -> Fault:
    """A fault of one edit."""
    return Fault(name, caught_by, (Edit(file, find, replace),), setting)


def copy_kernels(folder: Path, edits: tuple[Edit, ...]) -> Path:
    """A folder to import an edited package ``rocm_reference`` from.

    What is compiled already comes along: Python tells by a file's time and size that it is not of
    the edited text, but for an edit in the second that a file was made in.
    """
    made = folder / KERNELS.name
    shutil.copytree(KERNELS, made)
    for edit in edits:
        edit.apply(made)
        path = made / edit.file
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            stale.unlink()
    return folder
