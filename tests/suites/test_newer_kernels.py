"""Kernels that came after 0.19, as 0.33.0 ships them: right ones pass, faults in them show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.problems.problem import Problem
from conformance.subjects.vllm.environment import prepare
from conformance.suites.parity.coverage import vllm_kernels
from tests.kernels.kernel_faults.problems import decode, latent_prefill, sparse
from tests.suites.released_kernels import Fault, Vllm

RELEASE = "0.33.0"
SEGMENTED, MLA = "ROCM_SEGMENTED_ATTN", "TRITON_MLA"


def of_segmented(problem: Problem, **fields: object) -> Problem:
    made = {**problem.to_json(), "head_size": 64, "v_head_size": 64, "dominant": (), **fields}
    return Problem.from_json(made)


SPLIT = of_segmented(decode(SEGMENTED), context_lens=(9, 299), dominant=((1, 299),))
SINKS = replace(SPLIT, sinks=True)

# Lists of chosen keys, some shorter than the most; and a prefill of more keys than are chosen.
FEW_CHOSEN = replace(
    sparse("mla_sparse"),
    id="chosen keys with sinks",
    query_lens=(1, 1, 1, 4),
    context_lens=(299, 20, 0, 150),
    num_heads=32,
    topk=128,
    sinks=True,
)
LONG_PREFILL = replace(
    sparse("mla_sparse"),
    id="a long prefill over chosen keys",
    query_lens=(3, 4),
    context_lens=(140, 127),
    dtype="bfloat16",
    topk=128,
)
# Contexts that a workspace of 96 tokens takes in two parts, the second's in both; and none.
CHUNKS = replace(
    latent_prefill(MLA),
    id="a context in chunks",
    query_lens=(3, 4, 5),
    context_lens=(70, 40, 0),
    dominant=((0, 31), (1, 25), (1, 39), (2, 2)),
    at_once=96,
)
# Decodes over blocks of one key; prefills over blocks of 64, in which a key's values are spread.
INDEXED = replace(
    sparse("indexer"),
    id="an indexer's decode",
    query_lens=(1, 1),
    context_lens=(3, 60),
    block_size=1,
)
INDEXED_PREFILL = replace(
    INDEXED, id="an indexer's prefill", query_lens=(4, 3), context_lens=(3, 70), block_size=64
)
STAGE = "segmented_attention.py"
PREFILL = "model_executor/layers/attention/mla_attention.py"
CHOSEN = "rocm_aiter_mla_sparse.py"
# Of each a file is put wrong in one place, and the problem shows it; faults that a problem of a
# tier shows are in tests/suites/faults/of_kernels.py.
SEGMENTED_FAULTS = {
    # Either line by itself changes nothing: a weight of 1 below a maximum of minus infinity is
    # weighed 0, and a higher maximum with no weight cancels.
    "every part has the sink": Fault(
        STAGE,
        "maximum = tl.where(split == 0, sink * 1.4426950408889634, maximum)\n"
        "        denom = tl.where(split == 0, 1.0, denom)",
        "maximum = sink * 1.4426950408889634\n        denom = tl.full((BM,), 1.0, tl.float32)",
        SINKS,
    ),
    "parts are weighed to base e": Fault(
        STAGE, "weights = tl.exp2(lse", "weights = tl.exp(lse", SPLIT
    ),
}
SPARSE_FAULTS = {
    "a list is a key too long": Fault(
        CHOSEN,
        "    kv_len = kv_end - kv_start\n",
        "    kv_len = kv_end - kv_start + 1\n",
        LONG_PREFILL,
    ),
    "a list is a key too short": Fault(
        CHOSEN,
        "    kv_len = kv_end - kv_start\n",
        "    kv_len = kv_end - kv_start - 1\n",
        LONG_PREFILL,
    ),
    "the sink has no weight": Fault(
        CHOSEN,
        "l_final = l_i * alpha + tl.exp(sink - m_final)",
        "l_final = l_i * alpha",
        FEW_CHOSEN,
    ),
    "what was added up is not weighed against the sink": Fault(
        CHOSEN, "(acc * alpha[:, None]) / denom[:, None]", "acc / denom[:, None]", FEW_CHOSEN
    ),
    "logits are not scaled": Fault(
        CHOSEN,
        "scores = tl.dot(q, tl.trans(kv)) * scale",
        "scores = tl.dot(q, tl.trans(kv))",
        LONG_PREFILL,
    ),
    "the heads of every tile are the first's": Fault(
        CHOSEN,
        "head_offsets = pid_h * BLOCK_H + tl.arange(0, BLOCK_H)",
        "head_offsets = tl.arange(0, BLOCK_H)",
        FEW_CHOSEN,
    ),
    "a load of rows is looked up a row too late": Fault(
        CHOSEN,
        "next_k_pos = k_start + BLOCK_K + k_offsets",
        "next_k_pos = k_start + BLOCK_K + k_offsets + 1",
        FEW_CHOSEN,
    ),
}
PREFILL_FAULTS = {
    "what is left of a context begins at its first key": Fault(
        PREFILL,
        "starts_flat.extend(plan.starts)",
        "starts_flat.extend(0 * s for s in plan.starts)",
        CHUNKS,
    ),
    "what is left of a context is written over the part before": Fault(
        PREFILL,
        "init_start = chunk.continuation_token_end",
        "init_start = chunk.token_slice.start",
        CHUNKS,
    ),
    "parts of a context weigh the same": Fault(
        PREFILL,
        "suffix_lse=attn_softmax_lse[:, :num_merged],",
        "suffix_lse=output_lse[:, token_start:init_start],",
        CHUNKS,
    ),
    "context and new tokens weigh the same": Fault(
        PREFILL,
        "                prefix_lse=context_lse,\n                suffix_output=suffix_output,",
        "                prefix_lse=suffix_lse,\n                suffix_output=suffix_output,",
        CHUNKS,
    ),
    "a part has the first sequences' blocks": Fault(
        PREFILL,
        "prefill_metadata.block_table[chunk.request_slice]",
        "prefill_metadata.block_table[: chunk.num_requests]",
        CHUNKS,
    ),
}
INDEXER_FAULTS = {
    "keys of a tile are stored over one another": Fault(
        CHOSEN,
        "            + tile_block_offset * HEAD_TILE_SIZE\n",
        "            + 0 * HEAD_TILE_SIZE\n",
        INDEXED_PREFILL,
    ),
    "a key's scale is the first slot's": Fault(
        CHOSEN,
        "kv_cache_scale_ptr + block_id * kv_cache_scale_stride + block_offset\n",
        "kv_cache_scale_ptr + block_id * kv_cache_scale_stride\n",
        INDEXED_PREFILL,
    ),
    "scores below zero count": Fault(CHOSEN, "            score = F.relu(score)\n", "", INDEXED),
    "a decode's keys have no scales": Fault(
        CHOSEN, "            score *= cache_scale\n", "", INDEXED
    ),
    "scores of a prefill are not weighed": Fault(
        CHOSEN,
        "logits = (score.relu() * weights.unsqueeze(-1).transpose(0, 1)).sum(dim=0)",
        "logits = score.relu().sum(dim=0)",
        INDEXED_PREFILL,
    ),
}
# What runs in place of HIP kernels, and what vLLM scores in torch.
ELSEWHERE = ("harness ", "torch fp8_")
# A file has one fault at a time: what one does to a problem, another may undo.
ROUNDS = [
    pytest.param("gfx1201", SEGMENTED_FAULTS, SEGMENTED, id="segmented"),
    pytest.param("gfx942", SPARSE_FAULTS, "ROCM_AITER_MLA_SPARSE", id="sparse"),
    pytest.param("gfx942", PREFILL_FAULTS, MLA, id="mla_prefill"),
    pytest.param("gfx950", INDEXER_FAULTS, "ROCM_AITER_MLA_SPARSE", id="indexer"),
]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("target", "faults", "backend"), ROUNDS)
def test_a_newer_backends_kernels(
    target: str, faults: dict[str, Fault], backend: str, tmp_path: Path
) -> None:
    """One test for each backend, because a session of vLLM takes seconds to begin."""
    release = prepare(RELEASE)
    right = Vllm(release, tmp_path / "right", target)
    ran: set[str] = set()
    try:
        for fault in faults.values():
            attended, wrong = right.ask(fault.problem)
            assert (attended.refused, wrong) == ("", [])
            ran |= {kernel for kernel in attended.dispatch if not kernel.startswith(ELSEWHERE)}
    finally:
        right.close()
    assert ran <= {*vllm_kernels(backend, "0.33")}
    for number, (name, fault) in enumerate(faults.items()):
        broken = Vllm(release, tmp_path / str(number), target)
        try:
            broken.break_it([fault])
            attended, wrong = broken.ask(fault.problem)
            assert attended.raised == "", name
            assert wrong, name
        finally:
            broken.close()
