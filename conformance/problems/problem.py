"""A problem: everything needed to make the tensors of one attention computation.

It is data, small enough for a report and a command line. Two machines make the same tensors from
the same problem, bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from conformance.errors import SuiteError
from conformance.problems import trees
from conformance.problems.cache_dtypes import (
    DS_MLA_CACHES,
    HEAD_SCALED_CACHES,
    OCTAVE_CACHES,
    OCTAVE_DECODES,
    PACKED_CACHES,
    CacheDtype,
)
from conformance.problems.mistakes import mistakes

Kind = Literal["paged", "varlen", "mla", "mla_prefill", "mla_sparse", "indexer"]
Order = Literal["forwards", "backwards", "shuffled"]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Problem:
    """One attention computation. Lengths are in tokens, one entry per sequence.

    ``kind``
        ``paged``: a decoder, or cross attention (``key_lens`` given), over a paged cache.
        ``varlen``: packed sequences without a cache. ``mla``: queries that were multiplied into
        the latent space, ``head_size`` 576 and ``v_head_size`` 512; the value is the key's first
        ``v_head_size`` columns. ``mla_prefill``: keys and values are projected up from the
        latent; ``head_size`` is that of the query (192), ``v_head_size`` that of the output (128).
        ``mla_sparse``: ``mla`` over ``topk`` chosen positions per query token; with a window over
        the positions in it too, and those before it are chosen (DeepSeek-V4: ``head_size`` and
        ``v_head_size`` 512). ``indexer``: the scores that choose them.
    ``window``
        How many keys a query sees to the left and to the right of its own; -1: no limit.
    ``mm_prefix``
        Per sequence, inclusive ranges of positions that see each other regardless of the mask.
    ``prompts``
        Per sequence, how many first keys are seen whatever the window (R-SWA).
    ``tree``
        Draft tokens: the row, among a sequence's query tokens, of the parent of each from the
        second on. A sequence of no more query tokens than the tree has is verified: its tokens see
        the context, their ancestors and themselves. Longer ones, which come last, are causal.
    ``new_tokens_from_cache``
        Whether the query tokens' own keys are read as stored in the cache, or as computed (which
        differs for an fp8 cache). A sequence with one query token reads the cache either way: it is
        a decode, for which every backend has a kernel that reads nothing but the cache.
    ``continued_from_cache``
        After a context, so many query tokens and fewer are read from the cache nevertheless.
    ``head_pad``, ``row_pad``, ``extra_rows``
        Unused elements after each head, unused heads after each token, and padding tokens after
        the last sequence, in queries, keys, values and outputs.
    ``spare_blocks``, ``shuffled``, ``high_blocks``
        Cache blocks that no sequence owns; whether blocks are dealt at random; whether the
        sequences own the last blocks of the cache instead of the first.
    ``table_spare``
        Columns of the block table beyond those that the longest sequence has blocks for: garbage.
    ``skipped_writes``
        Rows with slot -1, scattered among the context's writes.
    ``evicted``
        Cache blocks that lie wholly before the window of a sequence's first query token were given
        up, as vLLM's engine does: nothing of the sequence is in them any more.
    ``block_pad``
        Unused elements after each block of the cache.
    ``interleaved``
        Whether values lie in the cache as AITER's fused write stores them, in packs of slots; of
        backends that have two places for them and can be told so.
    ``at_once``
        The most that a backend may work on at a time, where it has a workspace; 0: its own limit.
        In prefills tokens of context, over all sequences; in the indexer logits.
    ``pieces``
        Into how many pieces a decode divides the keys of a sequence, or its work, where the backend
        takes a number; 0: as many as it likes.
    ``order``
        The order in which the interpreter runs the programs of a grid; other devices have their
        own.
    ``fp8_edges``
        Values are what conversions to fp8 get wrong: every number of the encoding, the ties between
        neighbours, what rounds to the largest number and what saturates, and zeros of both signs.
    ``large_logits``
        All logits of a head are shifted far from zero: up for even heads, down for odd ones.
    ``dominant``
        (sequence, position) of keys that take most of the weight wherever they are visible.
    ``poison``
        The content of memory that must not be read: ``nan``, ``inf``, or ``huge`` finite values.
    """

    kind: Kind
    backend: str
    id: str
    seed: int
    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    num_heads: int
    num_kv_heads: int
    head_size: int
    v_head_size: int
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    kv_cache_dtype: CacheDtype = "auto"
    key_lens: tuple[int, ...] | None = None
    block_size: int = 16
    causal: bool = True
    window: tuple[int, int] = (-1, -1)
    soft_cap: float = 0.0
    alibi: Literal["none", "linear", "sqrt"] = "none"
    sinks: bool = False
    mm_prefix: tuple[Ranges, ...] = ()
    prompts: tuple[int, ...] = ()
    tree: tuple[int, ...] = ()
    k_scale: float = 1.0
    v_scale: float = 1.0
    scale: float | None = None
    new_tokens_from_cache: bool = True
    continued_from_cache: int = 0
    head_pad: int = 0
    row_pad: int = 0
    extra_rows: int = 0
    spare_blocks: int = 3
    shuffled: bool = True
    high_blocks: bool = False
    skipped_writes: int = 0
    evicted: bool = False
    block_pad: int = 0
    table_spare: int = 2
    interleaved: bool = False
    at_once: int = 0
    pieces: int = 0
    order: Order = "forwards"
    fp8_edges: bool = False
    large_logits: bool = False
    dominant: tuple[tuple[int, int], ...] = ()
    poison: Literal["nan", "inf", "huge"] = "nan"
    topk: int = 0
    latent_rank: int = 512
    rope_size: int = 64
    tags: tuple[str, ...] = ()

    @property
    def num_sequences(self) -> int:
        return len(self.query_lens)

    @property
    def num_tokens(self) -> int:
        """Query tokens that count; ``extra_rows`` more follow them."""
        return sum(self.query_lens)

    @cached_property
    def seq_lens(self) -> tuple[int, ...]:
        """Keys of each sequence: the context and the query tokens, or ``key_lens`` if given."""
        if self.key_lens is not None:
            return self.key_lens
        return tuple(c + q for c, q in zip(self.context_lens, self.query_lens, strict=True))

    @cached_property
    def query_starts(self) -> tuple[int, ...]:
        """The first query row of each sequence, and the end."""
        return (0, *accumulate(self.query_lens))

    @cached_property
    def key_starts(self) -> tuple[int, ...]:
        """The first row of each sequence among all keys, packed, and the end."""
        return (0, *accumulate(self.seq_lens))

    @property
    def softmax_scale(self) -> float:
        """``scale``, or head size ** -0.5; for MLA, the head size before absorption."""
        if self.scale is not None:
            return self.scale
        absorbed = self.kind in ("mla", "mla_sparse") and not self.is_ds_mla
        size = 192 if absorbed else self.head_size
        return float(size**-0.5)

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def is_latent(self) -> bool:
        """Whether keys are MLA's: a latent vector and a RoPE part."""
        return self.kind in ("mla", "mla_prefill", "mla_sparse")

    @property
    def has_cache(self) -> bool:
        return self.kind != "varlen"

    @property
    def has_new_keys(self) -> bool:
        """Whether the query tokens have keys of their own; those of cross attention do not."""
        return self.has_cache and self.key_lens is None

    def reads_computed(self, s: int) -> bool:
        """Whether a sequence's query tokens attend to their own keys as computed.

        Queries in the latent space read every key from the cache, however many they are.
        """
        prefill = self.kind == "mla_prefill" or (self.kind == "paged" and self.query_lens[s] > 1)
        if prefill and self.context_lens[s] and self.query_lens[s] <= self.continued_from_cache:
            return False
        if self.is_octave and max(self.query_lens) <= OCTAVE_DECODES:
            return False
        return self.has_new_keys and not self.new_tokens_from_cache and prefill

    @property
    def is_packed(self) -> bool:
        """Whether the cache holds a key and a value in one row of bytes."""
        return self.kv_cache_dtype in PACKED_CACHES

    @property
    def is_octave(self) -> bool:
        """Whether the rows of bytes are ROCM_OCTAVE's."""
        return self.kv_cache_dtype in OCTAVE_CACHES

    @property
    def is_head_scaled(self) -> bool:
        """Whether the cache holds codes with a scale for each token and head."""
        return self.kv_cache_dtype in HEAD_SCALED_CACHES

    @property
    def is_ds_mla(self) -> bool:
        """Whether keys are in two caches: those of a window, and chosen ones from before it."""
        return self.kv_cache_dtype in DS_MLA_CACHES

    @property
    def tokens_of_a_chosen_key(self) -> int:
        """How many tokens a key of the second cache stands for, where keys are in two.

        So many that the keys that there are to choose from lie before the window.
        """
        return 2 * (self.window[0] + 1)

    @property
    def turns_heads(self) -> bool:
        """Whether keys, values, queries and outputs are rotated on their way to such a cache."""
        return self.kv_cache_dtype == "int4_per_token_head"

    @property
    def rotates_keys(self) -> bool:
        """Whether keys are stored rotated by the one matrix of a head size, and queries to meet
        them; ROCM_OCTAVE has matrices of its own (``conformance.oracle.octave``)."""
        own = self.kv_cache_dtype == "turboquant_k8v4" or self.is_octave
        return self.is_packed and not own

    def rounds_query(self, s: int) -> bool:
        """Whether a sequence's rotated queries are rounded to fp8: where all keys are cached."""
        return self.kv_cache_dtype == "ultraquant_4bit" and not self.reads_computed(s)

    @property
    def key_size(self) -> int:
        """Elements of a key as stored."""
        return self.latent_rank + self.rope_size if self.is_latent else self.head_size

    @property
    def blocks(self) -> int:
        """Cache blocks that the sequences own."""
        return sum(-(-n // self.block_size) for n in self.seq_lens)

    @property
    def num_blocks(self) -> int:
        """Cache blocks in all, at least one."""
        return max(1, self.blocks + self.spare_blocks)

    @cached_property
    def cost(self) -> float:
        """A rough time in Triton's interpreter, in seconds, to order and to distribute problems.

        A step over one tile (16 rows of queries, 32 keys of one KV head) takes some milliseconds
        whatever its size. MLA's keys are longer; kernels for packed sequences have larger tiles.
        """
        step = {"paged": 0.004, "varlen": 0.0015}.get(self.kind, 0.008)
        steps = 0.0
        for q, n in zip(self.query_lens, self.seq_lens, strict=True):
            rows = -(-q * self.group // 16)
            seen = min(n, q + sum(self.window) + 1) if min(self.window) >= 0 else n
            steps += self.num_kv_heads * rows * (2 + seen / 32)
        return 0.03 + step * steps

    def to_json(self) -> dict[str, Any]:
        """The problem as JSON values, without the fields that have their default."""
        fields = type(self).__dataclass_fields__
        return {k: v for k, v in asdict(self).items() if v != fields[k].default}

    @staticmethod
    def from_json(value: dict[str, Any] | str) -> Problem:
        """The problem of a JSON object, parsed or not.

        Raises:
            SuiteError: it is not a problem; names what is wrong.
        """
        try:
            return _ADAPTER.validate_python(json.loads(value) if isinstance(value, str) else value)
        except (ValidationError, json.JSONDecodeError) as error:
            raise SuiteError(f"not a problem: {error}") from error

    def __str__(self) -> str:
        return self.id

    def check(self) -> None:
        """Raises ``SuiteError`` if the fields do not fit together."""
        for mistake in mistakes(self):
            raise SuiteError(f"problem {self.id}: {mistake}")

    @property
    def slides(self) -> bool:
        """Whether no query sees what lies before its window."""
        beyond = bool(self.mm_prefix) or bool(self.prompts)
        return self.kind == "paged" and self.window[0] >= 0 and not beyond

    @cached_property
    def verified(self) -> tuple[bool, ...]:
        """Which sequences are verified by the tree."""
        return tuple(trees.verified(self.tree, self.query_lens))

    def kept_from(self, s: int) -> int:
        """The first position of a sequence whose key is still in the cache."""
        if not self.evicted:
            return 0
        seen = max(0, self.seq_lens[s] - self.query_lens[s] - self.window[0])
        return seen // self.block_size * self.block_size

    @property
    def is_sparse(self) -> bool:
        return self.kind in ("mla_sparse", "indexer")


_ADAPTER = TypeAdapter(Problem)
