"""Trees of draft tokens in releases' own code: TREE_ATTN's, and the kernel that is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.subjects.vllm.environment import prepare
from conformance.suites.parity.coverage import vllm_kernels
from tests.kernels.kernel_faults import head_scaled as heads
from tests.suites.released_kernels import Fault, Vllm, missed

BACKEND, HELPERS = "v1/attention/backends/tree_attn.py", "triton_attention_helpers.py"
CORE = "triton_unified_attention.py"
# Those whose rows fill vLLM's blocks of queries: the others are read past the end of their bias.
FILLED = heads.tagged("tree", "TREE_ATTN", "0.19")[1]
FUNCTION = heads.tagged("tree", "TRITON_ATTN", "0.33")[1]
OF_0_19 = {
    "the bias is transposed": Fault(
        BACKEND,
        "qq_bias=decode_meta.tree_attn_bias",
        "qq_bias=decode_meta.tree_attn_bias.T.contiguous()",
        FILLED,
    ),
    "the root is seen by its children alone": Fault(
        BACKEND, "tree_attn_mask[:, 0] = mask_val", "tree_attn_mask[:2, 0] = mask_val", FILLED
    ),
    "parents are not seen": Fault(
        BACKEND, "range(len(cur_tree_choice) - 1)", "range(len(cur_tree_choice) - 2)", FILLED
    ),
    "ancestors are a row off": Fault(
        BACKEND,
        "sorted_tree_choices.index(cur_tree_choice[: c + 1]) + 1",
        "sorted_tree_choices.index(cur_tree_choice[: c + 1])",
        FILLED,
    ),
    "rows of the bias are at the wrong stride": Fault(
        CORE,
        "query_pos[:, None] * qq_bias_stride_0",
        "query_pos[:, None] * (qq_bias_stride_0 - 1)",
        FILLED,
    ),
    "the bias is read past its last column": Fault(
        CORE, "key_rel_pos < qq_bias_stride_0", "key_rel_pos <= qq_bias_stride_0", FILLED
    ),
    "the bias is left out": Fault(
        CORE, "            S += qq_bias\n", "            S += 0.0\n", FILLED
    ),
}
OF_0_33 = {
    "the bias is a column late": Fault(
        HELPERS,
        "qq_bias_row_ptrs + key_rel_pos[None, :]",
        "qq_bias_row_ptrs + key_rel_pos[None, :] + 1",
        FUNCTION,
    ),
    "rows of the bias are at the wrong stride": Fault(
        CORE,
        "query_pos[:, None] * qq_bias_stride_0",
        "query_pos[:, None] * (qq_bias_stride_0 - 1)",
        FUNCTION,
    ),
    "a key's place among the drafts is one off": Fault(
        HELPERS,
        "key_rel_pos = seq_offset - context_len",
        "key_rel_pos = seq_offset - context_len - 1",
        FUNCTION,
    ),
}
ROUNDS = [
    pytest.param(OF_0_19, "TREE_ATTN", "0.19.0", id="TREE_ATTN"),
    pytest.param(OF_0_33, "TRITON_ATTN", "0.33.0", id="unified_attention"),
]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("faults", "backend", "release"), ROUNDS)
def test_a_fault_in_a_release_shows(
    faults: dict[str, Fault], backend: str, release: str, tmp_path: Path
) -> None:
    """One test for each release, because a session of vLLM takes seconds to begin."""
    managed = prepare(release)
    problem = next(iter(faults.values())).problem
    right = Vllm(managed, tmp_path / "right")
    try:
        attended, wrong = right.ask(problem)
    finally:
        right.close()
    assert (attended.refused, wrong) == ("", [])
    known = {*vllm_kernels(backend, release[:4]), "harness for HIP reshape_and_cache_flash"}
    assert set(attended.dispatch) <= known
    assert missed(managed, faults, tmp_path) == []
