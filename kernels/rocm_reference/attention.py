"""The interface of every reference backend: the tensors it gets and what it must do with them.

Shapes use these letters: ``T`` query tokens of a batch (padding rows included), ``S`` sequences,
``H`` query heads, ``G`` KV heads (``H`` is a multiple of ``G``; query head ``h`` reads KV head
``h // (H / G)``), ``D`` the head size of queries and keys, ``V`` that of values, ``N`` cache
blocks of ``B`` slots. A slot number is ``block * B + offset in the block``.

Rules that hold for every method of every backend:

- Inputs may be strided; the last dimension is contiguous.
- Only slots that a sequence's length covers may be read, and of those before a window only what
  one of the block's queries sees: earlier blocks may have been given up. The others may hold
  anything, NaN included. Entries of ``block_table`` past a sequence's blocks are garbage, possibly
  out of range. Query, key and value rows from ``query_start_loc[S]`` on are padding.
- Every output row below ``query_start_loc[S]`` is written, and no other memory. A row that sees no
  key is zero (its log-sum-exp is -inf, or its head's sink).
- Offsets into a cache are 64-bit: a cache may have more than 2**31 elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

Dispatch = tuple[str, ...]


@dataclass(frozen=True)
class Geometry:
    """The shape of an attention layer, and the cache it reads.

    ``dtype`` is that of queries, keys, values and outputs; ``cache_dtype`` equals it, or is one of
    ``torch.float8_e4m3fn``, ``torch.float8_e4m3fnuz``, ``torch.float8_e5m2``. For MLA ``head_size``
    is the latent rank plus the rope part (576), ``v_head_size`` the latent rank (512), and
    ``num_kv_heads`` is 1. ``packing``: vLLM's name of a cache of bytes that packs a key and a value
    into one row, such as ``turboquant_k8v4``, or has a scale for each token and head, such as
    ``int8_per_token_head`` (of fp8 with the encoding: ``fp8_e4m3fn_per_token_head``), or "".
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    v_head_size: int
    dtype: torch.dtype
    cache_dtype: torch.dtype
    block_size: int
    packing: str = ""


@dataclass(frozen=True)
class Batch:
    """Which tokens belong to which sequence, and where their keys are.

    ``query_start_loc``: int32 [S+1], the first query row of each sequence.
    ``seq_lens``: int32 [S], keys of each sequence, those of its query tokens included.
    ``block_table``: int32 [S, blocks], the cache blocks of each sequence in order.
    ``max_query_len``, ``max_seq_len``: the largest in the batch, known to the host.
    ``max_context_len``: the longest context in the batch, or None if the host does not know it.

    In a decoder, query token ``i`` of a sequence stands at position ``seq_len - query_len + i``;
    the keys before its query tokens are its context, which is in the cache already.
    """

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    max_query_len: int
    max_seq_len: int
    max_context_len: int | None = None

    @property
    def context_limit(self) -> int:
        """An upper bound on the context length of every sequence."""
        if self.max_context_len is None:
            return max(self.max_seq_len - 1, 0)
        return self.max_context_len


@dataclass(frozen=True)
class Scores:
    """How logits are made of queries and keys.

    The logit of a query at position ``i`` and a key at position ``j`` is::

        x = scale * q . k;  x = soft_cap * tanh(x / soft_cap) if soft_cap
        x += slope[h] * (j - i)           (alibi_sqrt: slope[h] * -sqrt(max(i - j, 0)))

    and the key is visible when ``j <= i`` (if ``causal``) and, with a window ``(left, right)``,
    ``i - left <= j <= i + right`` (-1: that side has no limit), where of the left side the first
    ``prompt_lens`` keys of a sequence are exempt; or when both positions lie in one
    of the sequence's multimodal prefix ranges. A sink adds ``exp(sink[h])`` to the denominator.

    ``alibi_slopes``, ``sinks``: float32 [H]. ``mm_prefix``: int32 [S, R, 2], inclusive ranges of
    positions; a range with ``start >= end`` is empty. ``prompt_lens``: int32 [S], or None.

    ``query_bias``: float32 [R, R], rows strided, or None. In a sequence with no more than R query
    tokens it is added to the logits of these tokens (rows) and their own keys (columns): a mask of
    minus infinity lets the tokens of a tree see their own branches alone.
    """

    scale: float
    causal: bool = True
    window: tuple[int, int] = (-1, -1)
    soft_cap: float = 0.0
    alibi_slopes: torch.Tensor | None = None
    alibi_sqrt: bool = False
    sinks: torch.Tensor | None = None
    mm_prefix: torch.Tensor | None = None
    prompt_lens: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Scales:
    """Factors that turn stored fp8 values into keys and values; 1 for other caches."""

    k: float = 1.0
    v: float = 1.0


class PagedBackend(Protocol):
    """A backend with a paged KV cache: dense (queries [T, H, D]) or MLA.

    Dense: keys [T, G, D] and values [T, G, V] of the query tokens. MLA: the key is [T, 1, D], the
    latent vector followed by the rope part, and ``value`` is its first ``V`` columns.
    """

    name: str

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        """An uninitialised cache of ``num_blocks`` blocks in this backend's own layout."""
        ...

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        geometry: Geometry,
        scales: Scales,
    ) -> Dispatch:
        """Stores keys and values at ``slot_mapping`` (int64 [<= T]); a slot of -1 is skipped.

        An fp8 cache holds ``round(x / scale)``, rounded to nearest even and saturated.
        """
        ...

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        cache: torch.Tensor,
        batch: Batch,
        geometry: Geometry,
        scores: Scores,
        scales: Scales,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        """Attention of every query token over its sequence's cached keys, into ``out`` [T, H, V].

        The query tokens' own keys and values are in the cache already. ``key`` and ``value`` hold
        them once more, as computed and not as stored, for algorithms that read them from there;
        they are None for cross attention, where all keys are in the cache. ``lse`` (float32
        [T, H]) receives the natural log-sum-exp of the logits, sink included. Returns the names of
        the kernels that ran.
        """
        ...


class VarlenBackend(Protocol):
    """Attention over packed sequences without a cache: encoders and vision models."""

    name: str

    def attend_varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        query_start_loc: torch.Tensor,
        key_start_loc: torch.Tensor,
        max_query_len: int,
        max_key_len: int,
        geometry: Geometry,
        scores: Scores,
        out: torch.Tensor,
        lse: torch.Tensor | None = None,
    ) -> Dispatch:
        """Sequences' queries attend their keys; if ``causal``, the last query is at the last key.

        ``query`` [T, H, D], ``key`` [K, G, D], ``value`` [K, G, V], ``out`` [T, H, V], ``lse``
        float32 [T, H] or None; ``*_start_loc`` int32 [S+1].
        """
        ...
