"""Scales per token and head, and interleaved values: what the harness does for vLLM's caches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.worker.errors import UnknownError
from conformance.worker.launches import Launches
from conformance.worker.vllm.head_scaled import TritonBackend
from conformance.worker.vllm.replaced_ops import _ReplacedOps


def backend(cache_type: str) -> TritonBackend:
    kernels: Any = SimpleNamespace(device=torch.device("cpu"), launches=Launches(), simulated=True)
    made = TritonBackend(kernels, "TRITON_ATTN")
    made._cache_type = cache_type
    return made


class Implementation:
    """Keeps a view of a cache's scales, and makes them 1 when it is made."""

    def _ensure_scale_caches(self, cache: torch.Tensor) -> None:
        self.scales = cache[..., -4:].view(torch.float32)
        self.scales.fill_(1.0)


def test_what_is_in_a_cache_stays_when_its_scales_are_found() -> None:
    cache = torch.arange(2 * 3 * 12, dtype=torch.uint8).view(2, 3, 12)
    before, implementation = cache.clone(), Implementation()
    made: Any = backend("int8_per_token_head").met(implementation, cache)  # type: ignore[arg-type] # a part of one
    assert made is implementation
    assert torch.equal(cache, before)
    made.scales.fill_(2.0)
    assert cache[0, 0, -4:].view(torch.float32).tolist() == [2.0]


def test_an_implementation_without_scales_is_unknown_to_the_harness() -> None:
    plain: Any = SimpleNamespace()
    assert backend("fp8_e4m3").met(plain, torch.zeros(1)) is plain
    with pytest.raises(UnknownError, match="where this vLLM keeps the scales of int4"):
        backend("int4_per_token_head").met(plain, torch.zeros(1))


@pytest.mark.parametrize(("name", "wanted"), [("e4m3fnuz", "fp8_per_token_head"), ("e4m3fn", "")])
def test_fp8_is_the_target_s_own(name: str, wanted: str) -> None:
    made = backend("")
    made.kernels.target = "gfx942"
    platform: Any = SimpleNamespace(fp8_dtype=lambda: torch.float8_e4m3fnuz)
    if wanted:
        assert made._cache_dtype(f"fp8_{name}_per_token_head", platform) == wanted
        return
    with pytest.raises(Exception, match="fp8 cache on gfx942 is e4m3fnuz"):
        made._cache_dtype(f"fp8_{name}_per_token_head", platform)


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_op_that_stands_in_for_hip_interleaves_values(interleaved: bool) -> None:
    """[blocks, G, D, size], or [blocks, G, size / x, D, x] in the same bytes."""
    size, x, heads, width = 16, 8, 2, 16
    keys = torch.zeros(3, heads, width // x, size, x, dtype=torch.float16)
    values = torch.zeros(3, heads, width, size, dtype=torch.float16)
    rows = torch.randn(2, heads, width).half()
    one, slots = torch.ones(1), torch.tensor([16 + 11, -1])
    op = _ReplacedOps(Launches()).reshape_and_cache
    op(rows, rows, keys, values, slots, "auto", one, one, interleaved)
    at = values.view(3, heads, size // x, width, x)[1, :, 1, :, 3]
    assert torch.equal(at if interleaved else values[1, ..., 11], rows[0])
    assert int((values != 0).sum()) == int((rows[0] != 0).sum())
