"""Judges both sides of a change by runs of the suite, and compares what they came to.

A run is a process of its own: what a vLLM leaves behind in one can't reach the other. The base's
record is kept in the cache, so that the next change from the same commit does not wait for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from conformance import __version__
from conformance.cache import cache_root
from conformance.changes.trees import Change
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
    """How much of a change is judged: cells, targets, suites, and options for every run."""

    cells: tuple[str, ...]
    targets: tuple[str, ...]
    suites: tuple[str, ...]
    arguments: tuple[str, ...] = ()

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
    base = _base(change, asked.of_run(edition), folder / "base", say)
    say(f"the change: {change.tree}")
    _record(change.tree, asked.of_run(edition or _edition_of(base)), folder / "change")


def _base(change: Change, words: list[str], folder: Path, say: Say) -> Run:
    known = _kept(change, words)
    if known is not None and (known / RESULTS).is_file():
        say(f"the base: {change.against}, judged before")
        folder.mkdir(parents=True)
        shutil.copyfile(known / RESULTS, folder / RESULTS)
        return read_results(folder / RESULTS)
    say(f"the base: {change.against}")
    record = _record(change.base, words, folder)
    # What has no verdict may have one the next time.
    if known is not None and record.complete and record.exit_code is not ExitCode.INFRASTRUCTURE:
        _keep(folder / RESULTS, known)
    return record


def _kept(change: Change, words: list[str]) -> Path | None:
    if not change.commit:
        return None
    key = json.dumps([change.commit, words, __version__, _own_code()])
    return cache_root() / "changes" / sha256(key.encode()).hexdigest()[:32]


def _own_code() -> str:
    """What tells two states of the suite apart: a record of another one is not comparable."""
    found = sha256()
    for package in ("conformance", "vllm_editions"):
        top = Path(__file__).resolve().parents[2] / package
        for path in sorted(top.rglob("*")):
            if path.suffix in (".py", ".toml", ".json") and path.is_file():
                found.update(path.read_bytes())
    return found.hexdigest()


def _keep(record: Path, folder: Path) -> None:
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
