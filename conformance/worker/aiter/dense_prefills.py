"""What ROCM_AITER_FA's caches have in common: which sequences decode, and what prefills read."""

from __future__ import annotations

import torch

from ..errors import Refused
from ..interfaces import Backend, Dispatch, Geometry, Layer, Paged
from .code_objects import CodeObjects
from .flash_assembly import Packed, attend_after_contexts, why_not

_FP8 = {"fnuz": torch.float8_e4m3fnuz, "ocp": torch.float8_e4m3fn}


class DensePrefills(Backend):
    """Sequences with one query token are decoded, all others prefilled by ``fmha_v3``."""

    def __init__(self, objects: CodeObjects) -> None:
        self.objects = objects

    @property
    def fp8(self) -> torch.dtype:
        """The target's own encoding, which its kernels take."""
        return fp8_of(self.objects)

    def read(self, cache: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a cache holds at places [K] (block times its size, and slot): [K, G, D] each."""
        raise NotImplementedError

    def check_decode(self, layer: Layer) -> None:
        """Refuses what the decode takes no argument for."""
        raise NotImplementedError

    def decode(
        self, given: Paged, layer: Layer, at: torch.Tensor, sequences: list[int], ran: list[str]
    ) -> torch.Tensor:
        """The output of decodes [S, H, V], whose query tokens are rows ``at``; says what ran."""
        raise NotImplementedError

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        batch = given.batch
        lens = batch.query_start_loc.diff().tolist()
        decodes = [n for n, length in enumerate(lens) if length == 1]
        prefills = [n for n, length in enumerate(lens) if length > 1]
        rows = torch.split(torch.arange(int(batch.query_start_loc[-1])), lens)
        ran: list[str] = []
        if decodes:
            self.check_decode(layer)
        if prefills and (why := self._why_no_prefill(given, layer)):
            raise Refused(why)
        if decodes:
            at = torch.cat([rows[n] for n in decodes])
            given.out[at] = self.decode(given, layer, at, decodes, ran)
        if prefills:
            at = torch.cat([rows[n] for n in prefills])
            given.out[at] = self._prefilled(given, layer, at, prefills, ran)
        return tuple(dict.fromkeys(ran))

    def _why_no_prefill(self, given: Paged, layer: Layer) -> str:
        if given.key is None:
            return "vLLM's ROCM_AITER_FA attends no encoder's keys"
        geometry = layer.geometry
        sizes = (geometry.head_size, geometry.v_head_size)
        return why_not(self.objects.target, layer.scores, *sizes, geometry.dtype)

    def _prefilled(
        self, given: Paged, layer: Layer, at: torch.Tensor, sequences: list[int], ran: list[str]
    ) -> torch.Tensor:
        """The output of prefills [T, H, V], whose query tokens are rows ``at``."""
        assert given.key is not None
        assert given.value is not None
        lens = given.batch.query_start_loc.diff()[sequences].tolist()
        before = (given.batch.seq_lens[sequences] - torch.tensor(lens)).tolist()
        new = Packed(given.query[at], given.key[at], given.value[at], lens, lens)
        contexts = [
            self._context(given, layer, n, length) if length else None
            for n, length in zip(sequences, before, strict=True)
        ]
        out, _, named = attend_after_contexts(self.objects, new, contexts, layer.scores.scale)
        ran += named
        return out

    def _context(
        self, given: Paged, layer: Layer, sequence: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A sequence's first keys and values [length, G, D]; fp8 is scaled and rounded."""
        geometry = layer.geometry
        places = slots(given.batch.block_table[sequence], length, geometry.block_size)
        found = self.read(given.cache, places)
        if geometry.cache_dtype == geometry.dtype:
            return found
        key, value = (
            (each.float() * scale).to(geometry.dtype)
            for each, scale in zip(found, (layer.scales.k, layer.scales.v), strict=True)
        )
        return key, value


def fp8_of(objects: CodeObjects) -> torch.dtype:
    """The target's own encoding, which its code objects take."""
    return _FP8[objects.driver.name.facts.family.fp8]


def slots(table: torch.Tensor, length: int, size: int) -> torch.Tensor:
    """Where a sequence's first tokens are, int64 [length]; a block has ``size`` of them."""
    place = torch.arange(length)
    return table.long()[place // size] * size + place % size


def store_rows(rows: torch.Tensor, scale: float, geometry: Geometry) -> torch.Tensor:
    """Rows as the cache holds them; fp8 is scaled and saturated."""
    if geometry.cache_dtype == geometry.dtype:
        return rows
    peak = torch.finfo(geometry.cache_dtype).max
    return (rows.float() / scale).clamp(-peak, peak).to(geometry.cache_dtype)


def decode_rows(
    given: Paged, at: torch.Tensor, sequences: list[int], spare: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries [S, H, D], block tables [S, blocks + spare] and lengths [S] of some sequences."""
    blocks = given.batch.block_table[sequences].clamp_min(0)
    table = torch.zeros((len(sequences), blocks.shape[1] + spare), dtype=torch.int32)
    table[:, : blocks.shape[1]] = blocks
    return given.query[at].contiguous(), table, given.batch.seq_lens[sequences].contiguous()
