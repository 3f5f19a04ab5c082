"""What fills the unused slots of caches of bytes."""

from __future__ import annotations

import pytest
import torch

from conformance.worker.attend import packed_bytes
from conformance.worker.guarded_memory import count_equal, fill, opposite


@pytest.mark.parametrize("offset", [0, 1])
def test_bytes_are_poison_as_float16_wherever_it_begins(offset: int) -> None:
    cache = torch.zeros(2, 3, 7, dtype=torch.uint8)
    seen = cache.view(-1)[offset : offset + 40].clone()
    assert not seen.any()
    for poison in ("nan", "inf"):
        fill(cache, poison)
        seen = cache.view(-1)[offset : offset + 40].clone()
        assert seen.view(torch.float16).isnan().all()
        assert seen.view(torch.float8_e4m3fn).float().isnan().all()
    fill(cache, "huge")
    seen = cache.view(-1)[offset : offset + 40].clone()
    assert (seen.view(torch.float16) > 60_000).all()
    assert (seen.view(torch.float8_e4m3fn).float() > 300).all()
    fill(cache, "zero")
    assert not cache.any()


def test_a_row_stored_in_part_is_counted_so() -> None:
    """The byte that makes a row's length even is no part of it."""
    cache, twin = (torch.empty(1, 2, 1, 136, dtype=torch.uint8) for _ in range(2))
    fill(cache, "nan")
    opposite(cache, twin)
    for each in (cache, twin):
        each[0, 0, 0, : packed_bytes("ultraquant_4bit", 128)] = 7
    assert count_equal(cache, twin) == packed_bytes("ultraquant_4bit", 128) == 136
    twin[0, 0, 0, 5] = 8
    assert count_equal(cache, twin) == 135
