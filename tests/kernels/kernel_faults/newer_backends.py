"""Faults of the backends that came after 0.19; each shows in a problem of the quick tier."""

from __future__ import annotations

from dataclasses import replace

from conformance.mutation.edit import Edit
from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from tests.kernels.kernel_faults.fault import Fault, one_edit
from tests.kernels.kernel_faults.problems import decode, sparse

SEGMENTED, DIFFKV = "ROCM_SEGMENTED_ATTN", "TRITON_ATTN_DIFFKV"
OP, DIFFKV_FILE = "ops/segmented.py", "backends/triton_attn_diffkv.py"
TILES, SCORES, UNIFIED = "ops/tiles.py", "ops/scores.py", "backends/triton_attn.py"
COMBINE, CACHE = "ops/combine.py", "ops/cache.py"
# Keys in two parts, and rows of padding behind.
PADDED = replace(
    decode(SEGMENTED),
    id=f"padded on {SEGMENTED}",
    head_size=64,
    v_head_size=64,
    context_lens=(9, 289),
    dominant=((1, 289),),
    extra_rows=2,
)

PARTS = (
    one_edit(
        "segmented: parts are rounded down to whole tiles",
        (SEGMENTED, "decode_edges"),
        OP,
        "stage_kernel",
        "tl.cdiv(tl.cdiv(last - begin, TILE), PARTS) * TILE",
        "((last - begin) // TILE // PARTS) * TILE",
    ),
    one_edit(
        "segmented: every part has the sink",
        (SEGMENTED, "sinks"),
        OP,
        "stage_kernel",
        "tl.where(part == 0, sinks, float('-inf'))",
        "tl.where(part >= 0, sinks, float('-inf'))",
    ),
    one_edit(
        "segmented: no part has the sink",
        (SEGMENTED, "sinks"),
        OP,
        "stage_kernel",
        "tl.where(part == 0, sinks, float('-inf'))",
        "tl.where(part < 0, sinks, float('-inf'))",
    ),
    one_edit(
        "segmented: a part is stored over the one before",
        (SEGMENTED, "decode_edges"),
        OP,
        "stage_kernel",
        "row = (start + token) * PARTS + part",
        "row = (start + token) * PARTS",
    ),
    one_edit(
        "segmented: every KV head is the first",
        (SEGMENTED, "block_edge"),
        OP,
        "stage_kernel",
        "kv_head = item % kv_heads",
        "kv_head = item * 0",
    ),
    one_edit(
        "segmented: a sequence has the block table of the one before",
        (SEGMENTED, "block_edge"),
        OP,
        "stage_kernel",
        "table_ptr + seq.to(tl.int64) * table_row",
        "table_ptr + tl.maximum(seq - 1, 0).to(tl.int64) * table_row",
    ),
    one_edit(
        "segmented: values are not multiplied by their scale",
        (SEGMENTED, "fp8_values"),
        OP,
        "stage_kernel",
        "store_output(..., output * value_scale, row, head, exists, out_token, out_head, V, V_PAD)",
        "store_output(..., output, row, head, exists, out_token, out_head, V, V_PAD)",
    ),
    one_edit(
        "segmented: the parts' sums are taken for sums to base 2",
        (SEGMENTED, "decode_edges"),
        OP,
        "reduce_kernel",
        "tl.load(sums_ptr + number) * LOG2E",
        "tl.load(sums_ptr + number)",
    ),
    one_edit(
        "segmented: weights do not add up to 1",
        (SEGMENTED, "decode_edges"),
        OP,
        "reduce_kernel",
        "tl.sum(parts * weights[:, None], 0) / divisor",
        "tl.sum(parts * weights[:, None], 0)",
    ),
    one_edit(
        "segmented: parts follow one another within a head",
        (SEGMENTED, "decode_edges"),
        OP,
        "reduce_kernel",
        "(token * PARTS + tl.arange(0, PARTS)) * heads + head",
        "(token * heads + head) * PARTS + tl.arange(0, PARTS)",
    ),
    one_edit(
        "segmented: rows of padding are written",
        PADDED,
        OP,
        "reduce_kernel",
        "token >= tl.load(query_start_ptr + num_seqs)",
        "token < 0",
    ),
    one_edit(
        "segmented: the last block of queries is left out",
        (SEGMENTED, "prefill_edges"),
        OP,
        "segmented_attention",
        "blocks = -(-batch.max_query_len // launch.block_q(group))",
        "blocks = max(1, batch.max_query_len // launch.block_q(group))",
    ),
    one_edit(
        "segmented: keys before a window are taken from the second query on",
        (SEGMENTED, "window_edge"),
        OP,
        "stage_kernel",
        "key_ranges(context + block * block_q, ...)",
        "key_ranges(context + block * block_q + 1, ...)",
    ),
)

