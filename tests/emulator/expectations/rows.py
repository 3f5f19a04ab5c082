"""The rows: an instruction, a target, numbers in, the number out, and where that is written.

``rows.json.gz`` holds half of what tinygrad's hardware tests and the tests of AMD's emulator
rocjitsu say of single instructions: numbers only. A row of rocjitsu's tells everything that an
instruction needs. A row of tinygrad's has the constants of a whole test, which may have many
instructions: one whose test is a single instruction says what that gives.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("rows.json.gz")


@dataclass(frozen=True)
class Row:
    """``inputs`` and ``expected`` are bits where they are whole numbers. ``measure``: how many
    units in the last place a result may be off, or by which comparison it is held to ``expected``;
    None: they are equal."""

    instruction: str
    target: str
    inputs: tuple[Any, ...]
    expected: Any
    measure: int | str | None
    source: str

    @property
    def name(self) -> str:
        """The mnemonic."""
        return self.instruction.split(" ", 1)[0]

    @property
    def of_tinygrad(self) -> bool:
        return "tinygrad" in self.source


def rows() -> list[Row]:
    """Every row, in the order of the file."""
    held = json.loads(gzip.decompress(_FILE.read_bytes()))
    return [
        Row(name, target, tuple(inputs), expected, measure, held["sources"][source])
        for name, target, inputs, expected, measure, source in held["rows"]
    ]
