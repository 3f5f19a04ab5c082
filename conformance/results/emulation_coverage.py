"""How much of each kernel's machine code the problems of an emulated run executed.

Each process remembers which instructions of a compilation it has executed; a case counts those it
executed first. Processes do not know of each other. If several ran the same compilation, the sums
over a run amount to a mean over processes, so that a share is never overstated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.results import CaseResult

EXECUTED, INSTRUCTIONS, LINE = "executed ", "instructions ", "line "
WAVE_INSTRUCTIONS = "wave instructions"


@dataclass(frozen=True)
class Coverage:
    """The instructions of one kernel, in all its compilations, and how many were executed."""

    kernel: str
    executed: int
    instructions: int

    @property
    def share(self) -> float:
        return self.executed / self.instructions if self.instructions else 0.0


def counts_of(kernels: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """A case's counts, from the kernels that a device reports (``devices.collect``)."""
    counts: Counter[str] = Counter()
    for kernel in kernels:
        counts[EXECUTED + kernel["name"]] += kernel["newly_executed"]
        counts[INSTRUCTIONS + kernel["name"]] += kernel["newly_loaded"]
        counts[WAVE_INSTRUCTIONS] += kernel["wave_instructions"]
        counts.update({LINE + line: count for line, count in kernel["lines"].items()})
    return dict(counts)


def coverage_of(cases: Iterable[CaseResult]) -> list[Coverage]:
    """The coverage of each kernel of a run, sorted by name; a case listed twice counts once."""
    sums: Counter[str] = Counter()
    for case in {(case.suite, case.name): case for case in cases}.values():
        sums.update(case.counts)
    names = sorted(n.removeprefix(INSTRUCTIONS) for n in sums if n.startswith(INSTRUCTIONS))
    return [Coverage(n, sums[EXECUTED + n], sums[INSTRUCTIONS + n]) for n in names]


def sentence(coverage: Sequence[Coverage]) -> str:
    """The coverage in half a line; "" if nothing was emulated."""
    if not coverage:
        return ""
    whole = Coverage("", sum(c.executed for c in coverage), sum(c.instructions for c in coverage))
    kernels = f"{len(coverage)} kernel{'' if len(coverage) == 1 else 's'}"
    return f"{whole.share:.1%} of {whole.instructions:,} instructions of {kernels} executed"


def rows(coverage: Sequence[Coverage]) -> list[tuple[str, str, str, str]]:
    """The coverage as a table's rows: kernel, instructions, executed, share."""
    return [
        (c.kernel, f"{c.instructions:,}", f"{c.executed:,}", f"{c.share:.1%}") for c in coverage
    ]


# -- source lines ---------------------------------------------------------------------------------
Lines = Mapping[str, Mapping[int, int]]


def lines_of(cases: Iterable[CaseResult]) -> Lines:
    """By source file and line, how many instructions were executed; 0 where there only are some."""
    sums: Counter[str] = Counter()
    for case in {(case.suite, case.name): case for case in cases}.values():
        sums.update({n: count for n, count in case.counts.items() if n.startswith(LINE)})
    found: dict[str, dict[int, int]] = {}
    for name in sorted(sums):
        path, _, number = name.removeprefix(LINE).rpartition(":")
        found.setdefault(path, {})[int(number)] = sums[name]
    return found


def lcov(lines: Lines) -> str:
    """The lines as a trace file of lcov: https://manpages.debian.org/testing/lcov/geninfo.1.en.html."""
    records = []
    for path, counts in lines.items():
        data = [f"DA:{number},{count}" for number, count in sorted(counts.items())]
        hit = sum(count > 0 for count in counts.values())
        ends = [f"LH:{hit}", f"LF:{len(counts)}", "end_of_record"]
        records += ["TN:", f"SF:{path}", *data, *ends]
    return "".join(f"{line}\n" for line in records)


def listing(lines: Lines, read: Callable[[str], str | None]) -> str:
    """Source files with the number of executed instructions before each line; "!" where there are
    some, and none was executed. ``read`` gives a file's text, None where it is not here."""
    out = []
    for path, counts in lines.items():
        hit = sum(count > 0 for count in counts.values())
        out.append(f"{path}: {hit} of {len(counts)} lines with instructions executed")
        text = read(path)
        rows = (
            dict(enumerate(text.splitlines(), 1)) if text is not None else dict.fromkeys(counts, "")
        )
        for number, row in rows.items():
            shown = str(counts[number] or "!") if number in counts else ""
            out.append(f"{shown:>7} {number:>5}  {row}".rstrip())
        out.append("")
    return "\n".join(out)


COLUMNS = ("kernel", "instructions", "executed", "share")
