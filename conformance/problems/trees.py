"""Trees of draft tokens, which speculative decoding verifies in one step.

The query tokens of a sequence are then no line: row 0 is the root, the last token that was
accepted, and each later row is a draft, which follows the row that is its parent. A token sees the
context, its ancestors and itself; it does not see other branches, though these are before it in the
cache. vLLM hands this to its kernel as a bias between query tokens, 0 where a token is seen and
minus infinity elsewhere
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/tree_attn.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def rows_seen(tree: Sequence[int]) -> list[list[bool]]:
    """Which rows each row sees: itself, and all that its parent sees.

    ``tree`` has the parent of each row from the second on.
    """
    count = len(tree) + 1
    seen = [[True] + [False] * (count - 1)]
    for row, parent in enumerate(tree, 1):
        seen.append([*seen[parent][:row], True, *[False] * (count - row - 1)])
    return seen


def is_chain(tree: Sequence[int]) -> bool:
    """Whether there is one branch, so that the mask is the causal one."""
    return all(parent == row for row, parent in enumerate(tree))


def mistake(tree: Sequence[int]) -> str:
    """What is wrong with a tree; "" if nothing is.

    vLLM sorts drafts by depth and then by branch (``speculative_token_tree`` of
    https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/config/speculative.py), which is to say
    that parents are in order.
    """
    late = [row for row, parent in enumerate(tree, 1) if parent >= row]
    if late:
        return f"row {late[0]} comes before its parent; allowed: a parent below its row"
    if any(first > second for first, second in pairwise(tree)):
        return "is not sorted by depth; allowed: parents in order"
    return ""


def verified(tree: Sequence[int], query_lens: Sequence[int]) -> list[bool]:
    """Which sequences are verified by the tree: those with no more query tokens than it has."""
    return [bool(tree) and count <= len(tree) + 1 for count in query_lens]
