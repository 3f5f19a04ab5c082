"""Faults of masks, logits, the online softmax and heads: what every dense kernel has in it."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import Edit, Fault, one_edit
from tests.kernels.kernel_faults.problems import (
    FA,
    ROCM,
    TRITON,
    UNIFIED,
    capped,
    decode,
    encoder,
    mixed,
    prefix,
    sinks,
    window,
)

SOFTMAX, TILES, ROWS = "ops/softmax.py", "ops/tiles.py", "ops/rows.py"
SCORES, UNIFIED_FILE = "ops/scores.py", "backends/triton_attn.py"

MASKS = (
    one_edit(
        "the next key is seen",
        mixed(TRITON),
        SOFTMAX,
        "seen & (key_pos <= query_pos)",
        "seen & (key_pos <= query_pos + 1)",
    ),
    one_edit(
        "a token does not see itself",
        mixed(TRITON),
        SOFTMAX,
        "seen & (key_pos <= query_pos)",
        "seen & (key_pos < query_pos)",
    ),
    one_edit(
        "the last key of a query block is not visited",
        mixed(ROCM),
        SOFTMAX,
        "tl.minimum(last, last_query + 1)",
        "tl.minimum(last, last_query)",
    ),
    one_edit(
        "no mask in tiles that some queries see whole",
        mixed(TRITON),
        SOFTMAX,
        "tl.minimum(full_last, first_query + 1)",
        "tl.minimum(full_last, last_query + 1)",
    ),
    one_edit(
        "the window is one key short on the left",
        window(UNIFIED),
        SOFTMAX,
        "(key_pos >= query_pos - left)",
        "(key_pos > query_pos - left)",
    ),
    one_edit(
        "the window is one key long on the left",
        window(ROCM),
        SOFTMAX,
        "(key_pos >= query_pos - left)",
        "(key_pos >= query_pos - left - 1)",
    ),
    one_edit(
        "the window is one key short on the right",
        encoder(TRITON),
        SOFTMAX,
        "(key_pos <= query_pos + right)",
        "(key_pos < query_pos + right)",
    ),
    one_edit(
        "the window is one key long on the right",
        encoder(TRITON),
        SOFTMAX,
        "(key_pos <= query_pos + right)",
        "(key_pos <= query_pos + right + 1)",
    ),
    one_edit(
        "the first tile is that of the last query's window",
        window(UNIFIED),
        SOFTMAX,
        "first = tl.maximum(first_query - left, 0)",
        "first = tl.maximum(last_query - left, 0)",
    ),
    one_edit(
        "no mask in the tile where a window begins",
        window(FA),
        SOFTMAX,
        "tl.cdiv(tl.maximum(last_query - left, 0), TILE) * TILE",
        "tl.maximum(last_query - left, 0) // TILE * TILE",
    ),
    one_edit(
        "a prefix range without its last token",
        prefix(TRITON),
        SOFTMAX,
        "(key_pos >= first) & (key_pos <= last)",
        "(key_pos >= first) & (key_pos < last)",
    ),
    one_edit(
        "the last prefix range is forgotten",
        prefix(UNIFIED),
        SOFTMAX,
        "for i in range(0, prefixes)",
        "for i in range(0, prefixes - 1)",
    ),
    one_edit(
        "a prefix range is seen from outside",
        prefix(ROCM),
        SOFTMAX,
        "seen | (query_in & key_in & (first < last))",
        "seen | (key_in & (first < last))",
    ),
    one_edit(
        "keys past the length are not masked",
        (TRITON, "cross_attention"),
        TILES,
        "tl.where(seen & stored[None, :], logits",
        "tl.where(seen, logits",
    ),
)

LOGITS = (
    one_edit(
        "the soft cap comes after the mask",
        capped(TRITON),
        TILES,
        'logits, float("-inf"))',
        'logits, -soft_cap * 1.4426950408889634 if SOFT_CAP else float("-inf"))',
    ),
    one_edit(
        "the soft cap is dropped",
        capped(UNIFIED),
        SCORES,
        '"SOFT_CAP": scores.soft_cap > 0',
        '"SOFT_CAP": False',
    ),
    one_edit(
        "ALiBi counts from the first token, not from the query",
        (ROCM, "large_logits"),
        TILES,
        "distance = key_pos[None, :] - query_pos[:, None]",
        "distance = key_pos[None, :] + query_pos[:, None] * 0",
    ),
    one_edit(
        "ALiBi has the slope of the KV head",
        (ROCM, "large_logits"),
        "ops/decode.py",
        "load_per_head(slopes_ptr, head, exists",
        "load_per_head(slopes_ptr, head // group, exists",
    ),
    one_edit(
        "ALiBi's root of the distance is missing",
        capped(TRITON),
        SOFTMAX,
        "tl.sqrt(tl.maximum(-distance, 0).to(tl.float32))",
        "tl.maximum(-distance, 0).to(tl.float32)",
    ),
    one_edit(
        "the softmax scale is applied twice",
        decode(ROCM),
        SOFTMAX,
        "logits = dot * (scale * LOG2E)",
        "logits = dot * (scale * scale * LOG2E)",
    ),
    one_edit(
        "exp2 of natural logits",
        decode(ROCM),
        SOFTMAX,
        "logits = dot * (scale * LOG2E)",
        "logits = dot * scale",
    ),
)

STATE = (
    one_edit(
        "the accumulator is not rescaled when the maximum rises",
        decode(TRITON),
        SOFTMAX,
        "acc * alpha[:, None], input_precision",
        "acc, input_precision",
    ),
    one_edit(
        "the denominator is not rescaled when the maximum rises",
        decode(UNIFIED),
        SOFTMAX,
        "total = total * alpha + tl.sum(p, 1)",
        "total = total + tl.sum(p, 1)",
    ),
    one_edit(
        "the maximum of a tile, not the running one",
        mixed(TRITON),
        SOFTMAX,
        "risen = tl.maximum(maximum, tl.max(logits, 1))",
        "risen = tl.max(logits, 1)",
    ),
    one_edit(
        "no maximum is subtracted",
        (ROCM, "large_logits"),
        SOFTMAX,
        "risen = tl.maximum(maximum, tl.max(logits, 1))",
        "risen = tl.maximum(maximum, tl.max(logits, 1)) * 0.0",
    ),
    one_edit(
        "the maximum starts at zero",
        (UNIFIED, "large_logits"),
        SOFTMAX,
        'tl.full([M], float("-inf"), dtype=tl.float32)',
        "tl.full([M], 0.0, dtype=tl.float32)",
    ),
    one_edit(
        "a row that has seen no key yet becomes NaN",
        window(TRITON),
        SOFTMAX,
        'origin = tl.where(risen == float("-inf"), 0.0, risen)\n    p = ',
        "origin = risen\n    p = ",
    ),
    one_edit(
        "a row that sees no key becomes NaN",
        (TRITON, "cross_attention"),
        SOFTMAX,
        "divisor = tl.where(total == 0.0, 1.0, total)",
        "divisor = total",
    ),
    one_edit(
        "a row that sees no key is not written",
        (UNIFIED, "cross_attention"),
        UNIFIED_FILE,
        "    seq_len = tl.load(seq_lens_ptr + seq)\n",
        "    seq_len = tl.load(seq_lens_ptr + seq)\n    if seq_len == 0:\n        return\n",
    ),
    one_edit(
        "the denominator is kept in bfloat16",
        decode(TRITON),
        SOFTMAX,
        "total = total * alpha + tl.sum(p, 1)",
        "total = (total * alpha + tl.sum(p, 1)).to(tl.bfloat16).to(tl.float32)",
    ),
    one_edit(
        "the log-sum-exp is to base 2",
        mixed(UNIFIED),
        SOFTMAX,
        "(maximum + tl.log2(divisor)) * LN2",
        "(maximum + tl.log2(divisor))",
    ),
)

SINKS = (
    one_edit(
        "a sink counts twice",
        capped(TRITON),
        SOFTMAX,
        "total * alpha + tl.exp2(sinks * LOG2E - origin)",
        "total * alpha + 2.0 * tl.exp2(sinks * LOG2E - origin)",
    ),
    one_edit(
        "sinks do not count",
        sinks(UNIFIED),
        SCORES,
        '"SINKS": sinks is not None',
        '"SINKS": False',
    ),
    one_edit(
        "sinks are those of the KV head",
        capped(UNIFIED),
        UNIFIED_FILE,
        "load_per_head(sinks_ptr, head, exists",
        "load_per_head(sinks_ptr, kv_head + head * 0, exists",
    ),
    one_edit(
        "the combination of segments forgets sinks",
        sinks(UNIFIED),
        "ops/combine.py",
        "output, lse = finish(acc[None, :], maximum, total, sinks, SINKS)",
        "output, lse = finish(acc[None, :], maximum, total, sinks, False)",
    ),
    one_edit(
        "a sink is taken for a logit to base 2",
        capped(TRITON),
        SOFTMAX,
        "tl.exp2(sinks * LOG2E - origin)",
        "tl.exp2(sinks - origin)",
    ),
)

HEADS = (
    one_edit(
        "KV heads are dealt by modulo",
        mixed(UNIFIED),
        ROWS,
        "return token, kv_head * group + row % group, exists",
        "return token, kv_head + row % group * tl.num_programs(1), exists",
    ),
    Fault(
        "padded head columns are read",
        capped(TRITON),
        (
            Edit(
                ROWS, "mask=exists[:, None] & (dims < D)[None, :], other=0", "mask=exists[:, None]"
            ),
            Edit(TILES, "mask=stored & (dims < D), other=0)", "mask=stored, other=0)"),
        ),
    ),
    one_edit(
        "output goes to the next head",
        (TRITON, "large_logits"),
        UNIFIED_FILE,
        "store_output(out_ptr, output, start + token, head, exists",
        "store_output(out_ptr, output, start + token, (head + 1) % group, exists",
    ),
    one_edit(
        "the first head of a group is not written",
        mixed(ROCM),
        "backends/rocm_attn.py",
        "store_output(out_ptr, output, start + token, head, exists,",
        "store_output(out_ptr, output, start + token, head, exists & (head % group > 0),",
    ),
)

FAULTS = (*MASKS, *LOGITS, *STATE, *SINKS, *HEADS)
