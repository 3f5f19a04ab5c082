"""aiter's attention in assembly of ROCM_AITER_FA: over a shuffled cache, and prefills.

vLLM calls ``pa_fwd_asm`` where ``VLLM_ROCM_SHUFFLE_KV_CACHE_LAYOUT`` is set:
https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/rocm_aiter_fa.py#L1249.
What follows repeats its host code, ``csrc/py_itfs_cu/asm_pa.cu`` of the installed aiter. Prefills
are ``fmha_v3``'s: :mod:`.flash_assembly`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ..errors import Refused
from ..interfaces import Dispatch, Geometry, Layer, Paged
from .dense_prefills import DensePrefills, decode_rows, store_rows

TABLE = "pa/pa_asm.csv"
# Keys and values are stored in pieces of 16 bytes.
PIECE = 16
# The files are for heads of this size, which neither their table nor the host code says.
HEAD_SIZE = 128
# Entries of the block table that lie past those of the longest sequence, as vLLM's has for the
# longest that its model allows.
SPARE_ENTRIES = 64
_COLUMNS = ("qType", "kvType", "Gqa", "Mtp", "Msk", "blkSz", "knl_name", "knl_file")
_QUERIES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


class PagedAssembly(DensePrefills):
    """``pa_fwd_asm`` where a sequence has one query token, and prefills.

    Keys are [N, G, D/x, B, x], values [N, G, B/x, D, x], of one tensor [2, N, G, D/x, B, x], where
    ``x`` is how many elements have 16 bytes.
    """

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        x = PIECE // geometry.cache_dtype.itemsize
        if geometry.head_size % x or geometry.block_size % x:
            raise Refused(f"a shuffled cache has heads and blocks of a multiple of {x} elements")
        shape = (2, num_blocks, geometry.num_kv_heads, geometry.head_size // x)
        return torch.empty(
            (*shape, geometry.block_size, x), dtype=geometry.cache_dtype, device=device
        )

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        """By torch: vLLM's own is a Triton kernel of its backend."""
        kept = slots >= 0
        block, at = slots[kept] // cache.shape[4], slots[kept] % cache.shape[4]
        keys, values = halves(cache)
        x = cache.shape[5]
        new = [
            store_rows(rows[: slots.shape[0]][kept], scale, layer.geometry)
            for rows, scale in ((key, layer.scales.k), (value, layer.scales.v))
        ]
        keys[block, :, :, at] = new[0].reshape(*new[0].shape[:2], cache.shape[3], x)
        values[block, :, at // x, :, at % x] = new[1]
        return ("harness torch_write",)

    def read(self, cache: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = halves(cache)
        size, x = cache.shape[4], cache.shape[5]
        block, slot = places // size, places % size
        return keys[block, :, :, slot].flatten(2), values[block, :, slot // x, :, slot % x]

    def check_decode(self, layer: Layer) -> None:
        check(layer, self.fp8)

    def decode(
        self, given: Paged, layer: Layer, at: torch.Tensor, sequences: list[int], ran: list[str]
    ) -> torch.Tensor:
        geometry, scales = layer.geometry, layer.scales
        file, symbol = kernel_for(self.objects.folder / TABLE, geometry, 1)
        query, table, lens = decode_rows(given, at, sequences, SPARE_ENTRIES)
        out = torch.full_like(query, math.nan)
        keys, values = halves(given.cache)
        ran.append(
            self.objects.launch(
                f"pa/{file}",
                symbol,
                (geometry.num_kv_heads, len(lens), 1),
                (
                    *(out, query, keys, values, table, lens),
                    *(self._scales(scale, given.cache, layer) for scale in (scales.k, scales.v)),
                    # The logits are in base 2.
                    math.log2(math.e) / math.sqrt(geometry.head_size),
                    *(table.stride(0), geometry.num_kv_heads),
                    *(query.stride(0) * query.itemsize, keys.stride(0) * keys.itemsize),
                    *(keys.stride(1) * keys.itemsize, geometry.num_heads // geometry.num_kv_heads),
                    None,
                ),
            )
        )
        return out

    @staticmethod
    def _scales(scale: float, cache: torch.Tensor, layer: Layer) -> torch.Tensor | None:
        """A scale for each slot and KV head [N, G, B]; all are the layer's. Of fp8 caches only."""
        if layer.geometry.cache_dtype == layer.geometry.dtype:
            return None
        return torch.full((*cache.shape[1:3], cache.shape[4]), scale, dtype=torch.float32)


def halves(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [N, G, D/x, B, x] and values [N, G, B/x, D, x] of a cache."""
    blocks, heads, pieces, size, x = cache.shape[1:]
    return cache[0], cache[1].view(blocks, heads, size // x, pieces * x, x)


def check(layer: Layer, fp8: torch.dtype) -> None:
    """Refuses what pa_fwd_asm has no argument for; ``fp8``: the target's encoding."""
    scores, geometry = layer.scores, layer.geometry
    has = {
        "a window": max(scores.window) >= 0,
        "ALiBi": scores.alibi_slopes is not None,
        "sinks": scores.sinks is not None,
        "a soft cap": scores.soft_cap != 0,
        "prefix ranges": scores.mm_prefix is not None,
        "a scale of its own": not math.isclose(scores.scale, geometry.head_size**-0.5),
    }
    if named := [name for name, there in has.items() if there]:
        raise Refused(f"pa_fwd_asm takes no argument for {', '.join(named)}")
    if geometry.cache_dtype not in (geometry.dtype, fp8):
        raise Refused(f"the code objects' fp8 is the target's: {fp8}")
    if geometry.head_size != HEAD_SIZE or geometry.v_head_size != HEAD_SIZE:
        raise Refused(f"aiter's paged attention in assembly is for heads of {HEAD_SIZE} elements")


def kernel_for(table: Path, geometry: Geometry, max_query_len: int) -> tuple[str, str]:
    """The file and the kernel that ``get_heuristic_kernel`` takes.

    Of fp8 caches several rows fit, of other precisions: aiter takes whichever a hash map has first,
    here it is the table's first.

    Raises:
        Refused: the table has none; aiter ends with an error then.
    """
    query, cache = _QUERIES.get(geometry.dtype, ""), _QUERIES.get(geometry.cache_dtype, "fp8")
    ratio = geometry.num_heads // geometry.num_kv_heads
    steps = (max_query_len + 10, 1) if max_query_len > 1 else (0,)
    masked = int(max_query_len > 1)
    rows = list(_rows(table))
    for step in steps:
        for heads in (ratio, -(-ratio // 8) * 8):
            asked = (query, cache, heads, step, masked, geometry.block_size)
            for row in rows:
                numbers = (int(row[column]) for column in ("Gqa", "Mtp", "Msk", "blkSz"))
                if (row["qType"], row["kvType"], *numbers) == asked:
                    return row["knl_file"], row["knl_name"]
    raise Refused(
        f"{TABLE} of this aiter has no kernel for {query or geometry.dtype} queries, "
        f"{cache} cache, {ratio} query heads a KV head, {max_query_len} query tokens and blocks of "
        f"{geometry.block_size}: pa_fwd_asm ends with an error"
    )


def _rows(table: Path) -> Iterator[Mapping[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise Refused(f"{TABLE} of this aiter has no columns {', '.join(missing)}")
            yield from reader
    except OSError as error:
        raise Refused(f"this aiter has no readable {TABLE}: {error.strerror}") from None
