"""A change's verdict: what it broke, and all that it moves, for the build's page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.changes.judging import compiled_differently
from conformance.changes.trees import Change
from conformance.errors import ExitCode
from conformance.reports.baseline import BROKEN
from conformance.reports.console import escaped
from conformance.reports.report_files import Built, Earlier, build
from conformance.reports.safe_text import plain
from conformance.results import read_results
from conformance.results.folder import RESULTS

NOTE = "annotation.md"
KERNELS_SHOWN = 60
MOVES_LIMIT = 200 * 1024
FILES_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """``code`` is 1 only for what the change broke; ``sentence`` says why it is what it is."""

    code: ExitCode
    sentence: str
    note: str
    built: Built
    moves: str
    kernels: list[str]


def verdict_of(change: Change, moves: str, folder: Path) -> Verdict:
    """Compares the two records in ``folder``, and writes the report into ``folder/report``.

    ``moves`` is what moves in the selection, as Markdown.
    """
    earlier = Earlier(baseline=str(folder / "base"), called=f"the base ({change.against})")
    built = build(folder / "change", folder / "report", earlier=earlier)
    code = built.exit_code(new_only=True)
    sentence = _sentence(code, built)
    kernels = compiled_differently(
        read_results(folder / "base" / RESULTS).cases, built.merged.cases
    )
    parts = [
        f"### {escaped(plain(sentence))}",
        _files(change.files),
        built.annotation.strip(),
        f"### What moves in the selection\n\n{_cut(moves or 'It could not be found out.')}",
        f"### Kernels that compile differently\n\n{_list(kernels)}",
    ]
    note = "\n\n".join(parts) + "\n"
    (folder / "report" / NOTE).write_text(note, encoding="utf-8")
    return Verdict(code, sentence, note, built, moves, kernels)


def _sentence(code: ExitCode, built: Built) -> str:
    comparison = built.comparison
    assert comparison is not None
    broken = sum(map(comparison.count, BROKEN))
    before = comparison.count("still failing")
    had = f"; {before:,} failed before it too" if before else ""
    if code is ExitCode.NOT_CONFORMANT:
        return f"The change breaks {broken:,} result{'s' * (broken != 1)}{had}"
    if code is ExitCode.CONFORMANT:
        return f"The change breaks nothing{had}"
    return f"No verdict on the change{had}"


def _files(files: tuple[str, ...]) -> str:
    names = ", ".join(f"<code>{escaped(plain(name))}</code>" for name in files[:FILES_SHOWN])
    more = f" and {len(files) - FILES_SHOWN:,} more" if len(files) > FILES_SHOWN else ""
    return f"It changes {names}{more}." if files else "It changes no file of vLLM's code."


def _list(lines: list[str]) -> str:
    if not lines:
        return "None."
    shown = [f"- {escaped(plain(line))}" for line in lines[:KERNELS_SHOWN]]
    if len(lines) > KERNELS_SHOWN:
        shown.append(f"- and {len(lines) - KERNELS_SHOWN:,} more")
    return "\n".join(shown)


def _cut(text: str) -> str:
    data = text.encode()
    if len(data) <= MOVES_LIMIT:
        return text
    kept = data[:MOVES_LIMIT].decode(errors="ignore").rpartition("\n")[0]
    return f"{kept}\n\n… and more: `rocm-conformance diff` shows all of it."
