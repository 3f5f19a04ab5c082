"""A model of every instruction in plain Python: one lane at a time, on ints, floats and fractions.

Written from the manuals and not from the emulator: nothing here imports it or numpy. ``VECTOR`` and
``SCALAR`` hold a :class:`Row` for each name; the other modules model what no row can say.
"""

from __future__ import annotations

from tests.emulator.isa_model.bits import Row
from tests.emulator.isa_model.floats import FLOATS
from tests.emulator.isa_model.integers import INTEGERS
from tests.emulator.isa_model.packed import PACKED
from tests.emulator.isa_model.scalars import SCALAR

VECTOR: dict[str, Row] = {**FLOATS, **INTEGERS, **PACKED}

__all__ = ["SCALAR", "VECTOR", "Row"]
