"""Faults that slip through problems of the usual kinds: each needs one that asks about its kind."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import Fault, one_edit
from tests.kernels.kernel_faults.problems import (
    AITER,
    FA,
    FLEX,
    MLA,
    ROCM,
    SPARSE,
    TRITON,
    UNIFIED,
)

COMMON, PAGES, INDEX = "ops/mla/common.py", "ops/mla/pages.py", "ops/mla/index.py"
WORKERS, PREFILL, MLA_FILE = "ops/mla/workers.py", "ops/mla/prefill.py", "backends/triton_mla.py"
TILES, CACHE, FP8 = "ops/tiles.py", "ops/cache.py", "ops/fp8.py"
COMBINE, DECODE, SOFTMAX = "ops/combine.py", "ops/decode.py", "ops/softmax.py"

SIZES = (
    one_edit(
        "MLA: heads past the first tile are those of the first",
        (MLA, "heads"),
        MLA_FILE,
        "latent_kernel",
        "head_tile = tl.program_id(1)",
        "head_tile = tl.program_id(1) * 0",
    ),
    one_edit(
        "MLA: heads past the last are written",
        (MLA, "heads"),
        COMMON,
        "load_rows",
        "exists & (head < H)",
        "exists",
    ),
    one_edit(
        "MLA: workers take every tile of heads for the first",
        (AITER, "heads"),
        WORKERS,
        "worker_kernel",
        "head_tile = item % HEAD_TILES",
        "head_tile = item * 0",
    ),
    one_edit(
        "MLA: the rope part stands behind 512 columns, whatever the rank",
        (MLA, "heads"),
        COMMON,
        "attend_tiles",
        "rows + RANK + rope_columns",
        "rows + 512 + rope_columns",
    ),
    one_edit(
        "segments are combined as far as one load takes them",
        (TRITON, "segments"),
        COMBINE,
        "combine_segments_kernel",
        "range(0, segments, CHUNK)",
        "range(0, tl.minimum(segments, CHUNK), CHUNK)",
    ),
    one_edit(
        "parts of a cut block are combined as far as one load takes them",
        (AITER, "segments"),
        WORKERS,
        "combine_cut_kernel",
        "range(0, workers, CHUNK)",
        "range(0, tl.minimum(workers, CHUNK), CHUNK)",
    ),
    one_edit(
        "sparse: each load of choices is written over the one before",
        (SPARSE, "many_chosen"),
        PAGES,
        "translate_kernel",
        "count += tl.sum(valid.to(tl.int32), 0)",
        "count = tl.sum(valid.to(tl.int32), 0)",
    ),
)

CHUNKS = (
    one_edit(
        "every chunk of a context is the first",
        (FA, "chunks"),
        CACHE,
        "gather_kernel",
        "position = first + row",
        "position = row",
    ),
    one_edit(
        "MLA prefill: every chunk of a context is the first",
        (MLA, "chunks"),
        PREFILL,
        "prefill",
        "gather_context(view, gathered, batch, first, scales.k, geometry)",
        "gather_context(view, gathered, batch, 0, scales.k, geometry)",
    ),
    one_edit(
        "top-k: logits of the first tokens for all",
        (SPARSE, "topk_edge"),
        INDEX,
        "select",
        "index_logits(query, weights, cache, batch, first, logits)",
        "index_logits(query, weights, cache, batch, 0, logits)",
    ),
    one_edit(
        "partial states of decodes are stored by token, not by sequence",
        (ROCM, "split_behind_a_prefill"),
        DECODE,
        "paged_decode_kernel",
        "row = (seq.to(tl.int64) * heads + head) * tl.num_programs(2) + segment",
        "row = (start.to(tl.int64) * heads + head) * tl.num_programs(2) + segment",
    ),
)

LAYOUTS = (
    one_edit(
        "a tile's entries of the block table are read, whether there are keys or not",
        (TRITON, "exact_table"),
        TILES,
        "load_entries",
        "tl.load(table_ptr + number, mask=stored, other=0)",
        "tl.load(table_ptr + number)",
    ),
    one_edit(
        "blocks follow one another without a gap",
        (UNIFIED, "block stride", "padded"),
        CACHE,
        "write_kernel",
        "slot // BLOCK_SIZE * cache_block",
        "slot // BLOCK_SIZE * (BLOCK_SIZE * cache_slot)",
    ),
    one_edit(
        "new values lie as far apart as new keys",
        (ROCM, "rows", "padded"),
        "backends/rocm_attn.py",
        "context_attention",
        "value.stride(0)",
        "key.stride(0)",
    ),
    one_edit(
        "packed values lie as far apart as packed keys",
        (UNIFIED, "kind", "varlen"),
        "ops/varlen.py",
        "_launch",
        "value.stride(0)",
        "key.stride(0)",
    ),
    one_edit(
        "a slot is read for every row",
        (TRITON, "padding", "without slots"),
        CACHE,
        "write_rows",
        "tokens = slot_mapping.shape[0]",
        "tokens = rows.shape[0]",
    ),
)

VALUES = (
    one_edit(
        "fp8: subnormal ties are rounded up",
        (TRITON, "fp8_values"),
        FP8,
        "encode",
        "((magnitude * STEPS + ROUNDER) - ROUNDER).to(tl.uint32)",
        "(magnitude * STEPS + 0.5).to(tl.uint32)",
    ),
    one_edit(
        "fp8: zero of FNUZ keeps its sign",
        (TRITON, "fp8_values"),
        FP8,
        "encode",
        "sign = tl.where(code == 0, 0, sign)",
        "sign = tl.where(code > 255, 0, sign)",
    ),
    one_edit(
        "fp8: what rounds to the largest number is saturated one number below",
        (TRITON, "fp8_values"),
        FP8,
        "encode",
        "magnitude = tl.minimum(tl.abs(x), LARGEST)",
        "magnitude = tl.where(tl.abs(x) >= LARGEST, LARGEST * 0.95, tl.abs(x))",
    ),
    one_edit(
        "a soft cap's tanh overflows",
        (TRITON, "soft_cap"),
        SOFTMAX,
        "make_logits",
        "(1.0 - 2.0 / (powers + 1.0))",
        "((powers - 1.0) / (powers + 1.0))",
    ),
    one_edit(
        "sparse: positions past a sequence's end are looked up",
        (SPARSE, "topk_edge"),
        PAGES,
        "translate_kernel",
        "valid = (position >= 0) & (position < seq_len)",
        "valid = position >= 0",
    ),
)

MASKS = (
    one_edit(
        "values before the window are read, and multiplied by zero",
        (TRITON, "before the window", "given up"),
        TILES,
        "within",
        "inside = inside & (position >= first)",
        "inside = inside & (position >= 0)",
    ),
    one_edit(
        "a gathered context's values before the window are multiplied by zero",
        (FA, "before the window", "given up"),
        TILES,
        "within",
        "inside = inside & (position >= first)",
        "inside = inside & (position >= 0)",
    ),
    one_edit(
        "keys that no query sees are read, and multiplied by zero",
        (FLEX, "before the window", "given up"),
        "backends/flex_attention.py",
        "attend_block",
        "key_pos = key_pos[mask(query_pos[:, None], key_pos[None, :]).any(0)]",
        "key_pos = key_pos[:]",
    ),
    one_edit(
        "the right side of a window is taken from a block's last query",
        (TRITON, "window_edge"),
        SOFTMAX,
        "key_ranges",
        "full_last = tl.minimum(full_last, first_query + right + 1)",
        "full_last = tl.minimum(full_last, last_query + right + 1)",
    ),
    one_edit(
        "a prefix range ends with a block of queries",
        (TRITON, "prefix", "across tiles"),
        SOFTMAX,
        "key_ranges",
        "full_last = 0",
        "full_last = 0\nlast = tl.minimum(last, last_query + 1)",
    ),
)

# The next sequence's row is right again if its program comes later.
ORDERS = (
    one_edit(
        "a decode is also written to the next sequence's row",
        (ROCM, "batch", "decodes"),
        DECODE,
        "paged_decode_kernel",
        "acc, maximum, total = start_state(BLOCK_M, V_PAD)",
        "acc, maximum, total = start_state(BLOCK_M, V_PAD)\n"
        "more = exists & (rows * 0 + seq + 1 < tl.num_programs(0))\n"
        "if partial_ptr is None:\n"
        "    store_output(out_ptr, acc, token + 1, head, more, out_token, out_head, V, V_PAD)",
    ),
)

FAULTS: tuple[Fault, ...] = (*SIZES, *CHUNKS, *LAYOUTS, *VALUES, *MASKS, *ORDERS)
