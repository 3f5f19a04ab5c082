"""DeepSeek-V4's sparse attention as 0.33.0 ships it: right, and faults in it show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.problems.encodings import in_encoding
from conformance.problems.families import problems_for
from conformance.subjects.vllm.environment import prepare
from tests.suites.released_kernels import Fault, Vllm, missed

RELEASE = "0.33.0"
DSV4 = "ROCM_FLASHMLA_SPARSE_DSV4"
QUICK = {p.tags[0]: p for p in problems_for(DSV4, "quick", 36702, "0.33")}
# Windows and lists of chosen keys that are split, of which the last part is not full.
WINDOW = replace(
    QUICK["windows"], query_lens=(1, 1), context_lens=(32, 70), dominant=((0, 0), (1, 70))
)
CHOSEN = replace(
    QUICK["chosen"], query_lens=(1, 1), context_lens=(129, 33), dominant=((0, 64), (1, 16))
)
SINKS = replace(WINDOW, sinks=True)
PREFILL, FOUR = QUICK["prefill"], QUICK["large"]
KERNELS = "rocm_aiter_mla_sparse.py"
CACHE = "models/deepseek_v4/common/ops/cache_utils.py"
LAYER = "models/deepseek_v4/amd/rocm.py"
FAULTS = {
    "every part of a decode begins with the window's first key": Fault(
        KERNELS, "main_lo = split_id * main_chunk", "main_lo = split_id * 0", WINDOW
    ),
    "a part of a window ends with a tile": Fault(
        KERNELS, "in_range = k_pos < main_hi", "in_range = k_pos < main_len", WINDOW
    ),
    "every part of a decode begins with the first chosen key": Fault(
        KERNELS, "extra_lo = split_id * extra_chunk", "extra_lo = split_id * 0", CHOSEN
    ),
    "chosen keys are read in the window's encoding": Fault(
        KERNELS,
        "IS_FNUZ_EXTRA=False,\n            BLOCK_H=block_h,\n            BLOCK_K=block_k,\n"
        "            NUM_SPLITS=num_splits,",
        "IS_FNUZ_EXTRA=is_fnuz,\n            BLOCK_H=block_h,\n            BLOCK_K=block_k,\n"
        "            NUM_SPLITS=num_splits,",
        CHOSEN,
    ),
    "a sink has no weight": Fault(
        KERNELS, "l_final = l_final + tl.exp(sink - m_final)", "l_final = l_final", SINKS
    ),
    "parts of a decode weigh the same": Fault(
        KERNELS, "w_s = tl.exp(m_s - m_final)", "w_s = tl.exp(0.0 * m_s)", WINDOW
    ),
    "a list has the slots before its keys'": Fault(
        KERNELS,
        "tl.store(out_ptr + out_start + written + rank, vals, mask=keep)",
        "tl.store(out_ptr + out_start + written + rank, vals - (vals > 0), mask=keep)",
        WINDOW,
    ),
    "a scale is the power of two below": Fault(
        CACHE, "exponent = tl.ceil(log_scale)", "exponent = tl.floor(log_scale)", CHOSEN
    ),
    "a key has one scale": Fault(
        CACHE,
        "tl.store(token_scale_ptr + qblock_idx, encoded_scale",
        "tl.store(token_scale_ptr + 0 * qblock_idx, encoded_scale",
        CHOSEN,
    ),
    "the gathered window is a sequence's first keys": Fault(
        CACHE, "start_pos = seq_len - gather_len", "start_pos = 0", PREFILL
    ),
    "a gathered key has one scale": Fault(
        CACHE,
        "encoded_scale = tl.load(token_scale_ptr + qblock_idx)",
        "encoded_scale = tl.load(token_scale_ptr)",
        PREFILL,
    ),
    "a prefill's window is a key too long": Fault(
        LAYER, "pos - (WINDOW_SIZE - 1) - left_add", "pos - WINDOW_SIZE - left_add", PREFILL
    ),
    "every sequence's chosen keys are the first's": Fault(
        LAYER, "topk_indices + M * batch_idx, -1", "topk_indices, -1", PREFILL
    ),
    "chosen keys are gathered in the window's encoding": Fault(
        LAYER, "use_fnuz=False,", "use_fnuz=current_platform.is_fp8_fnuz(),", PREFILL
    ),
}
EXACT = "scale_offsets = CHUNK_START // 64 + tl.arange(0, CHUNK_SIZE // 64)"
OF_GFX950 = {
    "every chunk of columns has the first's scales": Fault(
        KERNELS, EXACT, "scale_offsets = tl.arange(0, CHUNK_SIZE // 64)", WINDOW
    ),
    "the last columns have the scales before theirs": Fault(
        KERNELS,
        "scale_offsets = 6 + tl.arange(0, 2)",
        "scale_offsets = 5 + tl.arange(0, 2)",
        WINDOW,
    ),
}
RAN = {
    "gfx942": "_sparse_attn_decode_partial_kernel",
    "gfx950": "_sparse_attn_decode_gfx950_partial_kernel",
}


def on(faults: dict[str, Fault], fp8: str) -> dict[str, Fault]:
    """The faults with problems in the fp8 of a GPU."""
    return {
        name: replace(each, problem=in_encoding(each.problem, fp8)) for name, each in faults.items()
    }


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "faults"),
    [
        pytest.param("gfx942", on(FAULTS, "fnuz"), id="gfx942"),
        pytest.param("gfx950", on(OF_GFX950, "ocp"), id="gfx950"),
    ],
)
def test_two_caches(target: str, faults: dict[str, Fault], tmp_path: Path) -> None:
    release = prepare(RELEASE)
    right = Vllm(release, tmp_path / "right", target)
    ran: set[str] = set()
    try:
        for problem in dict.fromkeys(fault.problem for fault in faults.values()):
            attended, wrong = right.ask(problem, "")
            assert (attended.refused, attended.raised, wrong) == ("", "", [])
            ran |= {*attended.dispatch}
    finally:
        right.close()
    assert any(name.endswith(RAN[target]) for name in ran)
    assert missed(release, faults, tmp_path, target) == []