VALUES = (
    one_edit(
        "values: as many columns are read as keys have",
        (DIFFKV, "value head size", "larger"),
        TILES,
        "load_pages",
        "load_tile(values, stored[:, None], columns, V // WIDTH, V_PAD // WIDTH, MASKED)",
        "load_tile(values, stored[:, None], columns, D // WIDTH, V_PAD // WIDTH, MASKED)",
    ),
    one_edit(
        "keys: as many columns are read as values have",
        (DIFFKV, "value head size", "smaller"),
        TILES,
        "load_pages",
        "load_tile(keys, stored[None, :], dims, D, D_PAD, MASKED)",
        "load_tile(keys, stored[None, :], dims, V, D_PAD, MASKED)",
    ),
    one_edit(
        "queries: as many columns are read as values have",
        (DIFFKV, "value head size", "smaller"),
        UNIFIED,
        "unified_kernel",
        "load_query(..., D, D_PAD)",
        "load_query(..., V, D_PAD)",
    ),
    one_edit(
        "outputs: as many columns are written as keys have",
        (DIFFKV, "value head size", "smaller"),
        UNIFIED,
        "unified_kernel",
        "store_output(..., V, V_PAD)",
        "store_output(..., D, V_PAD)",
    ),
    one_edit(
        "tiles of values are as wide as those of keys",
        (DIFFKV, "value head size", "larger"),
        SCORES,
        "head_arguments",
        "padded(geometry.v_head_size)",
        "padded(geometry.head_size)",
    ),
    one_edit(
        "a workspace for partial states has rows of the keys' size",
        (DIFFKV, "decode_edges"),
        COMBINE,
        "segment_workspace",
        "geometry.v_head_size + STATE.value",
        "geometry.head_size + STATE.value",
    ),
    one_edit(
        "values are read where keys stand",
        (DIFFKV, "block_edge"),
        SCORES,
        "cache_arguments",
        "keys, values = as_bytes(keys), as_bytes(values)",
        "keys, values = as_bytes(keys), as_bytes(keys)",
    ),
    one_edit(
        "values begin a column early",
        (DIFFKV, "block_edge"),
        DIFFKV_FILE,
        "TritonAttentionDiffKV.attend",
        "views = views_of(cache, geometry)",
        "views = views_of(cache, geometry)\n"
        "views = (views[0], cache.as_strided("
        "views[1].shape, views[1].stride(), views[1].storage_offset() - 1))",
    ),
    one_edit(
        "keys are stored behind values and read before them",
        (DIFFKV, "block_edge"),
        DIFFKV_FILE,
        "TritonAttentionDiffKV.write",
        "views_of(cache, geometry)",
        "tuple(x.permute(0, 2, 3, 1) for x in reversed("
        "cache.split([geometry.v_head_size, geometry.head_size], dim=-1)))",
    ),
    one_edit(
        "a slot's value is stored over its key",
        (DIFFKV, "block_edge"),
        DIFFKV_FILE,
        "TritonAttentionDiffKV.write",
        "views_of(cache, geometry)",
        "(views_of(cache, geometry)[0], cache[..., : geometry.v_head_size].permute(0, 2, 3, 1))",
    ),
    Fault(
        "keys and values have each other's scale",
        (DIFFKV, "fp8_values"),
        (
            Edit(
                CACHE,
                "write_both",
                "write_rows(value, value_cache, slot_mapping, scales.v, geometry)",
                "write_rows(value, value_cache, slot_mapping, scales.k, geometry)",
            ),
        ),
    ),
)
# Chosen keys that are cut into parts, and some that are not.
WITH_SINKS = replace(
    sparse("mla_sparse"),
    id="sparse attention with sinks",
    query_lens=(1, 1, 1),
    context_lens=(299, 20, 0),
    topk=128,
    sinks=True,
    dtype="bfloat16",
)
WORKERS = "ops/mla/workers.py"

