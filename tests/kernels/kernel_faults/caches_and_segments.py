"""Faults of caches, their formats, and the parts that sequences are cut into."""

from __future__ import annotations

from dataclasses import replace

from conformance.mutation.edit import Edit
from tests.kernels.kernel_faults.fault import Fault, one_edit
from tests.kernels.kernel_faults.problems import (
    CHUNKS,
    FA,
    FAR,
    ROCM,
    TRITON,
    UNIFIED,
    decode,
    fp8,
    latent,
    mixed,
    sinks,
    table,
    window,
)

TILES, CACHE, FP8 = "ops/tiles.py", "ops/cache.py", "ops/fp8.py"
COMBINE, DECODE, VARLEN = "ops/combine.py", "ops/decode.py", "ops/varlen.py"
UNIFIED_FILE, GATHERED = "backends/triton_attn.py", "ops/gathered.py"

SMALL_CHUNKS = (Edit(GATHERED, "", "WORKSPACE_TOKENS = 32 * 1024", "WORKSPACE_TOKENS = 3 * 32"),)

WRITES = (
    one_edit(
        "rows with slot -1 are written to slot 0",
        (TRITON, "fp8_scales"),
        CACHE,
        "write_kernel",
        "mask = (slot >= 0)[:, None] & (dims < D)[None, :]",
        "slot = tl.maximum(slot, 0)\nmask = (token < tokens)[:, None] & (dims < D)[None, :]",
    ),
    one_edit(
        "the last row of a write is dropped",
        decode(ROCM),
        CACHE,
        "write_kernel",
        "token < tokens",
        "token < tokens - 1",
    ),
    one_edit(
        "key and value scale are swapped",
        fp8(TRITON, "fp8_e4m3fn"),
        CACHE,
        "write_both",
        "write_rows(key, key_cache, slot_mapping, scales.k, geometry)\n"
        "write_rows(value, value_cache, slot_mapping, scales.v, geometry)",
        "write_rows(key, key_cache, slot_mapping, scales.v, geometry)\n"
        "write_rows(value, value_cache, slot_mapping, scales.k, geometry)",
    ),
    one_edit(
        "fp8 values are cut off, not rounded",
        fp8(TRITON, "fp8_e4m3fn"),
        FP8,
        "encode",
        "rounded = bits + ((1 << (DROPPED - 1)) - 1) + ((bits >> DROPPED) & 1)",
        "rounded = bits",
    ),
    one_edit(
        "fp8 ties are rounded away from zero",
        (UNIFIED, "fp8_scales"),
        FP8,
        "encode",
        "bits >> DROPPED & 1",
        "1",
    ),
    one_edit(
        "fp8 subnormals become zero",
        (UNIFIED, "fp8_values"),
        FP8,
        "encode",
        "tl.where(magnitude < SMALLEST_NORMAL, subnormal, normal)",
        "tl.where(magnitude < SMALLEST_NORMAL, 0, normal)",
    ),
    one_edit(
        "fp8 values are not saturated",
        (ROCM, "fp8_scales"),
        FP8,
        "encode",
        "magnitude = tl.minimum(tl.abs(x), LARGEST)",
        "magnitude = tl.abs(x)",
    ),
    one_edit(
        "offsets of cache writes are 32-bit",
        FAR,
        CACHE,
        "write_kernel",
        "slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)",
        "slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1).to(tl.int32)",
    ),
)

