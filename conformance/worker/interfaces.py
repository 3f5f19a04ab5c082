"""The types that pass between the harness and a subject's backends.

The letters of the shapes are those of ``rocm_reference.attention``: ``T`` query tokens, ``S``
sequences, ``H`` query heads, ``G`` KV heads, ``D`` the head size of queries and keys, ``V`` that of
values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .contract import ProblemFields

# The names of the kernels that ran.
Dispatch = Sequence[str]


@dataclass(frozen=True)
class Geometry:
    """The shape of an attention layer and its cache; for MLA ``v_head_size`` is the latent rank.

    ``packing``: the name of a cache of bytes that packs a key and a value into one row, or has a
    scale for each token and head, or "".
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

    ``query_start_loc``: int32 [S+1]. ``seq_lens``: int32 [S]. ``block_table``: int32 [S, blocks].
    """

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    max_query_len: int
    max_seq_len: int
    max_context_len: int


@dataclass(frozen=True)
class Scores:
    """How logits are made of queries and keys.

    ``window``: how many keys a query sees to its left and right (-1: no limit). ``alibi_slopes``
    and ``sinks``: float32 [H]. ``mm_prefix``: int32 [S, R, 2], ranges of positions.
    ``prompt_lens``: int32 [S], how many first keys are seen whatever the window. ``query_bias``:
    float32 [R, R], what is added to logits of a sequence's query tokens and their own keys, where
    there are no more than R.
    """

    scale: float
    causal: bool
    window: tuple[int, int]
    soft_cap: float
    alibi_slopes: torch.Tensor | None
    alibi_sqrt: bool
    sinks: torch.Tensor | None
    mm_prefix: torch.Tensor | None
    prompt_lens: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Scales:
    """What a stored fp8 value is multiplied by; 1 for other caches."""

    k: float = 1.0
    v: float = 1.0


@dataclass(frozen=True)
class Layer:
    """What all calls of a problem have in common."""

    geometry: Geometry
    scores: Scores
    scales: Scales


@dataclass(frozen=True)
class Paged:
    """Attention over a paged cache.

    ``query`` [T, H, D]; ``key`` [T, G, D] and ``value`` [T, G, V] of the query tokens, which are in
    the cache too (None: cross attention). ``out`` [T, H, V] and, where it is asked for, ``lse``
    [T, H] are written. ``selected``: the positions that sparse attention sees, [T, topk].
    """

    query: torch.Tensor
    key: torch.Tensor | None
    value: torch.Tensor | None
    cache: torch.Tensor
    batch: Batch
    out: torch.Tensor
    lse: torch.Tensor | None
    selected: torch.Tensor | None = None


@dataclass(frozen=True)
class Varlen:
    """Attention over packed sequences, without a cache.

    ``key`` [K, G, D] and ``value`` [K, G, V] of every position; ``*_start_loc`` int32 [S+1].
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    query_start_loc: torch.Tensor
    key_start_loc: torch.Tensor
    max_query_len: int
    max_key_len: int
    out: torch.Tensor
    lse: torch.Tensor | None


@dataclass(frozen=True)
class LatentPrefill:
    """MLA's prefill: keys and values are projected up from the latent vectors.

    ``key`` [T, 1, D]: the latent vector and the rope part. ``kv_b_proj`` [H, latent, 128 + V].
    """

    query: torch.Tensor
    key: torch.Tensor
    kv_b_proj: torch.Tensor
    cache: torch.Tensor
    batch: Batch
    out: torch.Tensor
    lse: torch.Tensor | None


class Backend:
    """One backend of a subject. A problem calls only the methods that its kind needs.

    Every method may raise :class:`Refused`. ``filling`` names what unused slots of the cache must
    hold ("zero") for a backend that computes with them on purpose.
    """

    filling = ""

    def pad_blocks(self, cache: torch.Tensor, of_one_more: torch.Size, pad: int) -> torch.Tensor:  # noqa: ARG002 - a subclass reads them
        """A cache like this one whose blocks are further apart, if the backend may be given one.

        ``pad``: unused elements after each block. ``of_one_more``: the shape of a cache of one
        block more.
        """
        return cache

    def check(self, problem: ProblemFields) -> None:
        """Refuses a problem that the backend does not claim to compute."""

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        """An uninitialised cache in the backend's own layout."""
        raise NotImplementedError

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        """Stores keys [T, G, D] and values [T, G, V] at int64 slots [<= T]; -1 is skipped."""
        raise NotImplementedError

    def stored_rows(
        self,
        cache: torch.Tensor,  # noqa: ARG002 - a subclass reads them
        slots: torch.Tensor,  # noqa: ARG002 - likewise
        geometry: Geometry,  # noqa: ARG002 - likewise
    ) -> torch.Tensor | None:
        """The bytes that the cache has for slots [N], as [N, G, bytes], where a format says what
        each of them is; else None."""
        return None

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        raise NotImplementedError

    def attend_varlen(self, given: Varlen, layer: Layer) -> Dispatch:
        raise NotImplementedError

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:
        raise NotImplementedError

    def write_index(
        self, rows: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, geometry: Geometry
    ) -> Dispatch:
        """Stores the indexer's keys [T, D]."""
        raise NotImplementedError

    def select(
        self,
        query: torch.Tensor,
        weights: torch.Tensor,
        cache: torch.Tensor,
        batch: Batch,
        out: torch.Tensor,
    ) -> Dispatch:
        """Writes the positions with the highest scores to ``out``, int32 [T, topk]."""
        raise NotImplementedError


class KernelSubject:
    """A subject's kernels on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def backend(self, name: str) -> Backend:
        """A new backend, for one problem."""
        raise NotImplementedError

    def why_unknown(self, error: Exception) -> str:  # noqa: ARG002 - a subclass reads it
        """Why an error of a backend is the harness's own inability; "" if it is the subject's."""
        return ""

    def synchronize(self) -> None:
        """Waits for the device, so that an error shows in the problem that caused it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Frees the memory that a problem took, for others that share the device."""
        if self.device.type == "cuda":
            # After an error of the device itself nothing can be freed.
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
