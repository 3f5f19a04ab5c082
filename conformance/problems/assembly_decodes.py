"""Problems for the code objects that aiter ships: edges of what chooses one, and of its tiles."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice
from typing import Any

from conformance.problems.lines import Line, Tagged, plain_problem, with_lines
from conformance.problems.making import Maker

# Of aiter's decodes in assembly, what chooses a code object: of the paged ones the dtype and query
# heads per KV head, of the latent ones query heads, query tokens and the cache.
_FP8: dict[str, Any] = {"dtype": "bfloat16", "k_scale": 0.0625, "v_scale": 0.03125}
_HIP: dict[str, Any] = {"num_heads": 6, "num_kv_heads": 1, "block_size": 32}
_ASSEMBLY: dict[str, tuple[dict[str, Any], ...]] = {
    "paged": (
        {"dtype": "bfloat16", "num_heads": 16, "num_kv_heads": 2},
        {"dtype": "float16", "num_heads": 16, "num_kv_heads": 1},
        {"dtype": "bfloat16", "num_heads": 5, "num_kv_heads": 1},
        {**_FP8, "num_heads": 8, "num_kv_heads": 1, "kv_cache_dtype": "fp8_e4m3fnuz"},
        {**_FP8, "num_heads": 8, "num_kv_heads": 1, "kv_cache_dtype": "fp8_e4m3fn"},
        # These are paged_attention_v1's.
        {**_HIP, "dtype": "float16", "head_size": 64, "v_head_size": 64, "window": (31, 0)},
        {**_HIP, "dtype": "bfloat16", "alibi": "linear"},
    ),
    "mla": (
        {"num_heads": 16, "tokens": 1},
        {"num_heads": 16, "tokens": 4},
        {"num_heads": 4, "tokens": 1},
        {"num_heads": 128, "tokens": 1},
        *(
            {**shape, "kv_cache_dtype": encoding, "k_scale": 0.0625}
            for encoding in ("fp8_e4m3fnuz", "fp8_e4m3fn")
            for shape in (
                {"num_heads": 32, "tokens": 1},
                {"num_heads": 16, "tokens": 2},
                {"num_heads": 8, "tokens": 4},
                {"num_heads": 128, "tokens": 1},
            )
        ),
    ),
}
_LENGTHS = (16, 33, 256, 257, 300)
# Query tokens and keys before them: a prefill, prefills after a context, decodes beside them.
_PREFILLS: tuple[tuple[int, int], ...] = ((5, 0), (1, 40), (33, 40), (2, 3), (1, 0))


def _assembly_decodes(maker: Maker, kind: str) -> Tagged:
    """Decodes that aiter's code objects take: edges of a block and of a tile of 256 keys."""
    if maker.backend in ("ROCM_AITER_FA", "ROCM_AITER_MLA"):
        own = replace(maker, draw=random.Random(0))
        for row in _ASSEMBLY[kind]:
            fields = {"dtype": "bfloat16", **row}
            tokens = fields.pop("tokens", 1)
            # 128 heads are many instructions.
            lengths = (33,) if fields["num_heads"] > 64 else (tokens, *_LENGTHS)
            lines: list[Line] = [(tokens, keys - tokens, keys - 1) for keys in lengths]
            plain = plain_problem(own, kind, head_size=128, kv_cache_dtype="auto")
            plain = replace(plain, **{"block_size": 16, "scale": None, **fields})
            if plain.kv_cache_dtype not in maker.admitted.caches:
                continue
            yield "assembly_decodes", with_lines(own, plain, lines)


def _assembly_prefills(maker: Maker, kind: str) -> Tagged:
    """Prefills that aiter's code objects take, and decodes in the same batch."""
    if maker.backend in ("ROCM_AITER_FA", "ROCM_AITER_MLA"):
        own = replace(maker, draw=random.Random(0))
        plain = plain_problem(own, kind, head_size=128, kv_cache_dtype="auto")
        fields: dict[str, Any] = {"dtype": "bfloat16", "num_heads": 8, "num_kv_heads": 1}
        if kind == "mla_prefill":
            fields = {"dtype": "bfloat16", "num_heads": 4}
        plain = replace(plain, block_size=16, scale=None, **fields)
        lines: list[Line] = [(new, before, before + new - 1) for new, before in _PREFILLS]
        yield "assembly_prefills", with_lines(own, plain, lines)


def _an_assembly_decode(maker: Maker, kind: str) -> Tagged:
    """The first of them."""
    yield from islice(_assembly_decodes(maker, kind), 1)


FAMILIES = (_assembly_decodes, _assembly_prefills, _an_assembly_decode)