READS = (
    one_edit(
        "every sequence has the first one's block table",
        table(TRITON),
        UNIFIED_FILE,
        "unified_kernel",
        "table_ptr + seq.to(tl.int64) * table_row",
        "table_ptr + seq.to(tl.int64) * 0",
    ),
    one_edit(
        "offsets of cache reads are 32-bit",
        FAR,
        TILES,
        "slots",
        "load_entries(table_ptr, positions // BLOCK_SIZE, stored, MASKED)",
        "load_entries(table_ptr, positions // BLOCK_SIZE, stored, MASKED).to(tl.int32)",
    ),
    one_edit(
        "the last partial block is dropped",
        decode(ROCM),
        TILES,
        "attend_paged",
        "key_pos < last",
        "key_pos < last // BLOCK_SIZE * BLOCK_SIZE",
    ),
    one_edit(
        "the last partial tile is dropped",
        decode(UNIFIED),
        TILES,
        "masked_tiles",
        "before + tl.cdiv(tl.maximum(last - full_last, 0), TILE)",
        "before + tl.maximum(last - full_last, 0) // TILE",
    ),
    one_edit(
        "values past the length are read",
        decode(ROCM),
        TILES,
        "load_pages",
        "load_tile(values, value_stored, columns, V, V_PAD, MASKED)",
        "tl.load(values, mask=columns < V, other=0)",
    ),
    one_edit(
        "keys past the length are read, and so are values",
        mixed(TRITON),
        TILES,
        "load_tile",
        "return tl.load(pointers, mask=stored, other=0)",
        "return tl.load(pointers)",
    ),
    one_edit(
        "values are read along the slots",
        mixed(ROCM),
        "ops/scores.py",
        "cache_arguments",
        "value_strides[2]",
        "value_strides[3]",
    ),
    one_edit(
        "packs of keys are read backwards",
        decode(ROCM),
        TILES,
        "load_pages",
        "key_ptr + (block * key_block)[:, None, None] + run",
        "key_ptr + (block * key_block)[:, None, None] + (run ^ PACK - 1)",
    ),
    one_edit(
        "FNUZ is read as OCP",
        fp8(TRITON, "fp8_e4m3fnuz"),
        FP8,
        "decode",
        "half.to(tl.float32) * 128.0",
        "half.to(tl.float32) * 256.0",
    ),
    one_edit(
        "OCP is read as FNUZ",
        fp8(TRITON, "fp8_e4m3fn"),
        FP8,
        "decode",
        "half.to(tl.float32) * 256.0",
        "half.to(tl.float32) * 128.0",
    ),
    one_edit(
        "the columns of a pair change places",
        fp8(TRITON, "fp8_e4m3fn"),
        "ops/tiles.py",
        "attend_paged",
        "tl.join(even, odd)",
        "tl.join(odd, even)",
    ),
    one_edit(
        "the second column of a pair is the first",
        fp8(TRITON, "fp8_e4m3fn"),
        "ops/tiles.py",
        "attend_paged",
        "(value >> 8)",
        "value",
    ),
    one_edit(
        "E5M2 is read with four bits of exponent",
        fp8(FA, "fp8_e5m2"),
        FP8,
        "decode",
        "(bits << 8)",
        "(bits << 7)",
    ),
    one_edit(
        "the key scale is applied twice",
        fp8(UNIFIED, "fp8_e4m3fn"),
        UNIFIED_FILE,
        "unified_attention",
        "scores.scale",
        "scores.scale * scales.k",
    ),
    one_edit(
        "the value scale is dropped",
        fp8(ROCM, "fp8_e4m3fnuz"),
        "backends/rocm_attn.py",
        "context_kernel",
        "acc = acc * value_scale",
        "acc = acc * 1.0",
    ),
    one_edit(
        "a gathered context keeps the scale",
        fp8(FA, "fp8_e5m2"),
        CACHE,
        "gather_kernel",
        "value = value * scale",
        "value = value * 1.0",
    ),
)

PARTS = (
    one_edit(
        "the last partition is dropped",
        decode(ROCM),
        DECODE,
        "paged_decode_kernel",
        "low + segment_size",
        "low + tl.where(segment < tl.num_programs(2) - 1, segment_size, 0)",
    ),
    one_edit(
        "the last segment is dropped in the reduction",
        decode(TRITON),
        COMBINE,
        "combine_segments_kernel",
        "first + lanes < segments",
        "first + lanes < segments - 1",
    ),
    one_edit(
        "segments leave out the rest of the division",
        decode(UNIFIED),
        UNIFIED_FILE,
        "unified_kernel",
        "tl.cdiv(tl.cdiv(last - begin, TILE), tl.num_programs(2)) * TILE",
        "(last - begin) // TILE // tl.num_programs(2) * TILE",
    ),
    one_edit(
        "segments are added without their weights",
        decode(FA),
        COMBINE,
        "take_partials",
        "weights = tl.exp2(maxima - origin)",
        "weights = tl.where(seen, 1.0, 0.0)",
    ),
    one_edit(
        "rows of padding are written",
        sinks(UNIFIED),
        COMBINE,
        "combine_segments_kernel",
        "token >= tl.load(query_start_ptr + num_seqs)",
        "token < 0",
    ),
    one_edit(
        "the decode kernel writes first rows of prefills",
        window(ROCM),
        DECODE,
        "paged_decode_kernel",
        "tl.load(query_start_ptr + seq + 1) - start != 1",
        "tl.load(query_start_ptr + seq + 1) - start < 1",
    ),
)

