"""FLEX_ATTENTION: torch attention made of a mask function and a block mask.

Cache layout: ``[2, N, B, G, D]``
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/flex_attention.py).
As in FlexAttention (https://arxiv.org/abs/2412.05496), the mask is a function of two positions.
Evaluated block by block, it tells which blocks of keys a block of queries needs; only those are
gathered from the cache. Logits and probabilities are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from rocm_reference.attention import Batch, Dispatch, Geometry, Scales, Scores
from rocm_reference.ops.cache import HalvedCache

BLOCK = 128

# Maps the positions of queries and keys to whether each pair sees one another.
Mask = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Maps positions of keys to their rows [keys, G, D], dequantised to float32.
Rows = Callable[[torch.Tensor], torch.Tensor]


def mask_of(scores: Scores, sequence: int) -> Mask:
    """The mask: which keys a query sees."""
    left, right = scores.window
    prefix = [] if scores.mm_prefix is None else scores.mm_prefix[sequence].tolist()
    prompt = 0 if scores.prompt_lens is None else int(scores.prompt_lens[sequence])

    def visible(query_pos: torch.Tensor, key_pos: torch.Tensor) -> torch.Tensor:
        seen = key_pos >= 0
        if scores.causal:
            seen = seen & (key_pos <= query_pos)
        if left >= 0:
            seen = seen & ((key_pos >= query_pos - left) | (key_pos < prompt))
        if right >= 0:
            seen = seen & (key_pos <= query_pos + right)
        for first, last in prefix:
            if first < last:
                both = [(p >= first) & (p <= last) for p in (query_pos, key_pos)]
                seen = seen | (both[0] & both[1])
        return seen

    return visible


def check_scores(scores: Scores) -> None:
    """Checks that nothing but a mask is asked for.

    Raises:
        NotImplementedError: ``scores`` has a soft cap, ALiBi or sinks.
    """
    if scores.soft_cap or scores.alibi_slopes is not None or scores.sinks is not None:
        raise NotImplementedError(f"FLEX_ATTENTION has no soft cap, ALiBi or sinks: got {scores}")


def key_blocks(
    mask: Mask, query_pos: torch.Tensor, num_keys: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """The positions of each block of keys that at least one of the queries sees."""
    for first in range(0, num_keys, BLOCK):
        key_pos = torch.arange(first, min(first + BLOCK, num_keys), device=device)
        if bool(mask(query_pos[:, None], key_pos[None, :]).any()):
            yield key_pos


def attend_block(
    query: torch.Tensor,
    query_pos: torch.Tensor,
    num_keys: int,
    keys: Rows,
    values: Rows,
    sequence: int,
    geometry: Geometry,
    scores: Scores,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block of queries [q, H, D]: ``(output [q, H, V], log-sum-exp [q, H])`` in float32."""
    mask = mask_of(scores, sequence)
    group = geometry.num_heads // geometry.num_kv_heads
    blocks = list(key_blocks(mask, query_pos, num_keys, query.device))
    key_pos = torch.cat(blocks) if blocks else query_pos[:0]
    # What no query sees is not read: before a window it may be gone, and 0 times NaN is NaN.
    key_pos = key_pos[mask(query_pos[:, None], key_pos[None, :]).any(0)]
    key, value = keys(key_pos), values(key_pos)
    queries = query.float().reshape(len(query), geometry.num_kv_heads, group, -1)
    logits = torch.einsum("qgrd,kgd->grqk", queries, key).flatten(0, 1) * scores.scale
    seen = mask(query_pos[:, None], key_pos[None, :])
    logits = logits.masked_fill(~seen, float("-inf"))
    # The extra column gives rows without any key a maximum.
    top = torch.nn.functional.pad(logits, (0, 1), value=float("-inf")).amax(-1, keepdim=True)
    # A row that sees nothing has top -inf: its weights are exp(-inf - 0) = 0.
    origin = torch.where(top == float("-inf"), 0.0, top)
    weights = torch.exp(logits - origin)
    total = weights.sum(-1, keepdim=True)
    lse = (origin + torch.log(total))[..., 0]
    # Divided by the sum of these very weights: an error that they all share cancels.
    weights = weights / torch.where(total == 0, 1.0, total)
    grouped = weights.reshape(geometry.num_kv_heads, group, *weights.shape[1:])
    output = torch.einsum("grqk,kgd->qgrd", grouped, value).flatten(1, 2)
    return output, lse.T


def attend_sequence(
    query: torch.Tensor,
    span: slice,
    num_keys: int,
    keys: Rows,
    values: Rows,
    sequence: int,
    geometry: Geometry,
    scores: Scores,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    """Query rows ``span`` of one sequence, a block at a time; the last row is at the last key."""
    for row in range(span.start, span.stop, BLOCK):
        rows = slice(row, min(row + BLOCK, span.stop))
        query_pos = torch.arange(rows.start, rows.stop, device=query.device)
        output, sums = attend_block(
            query[rows],
            query_pos + (num_keys - span.stop),
            num_keys,
            keys,
            values,
            sequence,
            geometry,
            scores,
        )
        out[rows] = output.to(out.dtype)
        if lse is not None:
            lse[rows] = sums


class FlexAttention(HalvedCache):
    """The backend FLEX_ATTENTION."""

    name = "FLEX_ATTENTION"

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,  # noqa: ARG002 - all keys are read from the cache
        value: torch.Tensor | None,  # noqa: ARG002 - likewise
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        check_scores(scores)
        starts, lengths = batch.query_start_loc.tolist(), batch.seq_lens.tolist()
        for seq, num_keys in enumerate(lengths):
            table = batch.block_table[seq].long()
            keys = _rows(cache[0], table, geometry, scales.k)
            values = _rows(cache[1], table, geometry, scales.v)
            span = slice(starts[seq], starts[seq + 1])
            attend_sequence(query, span, num_keys, keys, values, seq, geometry, scores, out, lse)
        return ("flex",)

    def attend_varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_start_loc: torch.Tensor,
        key_start_loc: torch.Tensor,
        max_query_len: int,  # noqa: ARG002 - the slices have the lengths
        max_key_len: int,  # noqa: ARG002 - likewise
        geometry: Geometry,
        scores: Scores,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        """See :class:`rocm_reference.attention.VarlenBackend`."""
        check_scores(scores)
        starts, ends = query_start_loc.tolist(), key_start_loc.tolist()
        for seq in range(len(starts) - 1):
            keys, values = (tensor[ends[seq] : ends[seq + 1]].float() for tensor in (key, value))
            attend_sequence(
                query,
                slice(starts[seq], starts[seq + 1]),
                len(keys),
                keys.__getitem__,
                values.__getitem__,
                seq,
                geometry,
                scores,
                out,
                lse,
            )
        return ("flex",)


def _rows(half: torch.Tensor, table: torch.Tensor, geometry: Geometry, scale: float) -> Rows:
    """Reads rows of one half of a cache [N, B, G, D] by position."""

    def read(positions: torch.Tensor) -> torch.Tensor:
        block = table[positions // geometry.block_size]
        return half[block, positions % geometry.block_size].float() * scale

    return read