SPARSE_SINKS = (
    one_edit(
        "sparse MLA: heads of a whole block have the first's sink",
        WITH_SINKS,
        WORKERS,
        "worker_kernel",
        "load_per_head(sinks_ptr, head, exists, SINKS)",
        "load_per_head(sinks_ptr, head * 0, exists, SINKS)",
    ),
    one_edit(
        "sparse MLA: a block that was cut has no sink",
        WITH_SINKS,
        WORKERS,
        "combine_cut_kernel",
        "finish(..., sinks, SINKS)",
        "finish(..., sinks, False)",
    ),
)
RAGGED = "ops/mla/ragged.py"


def _of_quick(tag: str) -> Problem:
    """A problem of the quick tier of a release whose sparse attention has sinks."""
    made = problems_for("ROCM_AITER_MLA_SPARSE", "quick", edition="0.33")
    return next(problem for problem in made if tag in problem.tags)


LONG, FEW, MANY = (_of_quick(tag) for tag in ("long_prefill", "sparse_sinks", "sparse_split"))

RAGGED_LISTS = (
    one_edit(
        "ragged: parts are rounded down to whole tiles",
        MANY,
        RAGGED,
        "ragged_kernel",
        "tl.cdiv(tl.cdiv(num_keys, TILE), PARTS) * TILE",
        "num_keys // TILE // PARTS * TILE",
    ),
    one_edit(
        "ragged: every part has the sink",
        MANY,
        RAGGED,
        "ragged_kernel",
        "tl.where(part == 0, sinks, float('-inf'))",
        "tl.where(part >= 0, sinks, float('-inf'))",
    ),
    one_edit(
        "ragged: no part has the sink",
        FEW,
        RAGGED,
        "ragged_kernel",
        "tl.where(part == 0, sinks, float('-inf'))",
        "tl.where(part < 0, sinks, float('-inf'))",
    ),
    one_edit(
        "ragged: a part is stored over the one before",
        MANY,
        RAGGED,
        "ragged_kernel",
        "token * PARTS + part + tl.zeros([BLOCK_M], dtype=tl.int64)",
        "token * PARTS + tl.zeros([BLOCK_M], dtype=tl.int64)",
    ),
    one_edit(
        "ragged: every part begins at the first key",
        MANY,
        RAGGED,
        "ragged_kernel",
        "first = part * size",
        "first = part * 0",
    ),
    one_edit(
        "ragged: the last key of a list is left out",
        LONG,
        RAGGED,
        "ragged_kernel",
        "tl.minimum(first + size, num_keys)",
        "tl.minimum(first + size, num_keys - 1)",
    ),
    one_edit(
        "ragged: every token has the first one's list",
        LONG,
        RAGGED,
        "ragged_kernel",
        "tl.load(pages_start_ptr + token)",
        "tl.load(pages_start_ptr + token * 0)",
    ),
    one_edit(
        "ragged: every list is as long as the first",
        FEW,
        RAGGED,
        "ragged_kernel",
        "tl.load(lens_ptr + token)",
        "tl.load(lens_ptr + token * 0)",
    ),
    one_edit(
        "ragged: heads have the first one's sink",
        FEW,
        RAGGED,
        "ragged_kernel",
        "load_per_head(sinks_ptr, head, exists, SINKS)",
        "load_per_head(sinks_ptr, head * 0, exists, SINKS)",
    ),
    one_edit(
        "ragged: logits are not scaled",
        LONG,
        RAGGED,
        "attend_ragged",
        "scores.scale * scales.k",
        "scales.k",
    ),
    one_edit(
        "ragged: the tiles of heads after the first are left out",
        FEW,
        RAGGED,
        "attend_ragged",
        "-(-heads // group)",
        "heads // heads",
    ),
)

FAULTS = (*PARTS, *VALUES, *SPARSE_SINKS, *RAGGED_LISTS)
