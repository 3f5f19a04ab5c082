"""aiter's latent decode in assembly, which ROCM_AITER_MLA decodes with.

``aiter.mla.mla_decode_fwd`` is aiter's own Python, run unmodified, with its Triton kernel that
merges the splits. What it asks of aiter's extensions is the first stage, whose host code is
``csrc/py_itfs_cu/asm_mla.cu``: which code object it takes is read from the installed source, its
launch is repeated here. vLLM hands over work that a
HIP kernel planned (``get_mla_metadata_v1``), which persistent kernels take; no driver here plans
any, so the splits are those that ``mla_decode_fwd`` makes without.
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

if TYPE_CHECKING:
    from ...devices.hip.host_choice import Choice

HOST_CODE = "py_itfs_cu/asm_mla.cu"
FUNCTION = "mla_decode_stage1_asm_fwd"
# The kernels are for so many query heads at least: vLLM repeats those of a layer that has fewer.
FEWEST_HEADS = 16
PARTS = 8
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
    """``mla_decode_fwd`` over a latent cache [N, B, 1, 576], whose pages are single tokens."""

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
            raise Refused("kernels over an fp8 cache take planned work, which no driver here plans")
        kept = slots >= 0
        at = slots[kept]
        cache[at // cache.shape[1], at % cache.shape[1]] = key[: slots.shape[0]][kept].to(
            cache.dtype
        )
        return ("harness torch_write",)

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        geometry, batch = layer.geometry, given.batch
        tokens, length = int(batch.query_start_loc[-1]), batch.max_query_len
        heads = max(geometry.num_heads, FEWEST_HEADS)
        if not self.planned:
            self._choice(geometry.dtype, geometry.cache_dtype, heads, length)
        if heads % geometry.num_heads:
            raise Refused(f"vLLM gives {geometry.num_heads} query heads to no kernel of aiter's")
        if batch.seq_lens.shape[0] * length != tokens:
            raise Refused("mla_decode_fwd takes as many query tokens of every sequence")
        factor = heads // geometry.num_heads
        query = given.query[:tokens].repeat_interleave(factor, 1).contiguous()
        out = torch.zeros((tokens, heads, geometry.v_head_size), dtype=geometry.dtype)
        size, counts = geometry.block_size, batch.seq_lens.tolist()
        pages = [
            row.long().repeat_interleave(size)[:n] * size + torch.arange(n) % size
            for row, n in zip(batch.block_table, counts, strict=True)
        ]
        ran: list[str] = []
        with _OnTheCpu():
            _module(self._objects.target, self._stage1(ran)).mla_decode_fwd(
                query,
                given.cache.view(-1, 1, 1, geometry.head_size),
                out,
                batch.query_start_loc,
                torch.tensor([0, *counts]).cumsum(0).to(torch.int32),
                torch.cat(pages).to(torch.int32),
                torch.ones(len(counts), dtype=torch.int32),
                length,
                layer.scores.scale,
                **self._work(),
            )
        given.out[:tokens] = out[:, ::factor]
        return (*ran, "mla._fwd_kernel_stage2_asm")

    def prefill(self, given: LatentPrefill, layer: Layer) -> Dispatch:  # noqa: ARG002 - refused
        raise Refused("prefills are kernels of CK or fmha_v3, which no driver here launches")

    def _work(self) -> dict[str, torch.Tensor]:
        """What a planned decode is handed besides; nothing without."""
        return {}

    def _choice(self, query: torch.dtype, cache: torch.dtype, heads: int, length: int) -> Choice:
        """What the host code launches.

        Raises:
            Refused: aiter has no kernel for it, or its host code cannot be followed.
        """
        source = self._objects.host_code(HOST_CODE)
        return stage_for(source, (query, cache), heads, length, planned=self.planned)

    def _stage1(self, ran: list[str]) -> Callable[..., None]:
        """What stands in for ``mla_decode_stage1_asm_fwd``: launches a file's kernel."""

        def launched(
            query: torch.Tensor,
            cache: torch.Tensor,
            query_starts: torch.Tensor,
            key_starts: torch.Tensor,
            pages: torch.Tensor,
            last_pages: torch.Tensor,
            split_starts: torch.Tensor,
            *others: Any,
        ) -> None:
            _, starts, _, length, scale, partial, lse, out, *_scales = others
            heads, splits = query.shape[1], partial.shape[1]
            chosen = self._choice(query.dtype, cache.dtype, heads, length)
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
                        *(query_starts, split_starts, out, None, None, splits),
                    ),
                )
            )

        return launched


class PlannedLatentAssembly(LatentAssembly):
    """``mla_decode_fwd`` as vLLM calls it, with planned work, as far as the choice of a kernel.

    Nothing runs: no plan is made. aiter's own Python decides what it takes, and its host code which
    code object that is; it ends with an error where there is none, as aiter does.
    """

    planned = True

    def attend(self, given: Paged, layer: Layer) -> Dispatch:
        if not self._objects.driver.compile_only:
            raise Refused("no driver here plans work: what aiter would launch is checked on aot")
        return super().attend(given, layer)

    def _work(self) -> dict[str, torch.Tensor]:
        names = ("meta_data", "info_set", "indptr")
        maps = ("reduce_indptr", "reduce_final_map", "reduce_partial_map")
        given = (*(f"work_{name}" for name in names), *maps)
        # aiter divides 128 heads into eight groups: as many partial results, at least.
        return {name: torch.zeros(PARTS, dtype=torch.int32) for name in given}

    def _choice(self, query: torch.dtype, cache: torch.dtype, heads: int, length: int) -> Choice:
        try:
            return super()._choice(query, cache, heads, length)
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


class _OnTheCpu(TorchFunctionMode):
    """Takes the device "cuda", which aiter's Python names, for the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if named.get("device") == "cuda":
            named["device"] = "cpu"
        return func(*args, **named)


def _module(target: str, stage1: Callable[..., None]) -> ModuleType:
    """``aiter.mla``, with what it takes from the rest of aiter."""
    package = sys.modules["aiter"]
    units = target_facts(target).compute_units
    chip = ModuleType("aiter.jit.utils.chip_info")
    vars(chip).update(get_cu_num=lambda: units)
    fp8 = torch.float8_e4m3fnuz if target == "gfx942" else torch.float8_e4m3fn
    dtypes = SimpleNamespace(fp8=fp8, bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)
    vars(package).update(dtypes=dtypes, mla_decode_stage1_asm_fwd=stage1)
    vars(package).update(mla_reduce_v1=lambda *_: None)
    for name in ("aiter.jit", "aiter.jit.utils"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules[chip.__name__] = chip
    try:
        return importlib.import_module("aiter.mla")
    except Exception as error:
        raise Refused(
            f"aiter.mla cannot be imported here: {type(error).__name__}: {error}"
        ) from error
