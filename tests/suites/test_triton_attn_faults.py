"""Caches with scales per token and head, prompts beyond a window, interleaved values: what 0.33.0's
own kernels make of them is right, and a fault in a kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.subjects.vllm.environment import prepare
from conformance.suites.parity.coverage import vllm_kernels
from tests.kernels.kernel_faults import head_scaled as heads
from tests.suites.released_kernels import Fault, Vllm, missed

RELEASE = "0.33.0"
STORE = "triton_reshape_and_cache_flash.py"
CORE, INT4 = "triton_unified_attention.py", "int4_per_token_head.py"
HEADS_FAULTS = {
    "a scale is that of the largest element, not of the largest magnitude": Fault(
        STORE, "tl.max(tl.abs(k_h))", "tl.max(k_h)", heads.INT8_DECODE
    ),
    "codes of values are cut off": Fault(
        STORE, "v_q = tl.where(v_q >= 0, v_q + 0.5, v_q - 0.5)", "v_q = v_q", heads.INT8_DECODE
    ),
    "all slots of a block store one key's scale": Fault(
        STORE, "+ slot_in_blk * stride_ks_slot\n", "\n", heads.INT8_MIXED
    ),
    "all slots of a block read one value's scale": Fault(
        CORE, "+ (seq_offset % BLOCK_SIZE) * stride_vs_slot\n", "\n", heads.FNUZ_DECODE
    ),
    "keys are not multiplied by their scales": Fault(
        CORE, "(score_scale * k_token_head_scales[None, :])", "score_scale", heads.INT8_MIXED
    ),
    "probabilities are multiplied by the keys' scales": Fault(
        CORE,
        "(P * v_token_head_scales[None, :])",
        "(P * k_token_head_scales[None, :])",
        heads.INT8_DECODE,
    ),
    "int4's second element of a byte is the first": Fault(
        INT4, "packed & 0xF, (packed >> 4) & 0xF", "packed & 0xF, packed & 0xF", heads.INT4_DECODE
    ),
    "int4's zero loses a bit": Fault(
        INT4, "v_zp = (vs_bits & 0xF)", "v_zp = (vs_bits & 0x7)", heads.INT4_DECODE
    ),
    "int4's outputs are rotated forwards": Fault(
        INT4, "single_rht(out.float(), inverse=True)", "single_rht(out.float())", heads.INT4_MIXED
    ),
}
HELPERS = "triton_attention_helpers.py"
PROMPTS_FAULTS = {
    "a prompt is a key longer": Fault(
        HELPERS,
        "in_prefix = seq_offset[None, :] < prefix_len",
        "in_prefix = seq_offset[None, :] <= prefix_len",
        heads.PROMPT_DECODE,
    ),
    "a window is a key wider": Fault(
        HELPERS,
        "(query_abs_pos - seq_offset) < R_SWA_WINDOW",
        "(query_abs_pos - seq_offset) <= R_SWA_WINDOW",
        heads.PROMPT_MIXED,
    ),
    "a batch's first prompt is that of all": Fault(
        HELPERS,
        "tl.load(rswa_prefix_lens_ptr + seq_idx)",
        "tl.load(rswa_prefix_lens_ptr)",
        heads.PROMPT_MIXED,
    ),
}
PACKS_FP8, PACKS_ALIBI = heads.tagged("interleaved", "ROCM_ATTN")
PREFILL, PAGED = "prefix_prefill.py", "chunked_prefill_paged_decode.py"
INTERLEAVED_FAULTS = {
    "a pack's slots are stored one for all": Fault(
        STORE, "+ (block_offset % INTERLEAVED_V_PACK_FACTOR)\n", "\n", PACKS_ALIBI
    ),
    "a decode finds the first slot of each pack": Fault(
        PAGED,
        "+ (internal_offsets[:, None] % INTERLEAVED_V_PACK_FACTOR)\n",
        "\n",
        PACKS_FP8,
    ),
    "a prefill finds the first slot of each pack": Fault(
        PREFILL, "+ (internal[:, None] % INTERLEAVED_V_PACK_FACTOR)\n", "\n", PACKS_FP8
    ),
    "a prefill with ALiBi finds the first slot of each pack": Fault(
        PREFILL, "+ (v_internal % INTERLEAVED_V_PACK_FACTOR)\n", "\n", PACKS_ALIBI
    ),
}
# A file has one fault at a time: what one does to a problem, another may undo.
ROUNDS = [
    pytest.param(HEADS_FAULTS, "TRITON_ATTN", id="heads"),
    pytest.param(PROMPTS_FAULTS, "TRITON_ATTN", id="prompts"),
    pytest.param(INTERLEAVED_FAULTS, "ROCM_ATTN", id="interleaved"),
]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("faults", "backend"), ROUNDS)
def test_a_fault_in_the_releases_kernels_shows(
    faults: dict[str, Fault], backend: str, tmp_path: Path
) -> None:
    """One test for each kind, because a session of vLLM takes seconds to begin."""
    release = prepare(RELEASE)
    right = Vllm(release, tmp_path / "right")
    ran: set[str] = set()
    try:
        for fault in faults.values():
            attended, wrong = right.ask(fault.problem)
            assert (attended.refused, wrong) == ("", [])
            ran |= set(attended.dispatch)
    finally:
        right.close()
    assert ran <= {*vllm_kernels(backend, "0.33")}
    assert missed(release, faults, tmp_path) == []
