"""Faults of what TRITON_ATTN has in later editions: caches with a scale for each token and head,
and prompts that are seen beyond a window (R-SWA)."""

from __future__ import annotations

from functools import cache

from conformance.problems.families import problems_for
from conformance.problems.problem import Problem
from tests.kernels.kernel_faults.fault import Fault, one_edit

ROWS, ATTENTION = "ops/head_scaled_rows.py", "ops/head_scaled.py"
WRITE, KERNEL, TILE = "head_scaled_write_kernel", "head_scaled_kernel", "load_scaled_tile"


@cache
def tagged(tag: str, backend: str = "TRITON_ATTN", edition: str = "0.33") -> tuple[Problem, ...]:
    """A later edition's quick problems of a tag."""
    made = problems_for(backend, "quick", edition=edition)
    return tuple(problem for problem in made if tag in problem.tags)


def asked(tag: str, name: str) -> Problem:
    """The problem of a tag for a cache."""
    cache = f"{name}_per_token_head"
    (found,) = (problem for problem in tagged(tag) if problem.kv_cache_dtype == cache)
    return found


INT8_DECODE, INT8_MIXED = asked("heads_decode", "int8"), asked("heads_mixed", "int8")
INT4_DECODE, INT4_MIXED = asked("heads_decode", "int4"), asked("heads_mixed", "int4")
FP8_MIXED = asked("heads_mixed", "fp8_e4m3fn")
FNUZ_DECODE = asked("heads_decode", "fp8_e4m3fnuz")
PROMPT_DECODE, PROMPT_MIXED = tagged("prompts")
FAULTS: tuple[Fault, ...] = (
    one_edit(
        "int8's codes are cut off, not rounded",
        INT8_DECODE,
        ROWS,
        WRITE,
        "tl.floor(tl.abs(quotient) + 0.5)",
        "tl.floor(tl.abs(quotient))",
    ),
    one_edit(
        "all heads of a token have the first one's scale",
        INT8_DECODE,
        ATTENTION,
        KERNEL,
        "number * scale_block + place * scale_slot + kv_head * scale_head",
        "number * scale_block + place * scale_slot",
    ),
    one_edit(
        "all tokens of a block have the first one's scale",
        INT8_MIXED,
        ATTENTION,
        KERNEL,
        "number * scale_block + place * scale_slot",
        "number * scale_block",
    ),
    one_edit(
        "values have the keys' scales",
        INT8_MIXED,
        ATTENTION,
        KERNEL,
        "(value_scale_ptr + scales)",
        "(key_scale_ptr + scales)",
    ),
    one_edit(
        "keys are not multiplied by their scales",
        INT8_DECODE,
        ATTENTION,
        KERNEL,
        'tl.dot(query, key, input_precision="ieee") * key_scale',
        'tl.dot(query, key, input_precision="ieee")',
    ),
    one_edit(
        "a scale is that of the largest element, not of the largest magnitude",
        INT8_DECODE,
        ROWS,
        WRITE,
        "tl.max(tl.abs(row), 1)",
        "tl.max(row, 1)",
    ),
    one_edit(
        "fp8's scale is that of the other encoding",
        FNUZ_DECODE,
        ROWS,
        "write_head_scaled",
        "LARGEST[code_name(geometry)]",
        "448.0",
    ),
    one_edit(
        "a split leaves out the end of its last part",
        INT8_DECODE,
        ATTENTION,
        KERNEL,
        "end = tl.minimum(begin + per_segment, last)",
        "end = tl.minimum(begin + per_segment, last - 1)",
    ),
    one_edit(
        "probabilities are multiplied by the keys' scales",
        FP8_MIXED,
        ATTENTION,
        KERNEL,
        "tl.trans(own_scale)",
        "key_scale",
    ),
    one_edit(
        "int4's first element is in the upper half of a byte",
        INT4_DECODE,
        ROWS,
        WRITE,
        "low | high << 4",
        "high | low << 4",
    ),
    one_edit(
        "int4's zero is none",
        INT4_DECODE,
        ROWS,
        TILE,
        "(pair >> dims % 2 * 4 & 15) - (bits & 15)",
        "pair >> dims % 2 * 4 & 15",
    ),
    one_edit(
        "int4's outputs are not rotated back",
        INT4_MIXED,
        ATTENTION,
        "attend_head_scaled",
        "into.float() @ turn.T / block",
        "into.float()",
    ),
    one_edit(
        "int4's queries are rotated by the inverse",
        INT4_MIXED,
        ATTENTION,
        "attend_head_scaled",
        "query.float() @ turn",
        "query.float() @ turn.T",
    ),
    one_edit(
        "int4's scale is a sixteenth",
        INT4_MIXED,
        ROWS,
        WRITE,
        "tl.div_rn(tl.where(stored, most - least, 0.0), LARGEST)",
        "tl.div_rn(tl.where(stored, most - least, 0.0), LARGEST + 1)",
    ),
    one_edit(
        "a prompt is a key longer",
        PROMPT_DECODE,
        "ops/softmax.py",
        "visible",
        "key_pos < prompt",
        "key_pos <= prompt",
    ),
    one_edit(
        "a batch's first prompt is that of all",
        PROMPT_MIXED,
        "backends/triton_attn.py",
        "unified_kernel",
        "tl.load(prompts_ptr + seq)",
        "tl.load(prompts_ptr)",
    ),
    one_edit(
        "tiles before the window are not read, whatever a prompt shows",
        PROMPT_DECODE,
        "backends/triton_attn.py",
        "unified_kernel",
        "PREFIXES or PROMPTS",
        "PREFIXES",
    ),
)
