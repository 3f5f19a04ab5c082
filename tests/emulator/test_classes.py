"""The ten classes of floats: each value is of its own and of no other, whatever its type."""

from __future__ import annotations

import pytest

from tests.emulator.isa_cases import GFX1201, run

# Of each class, in the order of the bits that ask for it, the least and the largest: signalling
# NaN, quiet NaN, -inf, normal and denormal negative numbers, -0, 0, denormal and normal positive
# numbers, inf.
CLASSES = {
    "f16": [
        (0x7C01, 0xFDFF),
        (0x7E00, 0xFFFF),
        (0xFC00, 0xFC00),
        (0x8400, 0xFBFF),
        (0x8001, 0x83FF),
        (0x8000, 0x8000),
        (0, 0),
        (1, 0x03FF),
        (0x0400, 0x7BFF),
        (0x7C00, 0x7C00),
    ],
    "f32": [
        (0x7F800001, 0xFFBFFFFF),
        (0x7FC00000, 0xFFFFFFFF),
        (0xFF800000, 0xFF800000),
        (0x80800000, 0xFF7FFFFF),
        (0x80000001, 0x807FFFFF),
        (0x80000000, 0x80000000),
        (0, 0),
        (1, 0x007FFFFF),
        (0x00800000, 0x7F7FFFFF),
        (0x7F800000, 0x7F800000),
    ],
    "f64": [
        (0x7FF0000000000001, 0xFFF7FFFFFFFFFFFF),
        (0x7FF8000000000000, 0xFFFFFFFFFFFFFFFF),
        (0xFFF << 52, 0xFFF << 52),
        (0x8010000000000000, 0xFFEFFFFFFFFFFFFF),
        (0x8000000000000001, 0x800FFFFFFFFFFFFF),
        (1 << 63, 1 << 63),
        (0, 0),
        (1, 0x000FFFFFFFFFFFFF),
        (0x0010000000000000, 0x7FEFFFFFFFFFFFFF),
        (0x7FF << 52, 0x7FF << 52),
    ],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_value_is_of_its_class_alone(kind: str) -> None:
    """Lane n asks for class n; lanes 10 to 19 for all but that; the rest for none."""
    asked = [1 << n for n in range(10)] + [0x3FF ^ 1 << n for n in range(10)] + [0] * 12
    source = "v[2:3]" if kind == "f64" else "v2"
    for number, values in enumerate(CLASSES[kind]):
        for value in values:
            m = run(
                f"v_cmp_class_{kind}_e64 s4, {source}, v4",
                GFX1201,
                v={2: value & 0xFFFFFFFF, 3: value >> 32, 4: asked},
            )
            wanted = 1 << number | (0x3FF ^ 1 << number) << 10
            assert int(m.scalar[4, 0]) == wanted, (hex(value), number)
