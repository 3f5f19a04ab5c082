"""What ROCM_OCTAVE's caches hold: the format by hand, and that no problem hangs on a last place."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from conformance.problems import octave_cache as octave
from conformance.problems.families import problems_for
from conformance.problems.tensors import materialise
from conformance.worker.attend import packed_bytes


def rotated_by_hand(x: list[float], block: int) -> list[float]:
    """The definition: signs, then in each block sums over products with (-1) ** bits in common."""
    signed = [v * s for v, s in zip(x, octave.signs().tolist(), strict=True)]
    made = []
    for start in range(0, len(x), block):
        part = signed[start : start + block]
        for j in range(block):
            total = sum((-1) ** (i & j).bit_count() * v for i, v in enumerate(part))
            made.append(total / math.sqrt(block))
    return made


def quantised_by_hand(block: list[float], bits: int) -> tuple[list[int], float]:
    """Codes of a block and what an entry of its codebook is multiplied by, times 64."""
    entries = octave.CODEBOOKS[bits]
    square = sum(v * v for v in block)
    mean = math.sqrt(square / len(block))
    unit = {3: 59.0, 4: 46.0}[bits]
    codes = []
    for v in block:
        apart = [abs(entry - v / mean * unit) for entry in entries]
        codes.append(apart.index(min(apart)))
    product = sum(v * entries[c] for v, c in zip(block, codes, strict=True))
    return codes, square / product * 64


def code_in(row: bytes, at: int, count: int, bits: int, number: int) -> int:
    """The code of an element among ``count`` whose codes begin at a byte of a row."""
    if bits == 4:
        word, place = divmod(number, 8)
        byte, high = at + 4 * word + place % 4, place // 4
        return row[byte] >> 4 * high & 15
    low, place = divmod(number, 16)
    lower = row[at + 4 * low + place % 4] >> 2 * (place // 4) & 3
    word, place = divmod(number, 32)
    upper = row[at + count // 4 + 4 * word + place % 4] >> place // 4 & 1
    return lower + 4 * upper


@pytest.mark.parametrize(
    ("name", "blocks", "size"),
    [
        ("octave_k3v4", [(64, 4), (192, 3), (256, 4)], 242),
        ("octave_k3v3", [(64, 4), (192, 3), (256, 3)], 210),
        ("octave_k3v3_compact", [(256, 3), (256, 3)], 196),
    ],
)
def test_a_row_has_codes_where_the_format_has_them(
    name: str, blocks: list[tuple[int, int]], size: int
) -> None:
    draw = torch.Generator().manual_seed(7)
    key, value = (torch.randn(1, 256, generator=draw).half() for _ in range(2))
    row = bytes(octave.rows(key, value, name)[0].tolist())
    assert len(row) == size == packed_bytes(name, 256)
    whole = name.endswith("compact")
    turned = rotated_by_hand(key[0].tolist(), 256 if whole else 64)
    rotated = [*turned, *rotated_by_hand(value[0].tolist(), 256)]
    at = element = 0
    scales = []
    for count, bits in blocks:
        step = 256 if whole or element == 256 else 64
        for start in range(0, count, step):
            part = rotated[element + start : element + start + step]
            codes, scale = quantised_by_hand(part, bits)
            found = [code_in(row, at, count, bits, start + n) for n in range(step)]
            assert found == codes
            scales.append(scale)
        at += count * bits // 8
        element += count
    stored = struct.unpack(f"<{len(scales)}e", row[at:])
    assert list(stored) == pytest.approx(scales, rel=2**-11)


@pytest.mark.parametrize("name", octave.FORMATS)
def test_what_is_read_has_the_product_that_the_format_keeps(name: str) -> None:
    draw = torch.Generator().manual_seed(8)
    value = torch.randn(20, 256, generator=draw).bfloat16()
    read = octave.stored_value(value, name)
    square = (value.double() ** 2).sum(-1)
    assert torch.allclose((value.double() * read).sum(-1), square, rtol=2**-10)


def test_a_rotation_keeps_products() -> None:
    for block in (64, 256):
        turn = octave.rotation(block)
        assert torch.allclose(turn @ turn.T, torch.eye(256, dtype=torch.float64))
    assert not octave.rotation(64)[:64, 64:].any()
    assert bool(octave.rotation(256).all())


def test_a_row_of_zeros_is_zeros() -> None:
    zeros = torch.zeros(1, 256).half()
    for name in octave.FORMATS:
        assert not octave.stored_key(zeros, name).any()
        assert not octave.stored_value(zeros, name).any()


@pytest.mark.parametrize("name", octave.FORMATS)
def test_settled_rows_are_closed(name: str) -> None:
    draw = torch.Generator().manual_seed(9)
    rows = torch.randn(200, 256, generator=draw).half()
    turn, bits = octave.of_keys(name), octave.FORMATS[name].key
    assert bool(octave._is_open(rows, turn, bits).any())
    settled = octave.settled_key(rows, name)
    assert not bool(octave._is_open(settled, turn, bits).any())
    assert float((settled - rows).abs().max()) < 0.02


def test_problems_hang_on_no_last_place() -> None:
    for problem in problems_for("ROCM_OCTAVE", "isa-quick"):
        tensors, name = materialise(problem), problem.kv_cache_dtype
        key, value = octave.of_keys(name), octave.of_values()
        form = octave.FORMATS[name]
        assert not bool(octave._is_open(tensors.keys, key, form.key).any())
        assert not bool(octave._is_open(tensors.values, value, (form.value,)).any())


def test_a_prefills_query_is_whole_steps_of_its_largest_magnitude() -> None:
    draw = torch.Generator().manual_seed(10)
    query = torch.randn(50, 256, generator=draw).half()
    rounded, moved = octave.rounded_query(query, "octave_k3v3")
    turned = (query.double() @ octave.of_keys("octave_k3v3")).half().double()
    step = turned.abs().amax(-1, keepdim=True) / 127
    whole = rounded / step
    assert torch.allclose(whole, whole.round(), atol=1e-9)
    assert float(whole.abs().max()) == pytest.approx(127)
    assert bool(((rounded - turned).abs() <= step / 2 + 1e-12).all())
    # Next to a middle a coordinate may become either neighbour: few do.
    assert 0 < float((moved > step / 2).double().mean()) < 0.1
