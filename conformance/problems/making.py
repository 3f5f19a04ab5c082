"""Makes a backend's problems from rows of values, within what the backend admits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.problems.covering import Row
from conformance.problems.features import Admitted
from conformance.problems.layouts import Decks
from conformance.problems.problem import Problem
from conformance.problems.shapes import SHAPES, in_order, lengths, same_lengths
from conformance.problems.tiers import Tier

# Only a few, because a window is a compile-time constant of some kernels.
WINDOWS = (0, 1, 15, 16, 31, 63, 100)
SCALES = (0.03125, 0.0123, 0.0625, 0.05)
SOFT_CAPS = (0.0, 4.0)
SHORT = 32


@dataclass(frozen=True)
class Maker:
    """Makes the problems of one backend in one tier; draws at random what a row leaves open.

    What the problems about edges choose from is dealt from ``decks``.
    """

    admitted: Admitted
    tier: Tier
    draw: random.Random
    decks: Decks = field(default_factory=lambda: Decks(random.Random(0)))

    @property
    def backend(self) -> str:
        return self.admitted.features.name

    def values(self, kind: str) -> dict[str, list[Any]]:
        """What a row of ``kind`` chooses from."""
        if kind in ("mla", "mla_prefill"):
            values = self._mla_values(kind)
        elif kind in ("mla_sparse", "indexer"):
            values = self._sparse_values(kind)
        else:
            values = self._dense_values(kind)
        if self.tier.emulated:
            # float32 has no matrix instructions here: its kernels are long, and no model uses them.
            values["dtype"] = [dtype for dtype in values["dtype"] if dtype != "float32"]
            if kind == "mla":
                # RDNA's code over fp8 rows of 576 columns takes a minute to compile: the edge
                # `a_scale` has it once.
                values["kv_cache_dtype"] = ["auto"]
        return values

    def _dense_values(self, kind: str) -> dict[str, list[Any]]:
        row, paged = self.admitted.features, kind == "paged"
        tier = self.tier
        some = (True, False)
        values: dict[str, list[Any]] = {
            "head_size": _among(tier.head_sizes, self.admitted.head_sizes),
            "dtype": [*self.admitted.dtypes],
            "group": [g for g in (tier.groups if paged else (1, 4)) if g <= (row.most_group or g)],
            "window": [*(some if (row.window if paged else row.encoder_window) else (False,))],
        }
        if not paged:
            return {**values, "shape": ["prefill", "single"]}
        alibi = ["none", *(["linear"] if row.alibi else []), *(["sqrt"] if row.alibi_sqrt else [])]
        return {
            **values,
            "kv_cache_dtype": [*self.admitted.caches],
            "block_size": _among(tier.block_sizes, self.admitted.block_sizes),
            "soft_cap": [*(SOFT_CAPS if row.soft_cap else SOFT_CAPS[:1])],
            "alibi": alibi,
            "sinks": [*(some if self.admitted.sinks else (False,))],
            "mm_prefix": [*(some if self.admitted.mm_prefix else (False,))],
            "large_logits": [*some],
            "shape": [*SHAPES],
        }

    def _mla_values(self, kind: str) -> dict[str, list[Any]]:
        blocks = _among(self.tier.mla_block_sizes, self.admitted.block_sizes)
        heads = self.admitted.features.query_heads or (1, 5, 8, 16, 32, 128)
        heads = tuple(h for h in heads if h <= self.tier.most_heads)[-4:]
        if kind == "mla_prefill":
            heads = tuple(h for h in heads if h <= 16)[:2] or heads[:1]
        one_token = kind == "mla" and self.admitted.features.query_lens == "one"
        # A small tier has long decodes in its problems about edges.
        long = [] if self.tier.small and not self.tier.emulated else ["decode_long"]
        mla_shapes = ["decode", *long, *([] if one_token else ["speculative"])]
        return {
            "heads": [*heads],
            "dtype": [*self.admitted.dtypes],
            "kv_cache_dtype": [*self.admitted.caches],
            "block_size": blocks,
            "large_logits": [True, False],
            "shape": mla_shapes if kind == "mla" else ["prefill", "extend", "single"],
        }

    def _sparse_values(self, kind: str) -> dict[str, list[Any]]:
        index = kind == "indexer"
        heads = (4, 8, 64) if index else self.admitted.features.query_heads
        most = max(16, self.tier.most_heads)
        return {
            "heads": [h for h in heads if h <= most][:2],
            "dtype": [*self.admitted.dtypes],
            "kv_cache_dtype": ["fp8_e4m3fnuz", "fp8_e4m3fn"] if index else [*self.admitted.caches],
            "block_size": [b for b in self.admitted.block_sizes if b in (1, 16, 64)],
            "topk": [1, 8, 40] if self.tier.small else [1, 7, 16, 64, 2048],
            "large_logits": [False] if index else [True, False],
            "shape": ["decode", "prefill", "extend", "mixed"],
            **({"sinks": [True, False]} if self.admitted.sinks and not index else {}),
        }

    @staticmethod
    def allowed(row: Row) -> bool:
        """Whether the values of a row, or of a part of one, can be combined."""
        if row.get("mm_prefix") and row.get("shape") in ("decode_long", "single"):
            return False  # no two tokens are in one range, or no mask would hide one from another
        return not (row.get("alibi", "none") != "none" and row.get("mm_prefix"))

    def problem(self, kind: str, row: Row, label: str, index: int) -> Problem:
        """The problem of a row, with lengths and layout drawn."""
        made = self._sparse(kind, row) if kind == "indexer" or "topk" in row else None
        if made is None:
            made = (
                self._mla(kind, row) if kind in ("mla", "mla_prefill") else self._dense(kind, row)
            )
        if row.get("mm_prefix"):
            made = replace(made, mm_prefix=self._ranges(made))
        if self.draw.random() < 0.5 and made.kind != "indexer":
            made = replace(made, dominant=self._dominant(made))
        return self.named(made, label, index)

    def named(self, problem: Problem, label: str, index: int) -> Problem:
        """The problem with an id that describes it; ``index`` makes the id unique."""
        cache = problem.kv_cache_dtype.removeprefix("fp8_").replace("_", "-")
        cache = cache.replace("-per-token-head", "-heads").replace("-ds-mla", "")
        parts = [
            self.backend.lower().replace("_", "-"),
            problem.kind.replace("_", "-"),
            label.replace("_", "-"),
            f"h{problem.num_heads}x{problem.num_kv_heads}",
            f"d{problem.head_size}{_of_values(problem)}",
            *([f"b{problem.block_size}"] if problem.has_cache else []),
            {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[problem.dtype],
            *([cache] if cache != "auto" else []),
            *([f"win{max(problem.window)}"] if max(problem.window) >= 0 else []),
            *(["cap"] if problem.soft_cap else []),
            *([f"alibi-{problem.alibi}"] if problem.alibi != "none" else []),
            *(["sinks"] if problem.sinks else []),
            *(["prefix"] if problem.mm_prefix else []),
            *(["prompts"] if problem.prompts else []),
            *(["tree"] if problem.tree else []),
            *(["interleaved"] if problem.interleaved else []),
            *(["large"] if problem.large_logits else []),
            str(index),
        ]
        return replace(problem, id="-".join(parts))

    def base(self, **fields: Any) -> Problem:
        """A problem of this backend with a seed drawn for it and these fields."""
        computed = self.admitted.features.new_tokens == "computed"
        defaults: dict[str, Any] = {
            "backend": self.backend,
            "id": "",
            "seed": self.draw.randrange(2**31),
            "new_tokens_from_cache": not computed,
        }
        return Problem(**{**defaults, **fields})

    def dealt(
        self,
        fields: Mapping[str, Any],
        deck: str = "",
        *,
        groups: Sequence[int],
        sizes: Sequence[int],
        dtypes: Sequence[str],
        blocks: Sequence[int],
    ) -> Problem:
        """A paged problem without sequences; what ``fields`` leave open is dealt from ``deck``."""
        given, deal = dict(fields), self.decks.take
        group = given.pop("group", None) or deal(f"{deck}group", groups)
        heads = given.pop("kv_heads", None) or (1 if group > 4 else 2)
        size = given.pop("head_size", None) or deal(f"{deck}size", sizes)
        admitted = tuple(b for b in blocks if b in self.admitted.block_sizes)
        usual: dict[str, Any] = {
            "dtype": deal(f"{deck}dtype", dtypes),
            "block_size": deal(f"{deck}block", admitted[:2] if self.tier.small else admitted),
            "scale": deal(f"{deck}scale", (None, 0.11)),
        }
        return self.base(
            kind="paged",
            query_lens=(),
            context_lens=(),
            num_heads=group * heads,
            num_kv_heads=heads,
            head_size=size,
            v_head_size=size,
            **{**usual, **given},
        )

    def scales(self, cache: str, large: bool) -> dict[str, float]:
        """Different scales for keys and values of an fp8 cache.

        With large logits they are powers of two. Otherwise dequantised keys would be rounded to the
        compute dtype, and the logits' error would be as large as the output.
        """
        if cache == "auto":
            return {}
        among = [s for s in SCALES if not large or s in (0.03125, 0.0625)]
        k, v = self.draw.sample(among, 2)
        return {"k_scale": k, "v_scale": v}

    def batch(self, shape: str, block: int) -> dict[str, tuple[int, ...]]:
        """The lengths of a batch, in the order in which the backend takes them.

        In small tiers contexts do not grow with the blocks: problems about edges have the largest.
        """
        short = min(block, SHORT) if self.tier.small else block
        made = lengths(shape, short, self.draw, self.tier.length_scale)
        made = in_order(made) if self.admitted.features.ordered else made
        return {"query_lens": made.query, "context_lens": made.context}

    def _value_size(self, head_size: int) -> int:
        """The head size of values for one of keys: the same, or another if the backend's are."""
        own = [size for size in self.admitted.features.value_head_sizes if size != head_size]
        return self.decks.take(f"values of {head_size}", own) if own else head_size

    def _dense(self, kind: str, row: Row) -> Problem:
        group, large = row["group"], row.get("large_logits", False)
        kv_heads = 1 if group > 4 else 2
        if self.tier.varied_kv_heads:
            kv_heads = self.draw.choice([1, 2, 4]) if group > 4 else self.draw.choice([2, 4, 8])
        width = self.draw.choice(WINDOWS)
        paged = kind == "paged"
        batch = self.batch(row["shape"], row["block_size"] if paged else 16)
        fields: dict[str, Any] = {
            k: row[k]
            for k in ("kv_cache_dtype", "block_size", "soft_cap", "alibi", "sinks")
            if k in row
        }
        return self.base(
            kind=kind,
            **(batch if paged else {**batch, "context_lens": (0,) * len(batch["query_lens"])}),
            num_heads=kv_heads * group,
            num_kv_heads=kv_heads,
            head_size=row["head_size"],
            v_head_size=self._value_size(row["head_size"]),
            dtype=row["dtype"],
            causal=paged,
            window=(-1, -1) if not row["window"] else (width, 0 if paged else width),
            large_logits=large,
            scale=self.draw.choice([None, None, 0.11]),
            **self.scales(row.get("kv_cache_dtype", "auto"), large),
            **fields,
        )

    def _mla(self, kind: str, row: Row) -> Problem:
        batch = self.batch(row["shape"], row["block_size"])
        if kind == "mla" and self.admitted.features.query_lens != "any":
            one = self.admitted.features.query_lens == "one" or row["shape"] != "speculative"
            drawn = lengths(row["shape"], row["block_size"], self.draw)
            made = same_lengths(drawn, 1 if one else self.draw.choice([2, 3, 4]))
            batch = {"query_lens": made.query, "context_lens": made.context}
        sizes = {"head_size": 576, "v_head_size": 512}
        if kind == "mla_prefill":
            sizes = {"head_size": 192, "v_head_size": 128}
        return self.base(
            kind=kind,
            **batch,
            **sizes,
            num_heads=row["heads"],
            num_kv_heads=1,
            dtype=row["dtype"],
            kv_cache_dtype=row["kv_cache_dtype"],
            block_size=row["block_size"],
            large_logits=row["large_logits"],
            **self.scales(row["kv_cache_dtype"], row["large_logits"]),
        )

    def _sparse(self, kind: str, row: Row) -> Problem:
        index = kind == "indexer"
        return self.base(
            kind=kind,
            **self.batch(row["shape"], row["block_size"]),
            num_heads=row["heads"],
            num_kv_heads=1,
            head_size=128 if index else 576,
            v_head_size=128 if index else 512,
            dtype=row["dtype"],
            kv_cache_dtype=row["kv_cache_dtype"],
            block_size=row["block_size"],
            topk=row["topk"],
            large_logits=row["large_logits"],
            sinks=row.get("sinks", False),
        )

    def _ranges(self, problem: Problem) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Prefix ranges: one anywhere, one across the end of the context, an empty one, or none."""
        ranges = []
        for query, keys in zip(problem.query_lens, problem.seq_lens, strict=True):
            first = self.draw.randrange(max(1, keys))
            start = max(0, keys - query - 2)
            across = (start, start + self.draw.randrange(1, 9))
            drawn = self.draw.choice([((first, first + 6),), (across,), ((0, 0), across), ()])
            ranges.append(tuple(self._given(each, keys, problem.window[0]) for each in drawn))
        return tuple(ranges)

    def _given(self, drawn: tuple[int, int], keys: int, window: int) -> tuple[int, int]:
        """A prefix range as far as vLLM's engine gives it to a backend."""
        start, end = drawn
        if not self.admitted.cut_prefixes:
            end = min(end, keys - 1)
        if not self.admitted.long_prefixes and window >= 0:
            end = min(end, start + window)
        return (start, end) if start < end else (0, 0)

    def _dominant(self, problem: Problem) -> tuple[tuple[int, int], ...]:
        """A dominant key in one or two sequences that have keys."""
        having = [s for s, n in enumerate(problem.seq_lens) if n]
        chosen = self.draw.sample(having, min(2, len(having)))
        return tuple((s, self.draw.randrange(problem.seq_lens[s])) for s in sorted(chosen))


def _of_values(problem: Problem) -> str:
    """The part of an id that says a head size of values where it is not that of keys."""
    own = problem.kind == "paged" and problem.v_head_size != problem.head_size
    return f"v{problem.v_head_size}" if own else ""


def _among(wanted: tuple[int, ...], admitted: tuple[int, ...]) -> list[int]:
    """The wanted sizes that are admitted; if none is, the first two admitted ones."""
    return [size for size in wanted if size in admitted] or [*admitted[:2]]
