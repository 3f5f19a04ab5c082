"""The harness's own write of DeepSeek-V4's window, read back byte by byte as its format says."""

from __future__ import annotations

import pytest
import torch

from conformance.problems import ds_mla
from conformance.worker.interfaces import Geometry
from conformance.worker.vllm import windowed

KEYS = 4  # of a block
GEOMETRY = Geometry(8, 1, 512, 512, torch.bfloat16, torch.uint8, 256, "fp8_e4m3fn_ds_mla")
CPU = torch.device("cpu")


def filled(
    keys: torch.Tensor, slots: torch.Tensor, encoding: torch.dtype, pad: int
) -> torch.Tensor:
    cache = windowed._pages(3, KEYS, GEOMETRY, pad, CPU)
    flat(cache).fill_(0xEE)
    windowed._store(keys, cache, slots, encoding)
    return cache


def flat(cache: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(cache.untyped_storage())


def read(cache: torch.Tensor, slot: int, encoding: torch.dtype) -> torch.Tensor:
    """A key of a cache: where its bytes are is written out once more, as numbers."""
    block = flat(cache)[slot // KEYS * cache.stride(0) :]
    row = block[slot % KEYS * 576 :][:576]
    scales = block[KEYS * 576 + slot % KEYS * 8 :][:8].double()
    codes = row[:448].view(encoding).double()
    coded = codes * torch.exp2(scales[:7] - 127).repeat_interleave(64)
    return torch.cat([coded, row[448:].clone().view(torch.bfloat16).double()])


@pytest.mark.parametrize("pad", [0, 16])
@pytest.mark.parametrize("encoding", [torch.float8_e4m3fn, torch.float8_e4m3fnuz])
def test_keys_are_where_the_format_has_them(encoding: torch.dtype, pad: int) -> None:
    draw = torch.Generator().manual_seed(5)
    keys = ds_mla.settled(ds_mla.spread(torch.randn(5, 1, 512, generator=draw)).bfloat16())[:, 0]
    slots = torch.tensor([0, 3, 4, 9, 6])
    cache = filled(keys, slots, encoding, pad)
    assert cache.stride(0) % 576 == 0
    for key, slot in zip(ds_mla.stored(keys), slots.tolist(), strict=True):
        assert torch.equal(read(cache, slot, encoding), key), slot


def test_a_key_writes_584_bytes_and_no_other() -> None:
    keys, slots = torch.zeros(2, 512, dtype=torch.bfloat16), torch.tensor([1, 11])
    cache, twin = (windowed._pages(3, KEYS, GEOMETRY, 16, CPU) for _ in range(2))
    flat(cache).fill_(0xEE)
    flat(twin).fill_(0x11)
    for stored in (cache, twin):
        windowed._store(keys, stored, slots, torch.float8_e4m3fn)
    assert int((flat(cache) == flat(twin)).sum()) == 2 * 584
