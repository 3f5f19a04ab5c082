"""Faults of the bias between the drafts of a tree, in the kernel of TREE_ATTN and TRITON_ATTN."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import Fault, one_edit

TREE = ("TREE_ATTN", "tree")
TILE, KERNEL = ("ops/tiles.py", "weigh_tile"), ("backends/triton_attn.py", "unified_kernel")
FAULTS: tuple[Fault, ...] = (
    one_edit(
        "a tree's bias is transposed",
        TREE,
        *TILE,
        "bias_ptr + row.to(tl.int64) * bias_row + column",
        "bias_ptr + column.to(tl.int64) * bias_row + row",
    ),
    one_edit(
        "a tree's bias has rows without space between them",
        TREE,
        *TILE,
        "bias_ptr + row.to(tl.int64) * bias_row + column",
        "bias_ptr + row.to(tl.int64) * biased + column",
    ),
    one_edit(
        "a tree's bias is read a column late",
        TREE,
        *TILE,
        "bias_ptr + row.to(tl.int64) * bias_row + column",
        "bias_ptr + row.to(tl.int64) * bias_row + column + 1",
    ),
    one_edit(
        "a tree's bias is that of the row before",
        TREE,
        *TILE,
        "query_pos - context",
        "tl.maximum(query_pos - context - 1, 0)",
    ),
    one_edit(
        "a tree's bias is read past its last row",
        TREE,
        *TILE,
        "(row < biased) & (column >= 0)",
        "column >= 0",
    ),
    one_edit(
        "the keys of drafts in a whole tile have no bias",
        TREE,
        *KERNEL,
        "tl.minimum(full_last, tl.maximum(unbiased, full_first))",
        "full_last",
    ),
    one_edit(
        "a sequence longer than a tree has its bias",
        TREE,
        *KERNEL,
        "tl.where(query_len <= bias_size, bias_size, 0)",
        "bias_size",
    ),
    one_edit(
        "a tree is not read",
        ("TRITON_ATTN", "tree", "branches"),
        *KERNEL,
        "bias_ptr is not None",
        "False",
    ),
)