CONTEXTS = (
    one_edit(
        "an extend forgets its cached prefix",
        mixed(ROCM),
        "backends/rocm_attn.py",
        "context_kernel",
        "key_ranges(..., context + last_token, context, left, right, ...)",
        "key_ranges(..., context + last_token, 0, left, right, ...)",
    ),
    one_edit(
        "an extend forgets its gathered prefix",
        mixed(FA),
        GATHERED,
        "attend_gathered",
        "batch.context_limit == 0",
        "batch.context_limit >= 0",
    ),
    one_edit(
        "the context has no window",
        window(ROCM),
        "backends/rocm_attn.py",
        "context_kernel",
        "attend_paged(..., LEFT, False, SOFT_CAP, ...)",
        "attend_paged(..., False, False, SOFT_CAP, ...)",
    ),
    one_edit(
        "the context's last key is not gathered",
        mixed(FA),
        VARLEN,
        "packed_kernel",
        "tl.minimum(tl.maximum(gathered, 0), CHUNK)",
        "tl.minimum(tl.maximum(gathered - 1, 0), CHUNK)",
    ),
    one_edit(
        "queries stand at the end of a chunk, not of the context",
        CHUNKS,
        VARLEN,
        "packed_kernel",
        "origin = context - chunk_first",
        "origin = context",
        SMALL_CHUNKS,
    ),
    one_edit(
        "every chunk is the first",
        CHUNKS,
        CACHE,
        "gather_kernel",
        "position = first + row",
        "position = row",
        SMALL_CHUNKS,
    ),
    one_edit(
        "the last chunk is not attended",
        CHUNKS,
        GATHERED,
        "attend_gathered",
        "range(0, batch.context_limit, chunk)",
        "range(0, batch.context_limit - chunk, chunk)",
        SMALL_CHUNKS,
    ),
    one_edit(
        "outputs are merged with equal weights",
        mixed(FA),
        COMBINE,
        "merge_kernel",
        "weight_b = tl.exp2(b - origin)",
        "weight_b = weight_a",
    ),
    one_edit(
        "one log-sum-exp of a merge is taken to base 2",
        mixed(FA),
        COMBINE,
        "merge_kernel",
        'b = tl.load(other_lse_ptr + row, mask=here, other=float("-inf")) * LOG2E',
        'b = tl.load(other_lse_ptr + row, mask=here, other=float("-inf"))',
    ),
    one_edit(
        "a merge keeps the larger log-sum-exp",
        mixed(FA),
        COMBINE,
        "merge_kernel",
        "(origin + tl.log2(divisor)) * LN2",
        "origin * LN2",
    ),
    one_edit(
        "a row without a context comes out of the merge as zero",
        mixed(FA),
        COMBINE,
        "merge_kernel",
        "weight_a[:, None]",
        "tl.where(weight_b == 0.0, 0.0, weight_a)[:, None]",
    ),
)

# Blocks of whole tiles, which are looked up once.
WHOLE_TILES = (
    one_edit(
        "of a block only the first tile is read",
        replace(mixed(TRITON), id="mixed over blocks of 128", block_size=128),
        TILES,
        "tile_slots",
        "start % BLOCK_SIZE + tl.arange(0, TILE)",
        "tl.arange(0, TILE)",
    ),
    one_edit(
        "a block is looked up by its tile",
        replace(mixed(TRITON), id="mixed over blocks of 128", block_size=128),
        TILES,
        "tile_slots",
        "start // BLOCK_SIZE",
        "start // TILE",
    ),
    one_edit(
        "latent vectors of a block come from its first tile",
        replace(latent("TRITON_MLA"), id="latent decode over blocks of 64", block_size=64),
        TILES,
        "tile_slots",
        "start % BLOCK_SIZE + tl.arange(0, TILE)",
        "tl.arange(0, TILE)",
    ),
)

FAULTS: tuple[Fault, ...] = (*WRITES, *READS, *PARTS, *CONTEXTS, *WHOLE_TILES)
