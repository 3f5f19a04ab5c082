"""Finds and reads the results below a folder. They are downloaded artifacts and not trusted.

Links are not followed, only regular files are opened, and everything unreadable is reported by
name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from conformance.errors import SuiteError
from conformance.matrix.stacks import parse_cell
from conformance.reports.ci_jobs import JOB_FILE, Job, job_in_name, read_job
from conformance.reports.junit_reader import read_junit
from conformance.reports.junit_writer import visible
from conformance.results import Run, read_results

# A results file has about 700 bytes per case: this is enough for three million cases.
SIZE_LIMIT = 2 * 1024**3
LISTED = 20
_RESULTS = re.compile(r"results[^/]*\.jsonl")
_JUNIT = re.compile(r"junit-[^/]*\.xml")
_CELL = re.compile(r"rocm\d+-(?:no)?aiter(?:-(?:no)?mha)?")


@dataclass(frozen=True)
class Defect:
    """Something wrong with the results of ``cells`` (empty: unknown which)."""

    text: str
    cells: tuple[str, ...] = ()
    file: str = ""
    job: Job | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (" ".join(self.cells), self.file, self.text) if part)


@dataclass(frozen=True)
class Input:
    """One results file; ``file`` is its path below the folder, ``kind`` its format."""

    file: str
    kind: str
    run: Run
    digest: str
    job: Job | None = None


@dataclass
class Collected:
    """Everything found below a folder."""

    inputs: list[Input] = field(default_factory=list)
    problems: list[Defect] = field(default_factory=list)


def collect(root: Path, expected: Iterable[str] = ()) -> Collected:
    """Read every ``results*.jsonl`` and ``junit-*.xml`` below ``root``, in the order of paths.

    ``expected`` are subfolders of runs; one without a results file is a problem.
    """
    found = Collected()
    jobs: dict[Path, Job] = {}
    for path in _files(root, found):
        relative = path.relative_to(root)
        if path.name == JOB_FILE:
            try:
                jobs[relative.parent] = read_job(path)
            except (ValueError, OSError) as error:
                found.problems.append(_problem(relative, f"{error}: its links are missing"))
        else:
            _read(path, relative, found)
    found.problems += _lost(found.inputs, expected)
    found.inputs = [replace(i, job=_nearest(jobs, i.file) or i.job) for i in found.inputs]
    found.problems = [replace(p, job=_nearest(jobs, p.file) or p.job) for p in found.problems]
    return found


def _files(root: Path, found: Collected) -> Iterator[Path]:
    """The files to read, sorted; a folder's files come before those of its subfolders."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            what = f"cannot be listed: {error.strerror or error}"
            found.problems.append(_problem(folder.relative_to(root), what))
            continue
        below = []
        for entry in entries:
            path = Path(entry.path)
            ours = kind_of(entry.name) or entry.name == JOB_FILE
            if entry.is_dir(follow_symlinks=False):
                below.append(path)
            elif entry.is_symlink() and (ours or path.is_dir()):
                what = "is a link, and links are not followed: put the files themselves there"
                found.problems.append(_problem(path.relative_to(root), what))
            elif ours and not entry.is_file(follow_symlinks=False):
                what = "is not a regular file (a pipe, a socket, a device): not opened"
                found.problems.append(_problem(path.relative_to(root), what))
            elif ours:
                yield path
        folders += reversed(below)


def kind_of(name: str) -> str:
    """What a file of this name holds: "results", "junit", or ""."""
    if _RESULTS.fullmatch(name):
        return "results"
    return "junit" if _JUNIT.fullmatch(name) else ""


def _read(path: Path, relative: Path, found: Collected) -> None:
    kind = kind_of(path.name)
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            what = f"{size:,} bytes; files past {SIZE_LIMIT:,} are not read"
            found.problems.append(_problem(relative, what))
            return
        digest = _digest(path)
    except OSError as error:
        found.problems.append(_problem(relative, f"cannot be read: {error.strerror or error}"))
        return
    shown = visible(str(relative))
    run = read_results(path) if kind == "results" else read_junit(path, shown)
    job = job_in_name(relative)
    found.inputs.append(Input(shown, kind, run, digest, job))
    cells = cells_in(run) or _cells_in_path(relative)
    texts = [text.removeprefix(f"{path}: ") for text in run.problems]
    if len(texts) > LISTED:
        texts[LISTED:] = [f"and {len(texts) - LISTED:,} more problems"]
    found.problems += [Defect(text, cells, shown, job) for text in texts]


def _lost(inputs: Iterable[Input], expected: Iterable[str]) -> Iterator[Defect]:
    """Runs that left no results, or only JUnit files, which may be incomplete."""
    seen = {folder for i in inputs if i.kind == "results" for folder in Path(i.file).parents}
    for folder in dict.fromkeys(map(Path, expected)):
        if folder not in seen:
            yield _problem(folder / "results.jsonl", "is missing: did its job run, and upload it?")


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1024 * 1024):
            found.update(block)
    return found.hexdigest()


def cells_in(run: Run) -> tuple[str, ...]:
    """The cells of a file: those the run was asked for, or those of its cases."""
    if run.header is not None:
        return run.header.cells
    return tuple(sorted({cell for case in run.cases for cell in case.cells}))


def _problem(relative: Path, text: str) -> Defect:
    return Defect(text, _cells_in_path(relative), visible(str(relative)), job_in_name(relative))


def _cells_in_path(relative: Path) -> tuple[str, ...]:
    """The cell named in the path of a broken file, closest to its end."""
    for part in reversed(relative.parts):
        for name in _CELL.findall(part):
            try:
                return (parse_cell(name).name,)
            except SuiteError:
                continue
    return ()


def _nearest(jobs: dict[Path, Job], file: str) -> Job | None:
    return next((jobs[folder] for folder in Path(file).parents if folder in jobs), None)
