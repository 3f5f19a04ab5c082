"""Random requests for the sweep.

Values are weighted towards those that decide something: every head size that some backend lists
and its neighbours, every dtype, block sizes around the multiples of 16, and each flag often enough
that pairs of them meet. What is asked at all is what the edition's selector knows: its fields, its
KV-cache dtypes, what it reads of the engine's configuration. Some requests that name a backend fit
its row of the table but for one field: what a rare backend supports shows in no others.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from conformance.matrix.requests import (
    ATTN_TYPES,
    DTYPES,
    Ask,
    PagedAttention,
    Request,
    Vit,
)
from vllm_editions import Backend, Edition

HEAD_SIZES = (128, 64, 80, 256, 32, 96, 112, 160, 192, 224, 16, 31, 33, 40, 48, 72, 120, 320, 512)
MLA_HEAD_SIZES = (576, 320, 128, 512, 1)
BLOCK_SIZES = (16, None, 32, 64, 128, 256, 512, 1, 8, 15, 17, 24, 48, 544, 784, 1056)
FLAG = 0.2
# Fields that came after 0.19: there are more of them, so each is rarer.
LATER_FIELDS = (
    "has_sliding_window",
    "use_non_causal",
    "use_batch_invariant",
    "use_kv_connector",
    "use_pcp",
    "use_adaptive_verification",
    "use_dcp",
    "use_rswa",
)
LATER_FLAG = 0.1
# The share of requests naming a backend that are made to fit it.
FITTING = 0.3
# KV-cache dtypes that make a run keep some layers at another one.
PACKED = ("turboquant_", "ultraquant_")


def requests(seed: int | str, count: int, edition: Edition) -> Iterator[Ask]:
    """``count`` seeded requests; three in ten name one of the edition's backends explicitly."""
    rng = random.Random(seed)
    pick, chance = rng.choice, rng.random
    backends, kv_dtypes = list(edition.backends), (*edition.asked.kv_cache_dtypes, None)
    later, fitting = _Later(seed, edition), _Fitting(seed, edition)
    for _ in range(count):
        use_sparse = chance() < FLAG / 2
        use_mla = chance() < (0.9 if use_sparse else 0.25)
        sizes = MLA_HEAD_SIZES if use_mla and chance() < 0.8 else HEAD_SIZES
        request = Request(
            head_size=sizes[0] if chance() < 0.3 else pick(sizes),
            dtype=pick(DTYPES[:2]) if chance() < 0.7 else pick(DTYPES),
            kv_cache_dtype="auto" if chance() < 0.4 else pick(kv_dtypes),
            block_size=16 if chance() < 0.4 else pick(BLOCK_SIZES),
            use_mla=use_mla,
            has_sink=chance() < FLAG,
            use_sparse=use_sparse,
            use_mm_prefix=chance() < FLAG,
            use_per_head_quant_scales=chance() < FLAG / 2,
            attn_type="decoder" if chance() < 0.6 else pick(ATTN_TYPES),
            **later.fields(),
        )
        backend = pick(backends) if chance() < 0.3 else None
        yield Ask(fitting.made(request, backend) if backend else request, backend)


class _Fitting:
    """Requests that a backend's row admits in all but one field, from random numbers of its own."""

    def __init__(self, seed: int | str, edition: Edition) -> None:
        self._rng = random.Random(f"{seed} fitting")
        self._backends = edition.backends
        self._kv_dtypes = edition.asked.kv_cache_dtypes
        self._flags = tuple(name for name in LATER_FIELDS if name in edition.asked.fields)

    def made(self, drawn: Request, backend: str) -> Request:
        """The request as it was drawn, or changed to fit the backend but for one field.

        That is the KV cache's dtype, of which there are most, in one of two.
        """
        if self._rng.random() >= FITTING:
            return drawn
        fields = self._fields(self._backends[backend])
        if self._rng.random() < 0.5:
            fields["kv_cache_dtype"] = self._rng.choice(self._kv_dtypes)
        else:
            del fields[self._rng.choice(list(fields))]
        return replace(drawn, **fields)

    def _fields(self, row: Backend) -> dict[str, Any]:
        pick = self._rng.choice
        sizes = [*(row.head_sizes or (n for n in HEAD_SIZES if n >= row.min_head_size))]
        plain = ("has_sink", "use_mm_prefix", "use_per_head_quant_scales", *self._flags)
        listed: dict[str, Iterable[Any]] = {
            "head_size": sizes,
            "dtype": row.dtypes,
            "kv_cache_dtype": row.kv_cache_dtypes,
            "block_size": row.block_sizes or BLOCK_SIZES[:1],
            "attn_type": row.attn_types,
        }
        return {
            # A row that is being drafted may list nothing yet.
            **{name: pick(sorted(values)) for name, values in listed.items() if values},
            "use_mla": row.mla,
            "use_sparse": row.sparse,
            **dict.fromkeys(plain, False),
        }


class _Later:
    """What later releases ask too, from random numbers of its own: the rest stays as it was."""

    def __init__(self, seed: int | str, edition: Edition) -> None:
        self._rng = random.Random(f"{seed} later")
        asked = edition.asked
        self._fields = tuple(name for name in LATER_FIELDS if name in asked.fields)
        self._encoder_decoder = "encoder_decoder_model" in asked.context
        runs = "run_kv_cache_dtype" in asked.context
        packed = (name for name in asked.kv_cache_dtypes if name.startswith(PACKED))
        self._runs = tuple(packed) if runs else ()

    def fields(self) -> dict[str, Any]:
        """The fields of the next request that are not at their defaults."""
        chance = self._rng.random
        more: dict[str, Any] = {name: True for name in self._fields if chance() < LATER_FLAG}
        if self._encoder_decoder and chance() < LATER_FLAG:
            more["encoder_decoder_model"] = True
        if self._runs and chance() < LATER_FLAG:
            more["run_kv_cache_dtype"] = self._rng.choice(self._runs)
        return more


def paged_attention(seed: int | str, count: int) -> Iterator[Ask]:
    """Seeded questions about ROCM_ATTN's choice of a decode kernel, near its boundaries."""
    rng = random.Random(seed)
    pick, chance = rng.choice, rng.random
    for _ in range(count):
        yield Ask(
            PagedAttention(
                dtype=pick(("float16", "bfloat16", "float16", "bfloat16", "float32")),
                head_size=pick((128, 128, 128, 64, 64, 80, 96, 256)),
                block_size=pick((16, 16, 16, 32, 64, 8)),
                gqa_ratio=pick((1, 2, 3, 4, 8, 15, 16, 17)),
                max_seq_len=pick((1, 4096, 131071, 131072, 131073)),
                sliding_window=0 if chance() < 0.8 else pick((1, 1024)),
                kv_cache_dtype="auto" if chance() < 0.6 else pick(("fp8", "fp8_e4m3", "float16")),
                alibi=chance() < FLAG,
                sinks=chance() < FLAG,
            )
        )


def vit(seed: int | str, count: int, backends: Sequence[str]) -> Iterator[Ask]:
    """Seeded questions about the backend of vision encoders."""
    rng = random.Random(seed)
    for _ in range(count):
        question = Vit(rng.choice((64, 72, 80, 88, 128)), rng.choice(DTYPES[:3]))
        yield Ask(question, rng.choice(backends) if rng.random() < 0.3 else None)
