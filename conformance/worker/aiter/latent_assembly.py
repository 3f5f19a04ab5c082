"""aiter's latent decode in assembly, which ROCM_AITER_MLA decodes with.

``aiter.mla.mla_decode_fwd`` is aiter's own Python, run unmodified, with its Triton kernel that
merges the splits. What it asks of aiter's extensions is the first stage, whose host code is
``csrc/py_itfs_cu/asm_mla.cu``: which code object it takes is read from the installed source, its
launch is repeated here. vLLM hands over planned work, which persistent kernels take
(:mod:`.latent_plan`), and queries in fp8 where the cache is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from ..errors import Refused
from ..interfaces import Backend, Dispatch, Geometry, LatentPrefill, Layer, Paged
from ..suite_devices import device_part
from ..targets import target_facts
from . import loading
from .code_objects import CodeObjects
from .dense_prefills import fp8_of, slots, store_rows
from .flash_assembly import Packed, attend_after_contexts, why_not
from .latent_plan import Plan, plan

if TYPE_CHECKING:
    from ...devices.hip.host_choice import Choice

HOST_CODE = "py_itfs_cu/asm_mla.cu"
FUNCTION = "mla_decode_stage1_asm_fwd"
# The kernels are for so many query heads at least: vLLM repeats those of a layer that has fewer.
FEWEST_HEADS, MOST_HEADS = 16, 128
PARTS = 8
# vLLM's largest numbers of fp8, and its scale of queries where a checkpoint has none
# (https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/model_executor/layers/attention/mla_attention.py#L669).
_PEAKS = {torch.float8_e4m3fnuz: 224.0, torch.float8_e4m3fn: 448.0}
_QUERY_SCALE = 1.0
# Half of their waves overwrite weights in LDS that the others read, with no barrier between: right
# as long as all keep pace.
_KEEPING_PACE = "mla/mla_a8w8_qh16_"
# torch's names of types in C++.
_KINDS = {
    torch.bfloat16: "BFloat16",
    torch.float16: "Half",
    torch.float32: "Float",
    torch.float8_e4m3fnuz: "Float8_e4m3fnuz",
    torch.float8_e4m3fn: "Float8_e4m3fn",
    torch.float8_e5m2: "Float8_e5m2",
}


class LatentAssembly(Backend):
    """``mla_decode_fwd`` without planned work over a latent cache [N, B, 1, 576].

    Its pages are single tokens, whatever a block is.
    """

    planned = False

    def __init__(self, objects: CodeObjects) -> None:
        self._objects = objects

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (num_blocks, geometry.block_size, 1, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,  # noqa: ARG002 - it is the first columns of the key
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        """By torch: vLLM's own is a compiled operator."""
        if layer.geometry.cache_dtype != layer.geometry.dtype and not self.planned:
            raise Refused("aiter's kernels over an fp8 cache take planned work")
        kept = slots >= 0
        at = slots[kept]
        if layer.geometry.cache_dtype not in (layer.geometry.dtype, fp8_of(self._objects)):
            raise Refused(f"the code objects' fp8 is the target's: {fp8_of(self._objects)}")
        rows = store_rows(key[: slots.shape[0]][kept], layer.scales.k, layer.geometry)
        cache[at // cache.shape[1], at % cache.shape[1]] = rows
        return ("harness torch_write",)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        geometry, batch = layer.geometry, given.batch
        tokens, length = int(batch.query_start_loc[-1]), batch.max_query_len
        heads = max(geometry.num_heads, FEWEST_HEADS)
        if not self.planned:
            self._choice(geometry.cache_dtype, heads, length)
        if heads % geometry.num_heads:
            raise Refused(f"vLLM gives {geometry.num_heads} query heads to no kernel of aiter's")
        if batch.seq_lens.shape[0] * length != tokens:
            raise Refused("mla_decode_fwd takes as many query tokens of every sequence")
        factor = heads // geometry.num_heads
        query = given.query[:tokens].repeat_interleave(factor, 1).contiguous()
        scales: tuple[torch.Tensor, ...] = ()
        if given.cache.dtype != query.dtype:
            peak = _PEAKS[given.cache.dtype]
            query = (query.float() / _QUERY_SCALE).clamp(-peak, peak).to(given.cache.dtype)
            scales = (torch.tensor([_QUERY_SCALE]), torch.tensor([layer.scales.k]))
        out = torch.zeros((tokens, heads, geometry.v_head_size), dtype=geometry.dtype)
        counts = batch.seq_lens.tolist()
        pages = [
            slots(table, n, geometry.block_size)
            for table, n in zip(batch.block_table, counts, strict=True)
        ]
        ran: list[str] = []
        made = self._plan(counts, heads, length)
        with _OnTheCpu():
            _module(self._objects.target, self._stage1(ran), made).mla_decode_fwd(
                query,
                given.cache.view(-1, 1, 1, geometry.head_size),
                out,
                batch.query_start_loc,
                torch.tensor([0, *counts]).cumsum(0).to(torch.int32),
                torch.cat(pages).to(torch.int32),
                torch.ones(len(counts), dtype=torch.int32),
                length,
                layer.scores.scale,
                **_work(made),
                **dict(zip(("q_scale", "kv_scale"), scales, strict=False)),
            )
        given.out[:tokens] = out[:, ::factor]
        merged = "mla._fwd_kernel_stage2_asm" if made is None else "harness torch_plan_and_merge"
        return (*ran, merged)

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:
        """By ``fmha_v3`` over keys and values that torch projects up from the latent ones."""
        geometry, batch = layer.geometry, given.batch
        rank, value_size = geometry.v_head_size, given.out.shape[2]
        size = given.query.shape[2]
        if why := why_not(self._objects.target, layer.scores, size, value_size, geometry.dtype):
            raise Refused(why)
        if geometry.cache_dtype != geometry.dtype:
            raise Refused("the context of an fp8 cache is scaled by a kernel of vLLM's own")

        def up(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Keys [K, H, 192] and values [K, H, 128] of latent rows [K, 576], as layers do it."""
            made = torch.einsum("kr,hrn->khn", rows[:, :rank].float(), given.kv_b_proj.float())
            parts = torch.split(made.to(rows.dtype), [made.shape[2] - value_size, value_size], 2)
            rope = rows[:, None, rank:].expand(-1, made.shape[1], -1)
            return torch.cat([parts[0], rope], 2), parts[1]

        tokens, lens = int(batch.query_start_loc[-1]), batch.query_start_loc.diff().tolist()
        rows = given.cache.flatten(0, 1)[:, 0]
        contexts = [
            up(rows[slots(table, length, geometry.block_size)]) if length else None
            for table, length in zip(
                batch.block_table, (batch.seq_lens - torch.tensor(lens)).tolist(), strict=True
            )
        ]
        new = Packed(given.query[:tokens], *up(given.key[:tokens, 0]), lens, lens)
        out, sums, ran = attend_after_contexts(self._objects, new, contexts, layer.scores.scale)
        given.out[:tokens] = out
        if given.lse is not None:
            given.lse[:tokens] = sums
        return (*dict.fromkeys(ran), "harness torch_projection")

    def _plan(self, lens: list[int], heads: int, tokens: int) -> Plan | None:  # noqa: ARG002 - none
        """What a planned decode is handed besides; None without."""
        return None

    def _choice(self, cache: torch.dtype, heads: int, length: int) -> Choice:
        """What the host code launches; queries have the cache's dtype.

        Raises:
            Refused: aiter has no kernel for it, or its host code cannot be followed.
        """
        source = self._objects.host_code(HOST_CODE)
        return stage_for(source, (cache, cache), heads, length, planned=self.planned)

    def _stage1(self, ran: list[str]) -> Callable[..., None]:
        """What stands in for ``mla_decode_stage1_asm_fwd``: launches a file's kernel."""

        def launched(
            query: torch.Tensor,
            cache: torch.Tensor,
            query_starts: torch.Tensor,
            key_starts: torch.Tensor,
            pages: torch.Tensor,
            last_pages: torch.Tensor,
            split_starts: torch.Tensor | None,
            *others: Any,
        ) -> None:
            meta, starts, pieces, length, scale, partial, lse, out, *scales = others
            heads, splits = query.shape[1], partial.shape[1]
            chosen = self._choice(cache.dtype, heads, length)
            grid = (-(-length * heads // chosen.rows), query_starts.shape[0] - 1, splits)
            if starts is not None:
                grid = (starts.shape[0] - 1, 1, 1)
            row_bytes = query.stride(0) * query.itemsize
            ran.append(
                self._objects.launch(
                    chosen.file,
                    chosen.symbol,
                    grid,
                    (
                        *(partial, lse, query, cache, key_starts, pages, last_pages),
                        *(float(scale), heads * length, splits, row_bytes * length),
                        *(cache.stride(0) * cache.itemsize, cache.shape[1].bit_length() - 1),
                        *(query_starts, split_starts if starts is None else meta, out),
                        *(*scales, splits),
                    ),
                    () if starts is None else (starts, pieces),
                    abreast=chosen.file.startswith(_KEEPING_PACE),
                )
            )

        return launched


class PlannedLatentAssembly(LatentAssembly):
    """``mla_decode_fwd`` as vLLM calls it, with planned work.

    What aiter has no persistent kernel for is computed without a plan, where it has a kernel for
    that: vLLM gets an error there, which CGN-014 asks about.
    """

    planned = True

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        geometry, length = layer.geometry, given.batch.max_query_len
        heads = max(geometry.num_heads, FEWEST_HEADS)
        of_fp8 = geometry.cache_dtype != geometry.dtype
        without = LatentAssembly(self._objects)
        if heads == MOST_HEADS and not of_fp8:
            # aiter plans them as they are and then computes groups of 16.
            return without.attend(given, layer)
        in_groups = length == 1 and heads % FEWEST_HEADS == 0 and heads < MOST_HEADS
        taken = FEWEST_HEADS if in_groups else heads
        try:
            self._choice(geometry.cache_dtype, taken, length)
        except NoKernelError:
            if of_fp8:
                raise
            return without.attend(given, layer)
        return super().attend(given, layer)

    def _plan(self, lens: list[int], heads: int, tokens: int) -> Plan | None:
        return plan(lens, heads, tokens, target_facts(self._objects.target).compute_units)


class AskedLatentAssembly(LatentAssembly):
    """What vLLM may ask of ``mla_decode_fwd``, as far as the choice of a kernel: nothing runs.

    aiter's own Python decides what it takes, and its host code which code object that is; it ends
    with an error where there is none, as aiter does.
    """

    planned = True

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        if not self._objects.driver.compile_only:
            raise Refused("what aiter would launch is checked on aot devices")
        return super().attend(given, layer)

    def _plan(self, lens: list[int], heads: int, tokens: int) -> Plan | None:  # noqa: ARG002 - any
        # aiter divides 128 heads into eight groups: as many partial results, at least.
        made = torch.zeros(PARTS, dtype=torch.int32)
        return Plan(made, made, made, made[:0], made)

    def _choice(self, cache: torch.dtype, heads: int, length: int) -> Choice:
        try:
            return super()._choice(cache, heads, length)
        except NoKernelError as error:
            raise RuntimeError(str(error)) from None


class NoKernelError(Refused):
    """aiter has no kernel for what it is asked, and ends with an error."""


def stage_for(
    source: str,
    kinds: tuple[torch.dtype, torch.dtype],
    heads: int,
    length: int,
    *,
    planned: bool = False,
) -> Choice:
    """What the host code launches for queries and a cache of these types.

    Raises:
        NoKernelError: aiter has none for it.
        Refused: its host code cannot be followed.
    """
    reader = device_part("hip.host_choice")
    facts = {
        **{"Q": _KINDS[kinds[0]], "KV": _KINDS[kinds[1]]},
        **{"gqa_ratio": heads, "max_seqlen_q": length, "persistent": planned},
    }
    try:
        chosen: Choice = reader.choice(source, FUNCTION, facts)
    except reader.HostCodeError as error:
        raise Refused(f"{HOST_CODE} of aiter {loading.version()}: {error}") from error
    if not chosen.file:
        raise NoKernelError(
            f"aiter {loading.version()} has no latent decode in assembly for queries in "
            f"{_KINDS[kinds[0]]}, a cache in {_KINDS[kinds[1]]}, {heads} heads and {length} query "
            f"tokens{'' if planned else ' without planned work'}: {FUNCTION} ends with an error"
        )
    return chosen


def _work(made: Plan | None) -> dict[str, torch.Tensor]:
    if made is None:
        return {}
    return {
        **{"work_meta_data": made.meta, "work_indptr": made.starts, "work_info_set": made.pieces},
        **{"reduce_indptr": made.groups, "reduce_final_map": made.places},
        "reduce_partial_map": made.parts,
    }


class _OnTheCpu(TorchFunctionMode):
    """Takes the device "cuda", which aiter's Python names, for the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if named.get("device") == "cuda":
            named["device"] = "cpu"
        return func(*args, **named)


def _module(target: str, stage1: Callable[..., None], made: Plan | None) -> ModuleType:
    """``aiter.mla``, with what it takes from the rest of aiter."""

    def merge(partial: torch.Tensor, sums: torch.Tensor, *others: torch.Tensor) -> None:
        if made is not None:
            made.merge(partial, sums, others[3])

    package = sys.modules["aiter"]
    units = target_facts(target).compute_units
    chip = ModuleType("aiter.jit.utils.chip_info")
    vars(chip).update(get_cu_num=lambda: units)
    fp8 = torch.float8_e4m3fnuz if target == "gfx942" else torch.float8_e4m3fn
    dtypes = SimpleNamespace(fp8=fp8, bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)
    vars(package).update(dtypes=dtypes, mla_decode_stage1_asm_fwd=stage1)
    vars(package).update(mla_reduce_v1=merge)
    for name in ("aiter.jit", "aiter.jit.utils"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules[chip.__name__] = chip
    try:
        return importlib.import_module("aiter.mla")
    except Exception as error:
        raise Refused(
            f"aiter.mla cannot be imported here: {type(error).__name__}: {error}"
        ) from error
