"""torch's attention, which the reference's kernels are measured beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from conformance.benchmarks.setup import Setup


def torch_calls(setup: Setup) -> Iterator[tuple[str, Callable[[], object]]]:
    """torch's attention over dense keys and values, where it computes the same."""
    w = setup.workload
    if not w.is_even or w.window or w.sinks or w.fp8 or w.rope:
        return
    yield "torch flash", _sdpa(setup, "FLASH_ATTENTION")
    yield "torch cuDNN", _sdpa(setup, "CUDNN_ATTENTION")
    yield "torch flex_attention", _flex(setup)


def _dense(setup: Setup) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    w = setup.workload
    (new, context), *_ = w.lengths
    query = setup.query.view(len(w.lengths), new, w.heads, w.head_size).transpose(1, 2)
    shape = (len(w.lengths), new + context, w.kv_heads, w.head_size)
    keys, values = (t.view(shape).transpose(1, 2) for t in (setup.keys, setup.values))
    return query, keys, values


def _sdpa(setup: Setup, name: str) -> Callable[[], object]:
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415 - slow to import
    from torch.nn.attention.bias import causal_lower_right  # noqa: PLC0415

    query, keys, values = _dense(setup)
    new, length = query.shape[2], keys.shape[2]
    mask = causal_lower_right(new, length) if 1 < new < length else None
    chosen = getattr(SDPBackend, name)

    def call() -> object:
        with sdpa_kernel(chosen):
            return torch.nn.functional.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=new == length, enable_gqa=True
            )

    return call


def _flex(setup: Setup) -> Callable[[], object]:
    from torch.nn.attention import flex_attention  # noqa: PLC0415 - slow to import

    query, keys, values = _dense(setup)
    new, length = query.shape[2], keys.shape[2]
    before = length - new
    mask = None
    if new > 1:
        mask = flex_attention.create_block_mask(
            lambda _b, _h, i, j: i + before >= j, None, None, new, length, device=query.device
        )
    attend = torch.compile(flex_attention.flex_attention, dynamic=False)
    return lambda: attend(query, keys, values, block_mask=mask, enable_gqa=True)
