"""Judges both sides of a change by runs of the suite, and compares what they came to.

A run is a process of its own: what a vLLM leaves behind in one can't reach the other. Both records
are kept in the cache by what the trees contain: the next change from the same commit does not wait
for its base, nor does a change that starts where this one ended.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import conformance
import rocm_reference
import vllm_editions
from conformance import __version__
from conformance.cache import cache_root
from conformance.changes.trees import Change, content_of
from conformance.errors import ExitCode, InfrastructureError, UsageError
from conformance.requirements.edition_choice import edition_of_release
from conformance.results import CaseResult, Run, read_results
from conformance.results.codegen_table import Numbers, table_of
from conformance.results.folder import RESULTS
from conformance.subjects.vllm.checkouts import read_tree

# A CDNA and an RDNA target: what differs between GPUs differs between these.
TARGETS = ("gfx942", "gfx1201")
CELLS = "rocm100-*"
ALWAYS = ("selection", "removal")
OF_KERNELS = ("parity", "codegen")
SWEPT = 20_000
MOVES_SECONDS = 240
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """How much of a change is judged: cells, targets, suites, and options for every run.

    ``timeout`` is in seconds per answer of a worker. What it was says nothing about a record.
    """

    cells: tuple[str, ...]
    targets: tuple[str, ...]
    suites: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    timeout: float = 120.0

    @property
    def limits(self) -> list[str]:
        return ["--timeout", f"{self.timeout:g}"]

    def of_run(self, edition: str = "") -> list[str]:
        words = ["--quick", "--device", "interpreter", "--simulate", "always"]
        for option, values in (
            ("cell", self.cells),
            ("target", self.targets),
            ("suite", self.suites),
        ):
            words += [f"--{option}={value}" for value in values]
        words += [f"--edition={edition}"] if edition else []
        return [*words, *self.arguments]


def judge(change: Change, asked: Asked, folder: Path, say: Say) -> None:
    """Runs both sides into ``folder/base`` and ``folder/change``.

    Both are held to one edition, so that they are asked the same: that of the release which the
    change says it is, such as a release's own sources do, else that of its base.

    Raises:
        UsageError: the runs' own words for a mistake are on stderr.
        InfrastructureError: a side left no record.
    """
    shutil.rmtree(folder / "base", ignore_errors=True)
    shutil.rmtree(folder / "change", ignore_errors=True)
    release = read_tree(change.tree).version
    edition = edition_of_release(release) if release else ""
    base = _base(change, asked, edition, folder / "base", say)
    say(f"the change: {change.tree}")
    words = asked.of_run(edition or _edition_of(base))
    record = _record(change.tree, [*words, *asked.limits], folder / "change")
    _keep(record, folder / "change" / RESULTS, _place(change.tree, words))


def _base(change: Change, asked: Asked, edition: str, folder: Path, say: Say) -> Run:
    words = asked.of_run(edition)
    known = _place(change.base, words)
    if (known / RESULTS).is_file():
        say(f"the base: {change.against}, judged before")
        folder.mkdir(parents=True)
        shutil.copyfile(known / RESULTS, folder / RESULTS)
        return read_results(folder / RESULTS)
    say(f"the base: {change.against}")
    record = _record(change.base, [*words, *asked.limits], folder)
    _keep(record, folder / RESULTS, known)
    return record


def _place(tree: Path, words: Sequence[str]) -> Path:
    """Where the record of a tree is kept that was judged by this suite, with these packages."""
    key = json.dumps([content_of(tree), words, __version__, _own_code(), _installed()])
    return cache_root() / "changes" / sha256(key.encode()).hexdigest()[:32]


def _installed() -> list[str]:
    """What a kernel computes and compiles to depends on beside its own code."""
    found = [platform.python_version()]
    for package in ("torch", "triton"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return found


@cache
def _own_code() -> str:
    """What tells two states of the suite apart: a record of another one is not comparable."""
    found = sha256()
    for package in (conformance, rocm_reference, vllm_editions):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*")):
            if path.suffix in (".py", ".toml", ".json") and path.is_file():
                found.update(path.read_bytes())
    return found.hexdigest()


def _keep(run: Run, record: Path, folder: Path) -> None:
    """Keeps a record that has a verdict: what has none may have one the next time."""
    if not run.complete or run.exit_code is ExitCode.INFRASTRUCTURE:
        return
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{os.getpid()}.tmp"
    shutil.copyfile(record, draft)
    draft.replace(folder / RESULTS)


def _record(tree: Path, words: Sequence[str], folder: Path) -> Run:
    command = [sys.executable, "-m", "conformance", "run", "--subject", str(tree), *words]
    code = _code([*command, "--results", str(folder)])
    if code == ExitCode.USAGE:
        raise UsageError(f"{tree} cannot be judged: see above")
    if code not in (ExitCode.CONFORMANT, ExitCode.NOT_CONFORMANT, ExitCode.INFRASTRUCTURE):
        raise InfrastructureError(f"the run of {tree} ended with {code}: see above")
    if not (folder / RESULTS).is_file():
        raise InfrastructureError(f"the run of {tree} left no record: see above")
    return read_results(folder / RESULTS)


def _code(command: Sequence[str]) -> int:
    """A run's exit code. What it prints goes to stderr: stdout is for the comparison."""
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode


def moves(change: Change, asked: Asked) -> str:
    """What the change moves in the selection, as Markdown; "" if its trees cannot be asked."""
    if not change.code_changed:
        return "Nothing: no file changed that the selection depends on."
    command = [sys.executable, "-m", "conformance", "diff", str(change.base), str(change.tree)]
    command += [f"--target={target}" for target in asked.targets]
    command += ["--sweep", str(SWEPT), "--simulate", "always", "--format", "markdown"]
    command += asked.limits
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=MOVES_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""  # it is told for information: a verdict does not wait for it
    return done.stdout.strip() if done.returncode == ExitCode.CONFORMANT else ""


def _edition_of(record: Run) -> str:
    return next((case.edition for case in record.cases if case.edition), "")


def compiled_differently(base: Iterable[CaseResult], change: Iterable[CaseResult]) -> list[str]:
    """How kernels came out otherwise than the base's, a line each: old → new of what differs."""
    old, new = _kernels(base), _kernels(change)
    lines = []
    for key in sorted(old.keys() & new.keys()):
        moved = {c: (old[key][c], n) for c, n in new[key].items() if old[key].get(c, n) != n}
        if moved:
            told = ", ".join(f"{column} {was:,} → {now:,}" for column, (was, now) in moved.items())
            lines.append(f"{key}: {told}")
    lines += [f"{key}: new" for key in sorted(new.keys() - old.keys())]
    lines += [f"{key}: gone" for key in sorted(old.keys() - new.keys())]
    return lines


def _kernels(cases: Iterable[CaseResult]) -> dict[str, Numbers]:
    return dict(_rows(cases))


def _rows(cases: Iterable[CaseResult]) -> Iterator[tuple[str, Numbers]]:
    for rows in table_of(cases).values():
        yield from rows.items()
