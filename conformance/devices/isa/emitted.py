"""Which instructions compiled attention holds, by target, and which of them the emulator knows.

``emitted.json`` lists the instructions of all the kernels that were compiled here: Triton's of the
reference, of vLLM and of aiter, and clang's of vLLM's HIP sources. It is made anew from folders of
assembly, such as the cache's::

    python -m conformance.devices.isa.emitted ~/.cache/rocm-attention-conformance --write
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .instructions.table import CONTROL, TABLE, base_name, is_known

TABLE_FILE = Path(__file__).with_name("emitted.json")
SUFFIXES = (".amdgcn", ".s")
_TARGET = re.compile(r'^\s*\.amdgcn_target\s+"[^"]*(gfx[0-9a-f]+)', re.MULTILINE)
_CODE = re.compile(r"^\t([a-z]\w+)(?=\s|$)", re.MULTILINE)
_SECOND = re.compile(r" :: ([a-z]\w+)")


@dataclass(frozen=True)
class Emitted:
    """What kernels for one target hold: how many kernels, and the instructions' base names."""

    kernels: int
    instructions: frozenset[str]

    @property
    def unknown(self) -> list[str]:
        """Those that the emulator refuses."""
        return sorted(name for name in self.instructions if not is_known(name))


@cache
def emitted() -> Mapping[str, Emitted]:
    """The table, by target."""
    rows = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    return {
        target: Emitted(row["kernels"], frozenset(row["instructions"]))
        for target, row in rows.items()
    }


def known() -> int:
    """How many instructions the emulator knows, but for the matrix ones, by their base names."""
    return len({*TABLE, *CONTROL})


def instructions_of(text: str) -> frozenset[str]:
    """The base names of the instructions in a kernel's assembly, both of a pair."""
    return frozenset(map(base_name, (*_CODE.findall(text), *_SECOND.findall(text))))


def gathered(texts: Iterable[str]) -> dict[str, Emitted]:
    """What kernels hold, by target; the same text counts once, and one for no target does not."""
    found: dict[str, Emitted] = {}
    for text in set(texts):
        match = _TARGET.search(text)
        if match is not None:
            before = found.get(match.group(1), Emitted(0, frozenset()))
            names = before.instructions | instructions_of(text)
            found[match.group(1)] = Emitted(before.kernels + 1, names)
    return found


def merged(one: Mapping[str, Emitted], two: Mapping[str, Emitted]) -> dict[str, Emitted]:
    """Both tables' instructions; the kernels of the larger."""
    nothing = Emitted(0, frozenset())
    return {
        target: Emitted(max(a.kernels, b.kernels), frozenset({*a.instructions, *b.instructions}))
        for target in sorted({*one, *two})
        for a, b in [(one.get(target, nothing), two.get(target, nothing))]
    }


def _texts(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in SUFFIXES:
                yield path.read_text(encoding="utf-8", errors="replace")


def main(arguments: list[str]) -> None:
    """Prints what the folders' kernels hold; ``--write`` adds it to the table."""
    found = gathered(_texts(Path(one) for one in arguments if one != "--write"))
    if "--write" in arguments:
        found = merged(emitted() if TABLE_FILE.is_file() else {}, found)
        rows = {
            target: {"kernels": row.kernels, "instructions": sorted(row.instructions)}
            for target, row in found.items()
        }
        TABLE_FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for target, row in found.items():
        sys.stdout.write(
            f"{target}: {row.kernels} kernels, {len(row.instructions)} instructions, "
            f"unknown: {' '.join(row.unknown) or 'none'}\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
