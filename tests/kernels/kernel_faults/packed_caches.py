"""Faults of caches that pack a key and a value into one row of bytes."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import Fault, one_edit

TURBO, ULTRA = "TURBOQUANT", "ULTRAQUANT"
ROWS, ATTENTION = "ops/packed_rows.py", "ops/packed_attention.py"
DECODE, PREFILL, EXTEND = "packed_decode", "packed_prefill", "packed_extend"
CONTINUED, MIXED = "packed_continued", "packed_mixed"

TURBOQUANT = (
    one_edit(
        "codes of 3 bits lose what is in the next byte",
        (TURBO, DECODE),
        ROWS,
        "load_codes",
        "bit % 8 > 5",
        "bit % 8 > 6",
    ),
    one_edit(
        "codes of 4 bits begin with a byte's upper half",
        (TURBO, DECODE),
        ROWS,
        "store_codes",
        "tl.arange(0, 2) * 4",
        "(1 - tl.arange(0, 2)) * 4",
    ),
    one_edit(
        "a vector of codebook entries keeps its length",
        (TURBO, DECODE),
        ROWS,
        "load_packed_key",
        "load_half(rows + BYTES, here) / length",
        "load_half(rows + BYTES, here)",
    ),
    one_edit(
        "a key's length is that of the first head",
        (TURBO, DECODE),
        ROWS,
        "write_packed_kernel",
        "tl.load(length_ptr + token * tl.num_programs(1) + head)",
        "tl.load(length_ptr + token * tl.num_programs(1))",
    ),
    one_edit(
        "the last border of the codebook is left out",
        (TURBO, DECODE),
        ROWS,
        "write_packed_kernel",
        "2**KEY_BITS - 1",
        "2**KEY_BITS - 2",
    ),
    one_edit(
        "steps of values are cut off, not rounded",
        (TURBO, DECODE),
        ROWS,
        "store_steps",
        "tl.div_rn(x - least, tl.zeros([D_PAD], dtype=tl.float32) + step) + 0.5",
        "tl.div_rn(x - least, tl.zeros([D_PAD], dtype=tl.float32) + step)",
    ),
    one_edit(
        "a value's step and its least element are swapped",
        (TURBO, PREFILL),
        ROWS,
        "store_steps",
        "store_half(pointer + BYTES, step)\nstore_half(pointer + (BYTES + 2), least)",
        "store_half(pointer + BYTES, least)\nstore_half(pointer + (BYTES + 2), step)",
    ),
    one_edit(
        "queries are not rotated",
        (TURBO, DECODE),
        ATTENTION,
        "attend_packed_cache",
        "turned @ rotation(form.size, query.device)",
        "turned",
    ),
    one_edit(
        "a prefill reads its own keys from the cache",
        (TURBO, PREFILL),
        ATTENTION,
        "packed_cache_kernel",
        "(context == 0) | (query_len > CONTINUED)",
        "query_len > CONTINUED",
    ),
    one_edit(
        "a short prefill after a context reads keys as computed",
        (TURBO, EXTEND),
        ATTENTION,
        "packed_cache_kernel",
        "(query_len > 1) & ((context == 0) | (query_len > CONTINUED))",
        "query_len > 1",
    ),
    one_edit(
        "a prefill of 129 tokens after a context reads its keys from the cache",
        (TURBO, CONTINUED),
        ATTENTION,
        "",
        "CONTINUED = 128",
        "CONTINUED = 129",
    ),
    one_edit(
        "queries see the keys behind them in the cache",
        (TURBO, EXTEND),
        ATTENTION,
        "attend_rows",
        "here[None, :] & (key_pos[None, :] <= query_pos[:, None])",
        "here[None, :] & (key_pos[None, :] >= 0)",
    ),
)

ULTRAQUANT = (
    one_edit(
        "queries are not rounded to fp8",
        (ULTRA, DECODE),
        ATTENTION,
        "packed_cache_kernel",
        "tl.where(computed, turned, rounded)",
        "turned",
    ),
    one_edit(
        "keys are stored without a rotation",
        (ULTRA, DECODE),
        ROWS,
        "write_packed",
        "key @ rotation(form.size, device)",
        "key",
    ),
    one_edit(
        "all groups have the first one's scale",
        (ULTRA, DECODE),
        ROWS,
        "load_groups",
        "BYTES + dims // GROUP",
        "BYTES + dims * 0",
    ),
    one_edit(
        "scales are stored one power too low",
        (ULTRA, DECODE),
        ROWS,
        "store_groups",
        "tl.store(pointer + BYTES + group, exponent.to(tl.uint8), mask=group * GROUP < D)",
        "tl.store(pointer + BYTES + group, (exponent - 1).to(tl.uint8), mask=group * GROUP < D)",
    ),
    one_edit(
        "scales are rounded down",
        (ULTRA, DECODE),
        ROWS,
        "store_groups",
        "tl.log2(tl.where(largest > 0, largest * SCALE_FACTOR, 1.0)) + 0.5",
        "tl.log2(tl.where(largest > 0, largest * SCALE_FACTOR, 1.0))",
    ),
    one_edit(
        "a sixth of the largest magnitude is taken for the scale",
        (ULTRA, DECODE),
        ROWS,
        "",
        "SCALE_FACTOR = tl.constexpr(0.156)",
        "SCALE_FACTOR = tl.constexpr(1 / 6)",
    ),
    one_edit(
        "the middle between two numbers becomes the one further from zero",
        (ULTRA, DECODE),
        ROWS,
        "passed",
        "tl.where(below, size >= middle, size > middle)",
        "size >= middle",
    ),
    one_edit(
        "negative numbers lose their sign",
        (ULTRA, DECODE),
        ROWS,
        "load_groups",
        "tl.where(code < 8, size, -size)",
        "size",
    ),
    one_edit(
        "numbers below one are read like the others",
        (ULTRA, DECODE),
        ROWS,
        "load_groups",
        "tl.where(power == 0, half, (1.0 + half) * ((1 << power) >> 1).to(tl.float32))",
        "(1.0 + half) * ((1 << power) >> 1).to(tl.float32)",
    ),
    one_edit(
        "values are read from the keys' codes",
        (ULTRA, MIXED),
        ATTENTION,
        "attend_rows",
        "load_packed_value(rows + VALUE_START, here, D, D_PAD, VALUE_BITS, VALUE_BYTES, GROUPED)",
        "load_packed_value(rows, here, D, D_PAD, VALUE_BITS, VALUE_BYTES, GROUPED)",
    ),
)

FAULTS: tuple[Fault, ...] = (*TURBOQUANT, *ULTRAQUANT)
