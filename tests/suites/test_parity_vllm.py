"""vLLM's own kernels before the parity judge: right ones pass, faults in them show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from conformance.problems.families import backends
from conformance.subjects.vllm.environment import prepare
from conformance.suites.parity.coverage import vllm_kernels
from tests.kernels.kernel_faults.problems import (
    FLEX,
    MLA,
    ROCM,
    TRITON,
    decode,
    latent,
    latent_prefill,
    mixed,
)
from tests.suites.released_kernels import Fault, Vllm

PREFILL = replace(
    mixed(TRITON), query_lens=(34, 3), context_lens=(0, 20), dominant=(), head_pad=8, row_pad=1
)
# Heads that no custom kernel takes, so that vLLM decodes with its Triton kernel on every target.
ROCM_DECODE = replace(
    decode(ROCM), head_size=80, v_head_size=80, context_lens=(9, 40), dominant=((1, 40),)
)
ROCM_PREFILL = replace(
    ROCM_DECODE, query_lens=(20, 5), context_lens=(0, 16), dominant=((0, 12), (1, 17))
)
# What 0.19.0 gets wrong, which is waived; faults of other kinds must show under it.
WINDOW = replace(ROCM_PREFILL, window=(3, 0), dominant=((0, 12),))
PREFIX = replace(
    PREFILL, query_lens=(24,), context_lens=(0,), window=(2, 0), mm_prefix=(((1, 22),),)
)
DECODE_TOO = replace(ROCM_PREFILL, query_lens=(1, 5), dominant=())
UNDER_WAIVERS = (
    (WINDOW, "zero", ["window-one-short"]),
    (PREFIX, "zero", ["value-outside-window-zero"]),
    (DECODE_TOO, "", ["unused-slots-decode"]),
)
FP8 = replace(
    decode(TRITON),
    context_lens=(9, 20),
    dominant=(),
    kv_cache_dtype="fp8_e4m3fnuz",
    k_scale=0.0625,
    v_scale=0.03125,
)
ENCODER = replace(
    PREFILL,
    kind="varlen",
    context_lens=(0, 0),
    causal=False,
    extra_rows=0,
    high_blocks=False,
)
LATENT = replace(latent(MLA), context_lens=(39, 3, 0, 20), query_lens=(1,) * 4, dominant=())


FAULTS = {
    "the last tile is dropped": Fault(
        "triton_unified_attention.py",
        "    tile_end = num_tiles\n",
        "    tile_end = num_tiles - 1\n",
        PREFILL,
    ),
    "fp8 keys are multiplied by their scale": Fault(
        "triton_reshape_and_cache_flash.py",
        "key_load / tl.load(k_scale)",
        "key_load * tl.load(k_scale)",
        FP8,
    ),
    "the first split is left out": Fault(
        "triton_decode_attention.py",
        "for split_kv_id in range(0, NUM_KV_SPLITS):",
        "for split_kv_id in range(1, NUM_KV_SPLITS):",
        LATENT,
    ),
    "a merged part is not divided": Fault(
        "triton_merge_attn_states.py", "p_se / out_se", "p_se", latent_prefill(MLA)
    ),
    "a query sees the next key": Fault(
        "prefix_prefill.py",
        "offs_m[:, None] >= (start_n",
        "offs_m[:, None] + 1 >= (start_n",
        ROCM_PREFILL,
    ),
    "the last key is not seen": Fault(
        "chunked_prefill_paged_decode.py",
        "seq_offset[None, :] < boundary",
        "seq_offset[None, :] + 1 < boundary",
        ROCM_DECODE,
    ),
    "an encoder's first tile is skipped": Fault(
        "triton_prefill_attention.py",
        "    start_n_limit = 0\n",
        "    start_n_limit = BLOCK_N\n",
        ENCODER,
    ),
}
RIGHT = [
    *(fault.problem for fault in FAULTS.values()),
    replace(mixed(FLEX), dominant=(), context_lens=(10, 20, 0), query_lens=(1, 5, 9)),
    replace(ENCODER, backend="TORCH_SDPA"),
]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    found = Vllm(prepare("0.19.0"), tmp_path_factory.mktemp("right"))
    yield found
    found.close()


@pytest.mark.vllm
def test_vllms_kernels(right: Vllm) -> None:
    """One test, in one order, because a session of vLLM takes seconds to begin."""
    ran: set[str] = set()
    for problem in RIGHT:
        attended, wrong = right.ask(problem)
        assert (attended.refused, wrong) == ("", []), problem.id
        ran |= set(attended.dispatch)
    named = {kernel for backend in backends() for kernel in vllm_kernels(backend, "0.19")}
    assert {kernel for kernel in ran if not kernel.startswith("harness")} <= named
    # A fault of 0.19.0's own: 0 times what stands in an unused slot.
    assert right.ask(ROCM_DECODE, cache_filling="")[1]
    # What vLLM does not claim, or has no Triton kernel for, is refused in so many words.
    custom = replace(ROCM_DECODE, head_size=64, v_head_size=64)
    assert "needs an AMD GPU: paged_attention_rocm" in right.ask(custom)[0].refused
    sinks = replace(ROCM_DECODE, sinks=True)
    assert "does not admit it: attention sinks not supported" in right.ask(sinks)[0].refused
    other = replace(FP8, kv_cache_dtype="fp8_e4m3fn")
    assert right.ask(other)[0].refused == "vLLM's fp8 cache on gfx942 is e4m3fnuz"
    for problem, filling, names in UNDER_WAIVERS:
        assert right.known(problem, filling) == names
    right.break_it(list(FAULTS.values()))
    for problem, filling, _ in UNDER_WAIVERS:
        assert right.known(problem, filling) == []
    for name, fault in FAULTS.items():
        attended, wrong = right.ask(fault.problem)
        assert attended.raised == "", name
        assert wrong and "error/bound" in wrong[0], name
