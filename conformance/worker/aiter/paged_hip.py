"""aiter's paged attention in HIP: ``paged_attention_v1``, ROCM_AITER_FA's decode by default.

aiter makes its source from a template when it is first called with new numbers, and compiles that:
``csrc/cpp_itfs/pa/pa_v1.py`` and ``pa_v1.cpp.jinja`` of the installed aiter. What they do is
repeated here, template arguments, grid and arguments; the kernels are those of the
installed ``pa_v1.cuh``, compiled by clang. Prefills are ``fmha_v3``'s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..contract import HIP_CACHE
from ..errors import Refused
from ..interfaces import Dispatch, Geometry, Layer, Paged, Scores
from ..suite_devices import device_part
from . import loading
from .code_objects import CodeObjects, source_folder
from .dense_prefills import DensePrefills, decode_rows, store_rows

if TYPE_CHECKING:
    from ...devices.hip.object_launch import Value
    from ...devices.hip.template_launch import Templates
    from ...devices.kernel import Extent

FILE = "csrc/cpp_itfs/pa/pa_v1.cuh"
# Folders that its headers are looked for in, beside it.
INCLUDES = (
    "csrc/include",
    "csrc/include/ck_tile",
    "csrc/cpp_itfs/pa",
    "3rdparty/composable_kernel/include",
)
PARTITION, LANES = 256, 64
THREADS = 256
MOST_RATIO = 16  # query heads of a KV head
_TYPES = {torch.float16: "_Float16", torch.bfloat16: "__hip_bfloat16"}


class PagedHip(DensePrefills):
    """A dense cache [2, N, B, G, D], keys and values: "NHD" to ``paged_attention_v1``."""

    def __init__(self, objects: CodeObjects) -> None:
        super().__init__(objects)
        self._templates: Templates | None = None

    def allocate(self, num_blocks: int, geometry: Geometry, device: torch.device) -> torch.Tensor:
        shape = (2, num_blocks, geometry.block_size, geometry.num_kv_heads, geometry.head_size)
        return torch.empty(shape, dtype=geometry.cache_dtype, device=device)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: torch.Tensor,
        slots: torch.Tensor,
        layer: Layer,
    ) -> Dispatch:
        """By torch: vLLM's own is a HIP kernel."""
        kept = slots >= 0
        block, at = slots[kept] // cache.shape[2], slots[kept] % cache.shape[2]
        for half, rows, scale in ((0, key, layer.scales.k), (1, value, layer.scales.v)):
            cache[half, block, at] = store_rows(rows[: slots.shape[0]][kept], scale, layer.geometry)
        return ("harness torch_write",)

    def read(self, cache: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block, at = places // cache.shape[2], places % cache.shape[2]
        return cache[0, block, at], cache[1, block, at]

    def check_decode(self, layer: Layer) -> None:
        scores, geometry = layer.scores, layer.geometry
        has = {
            "sinks": scores.sinks is not None,
            "prefix ranges": scores.mm_prefix is not None,
        }
        if named := [name for name, there in has.items() if there]:
            raise Refused(f"paged_attention_v1 takes no argument for {', '.join(named)}")
        if geometry.cache_dtype != geometry.dtype:
            raise Refused(
                "over an fp8 cache paged_attention_v1 rounds queries and weights to fp8 without a "
                "scale, for which the suite has no bound"
            )
        if geometry.num_heads // geometry.num_kv_heads > MOST_RATIO:
            raise Refused(f"paged_attention_v1 takes at most {MOST_RATIO} query heads of a KV head")

    def decode(
        self, given: Paged, layer: Layer, at: torch.Tensor, sequences: list[int], ran: list[str]
    ) -> torch.Tensor:
        geometry, scores = layer.geometry, layer.scores
        query, table, lens = decode_rows(given, at, sequences)
        count, heads, size = query.shape
        parts = -(-given.batch.max_seq_len // PARTITION)
        keys, values = given.cache[0], given.cache[1]
        out = torch.full_like(query, math.nan)
        sums, tops = torch.full((2, count, heads, parts), math.nan)
        partial = torch.full((count, heads, parts, size), math.nan, dtype=query.dtype)
        cap = scores.soft_cap
        scales = [torch.tensor([scale]) for scale in (layer.scales.k, layer.scales.v)]
        main, merge = _kernels(geometry, scores, -(-parts // LANES))
        source = f'#include "{FILE}"\n' + "".join(
            f"auto instance_{n} = &{each};\n" for n, each in enumerate((main, merge))
        )
        ran += [
            self._run(
                source,
                main,
                ((count, parts, geometry.num_kv_heads), (THREADS, 1, 1)),
                (
                    *(query, keys, values, float(scores.scale), table, None, lens),
                    *(table.stride(0), scores.alibi_slopes, query.stride(0)),
                    *(keys.stride(0), keys.stride(2), keys.stride(1), sums, tops, partial),
                    *(float(cap), 1 / cap if cap else 0.0, None, *scales, None),
                    scores.window[0] + 1,
                ),
            ),
            self._run(
                source,
                merge,
                ((heads, count, 1), (size, 1, 1)),
                (out, sums, tops, partial, None, lens, parts, None),
            ),
        ]
        return out

    def _run(
        self, source: str, name: str, shape: tuple[Extent, Extent], values: Sequence[Value]
    ) -> str:
        """Runs one kernel of a source; says what ran."""
        clang = device_part("hip.clang")
        try:
            if self._templates is None:
                self._templates = self._made()
            function = name.partition("<")[0]
            self._templates.launch(source, function, shape, values)
        except clang.ClangMissingError as error:
            raise Refused(f"unsupported here: {error}") from error
        return f"HIP {function} ({FILE}, clang {self._templates.version})"

    def _made(self) -> Templates:
        folder = source_folder()
        if folder is None or not (folder.parent / FILE).is_file():
            raise Refused(f"aiter {loading.version()} has no {FILE}")
        if HIP_CACHE not in os.environ:
            raise Refused("no folder for compiled kernels is named")
        driver = self.objects.driver
        cache, build = Path(os.environ[HIP_CACHE]), device_part("hip.clang").AITER
        made: Templates = device_part("hip.template_launch").Templates(
            driver, folder.parent, INCLUDES, cache, build
        )
        return made


def _kernels(geometry: Geometry, scores: Scores, loops: int) -> tuple[str, str]:
    """The two kernels with their template arguments."""
    kind = _TYPES[geometry.dtype]
    size, ratio = geometry.head_size, geometry.num_heads // geometry.num_kv_heads
    alibi, windowed = scores.alibi_slopes is not None, scores.window[0] >= 0
    main = (
        *(kind, kind, "vllm::Fp8KVCacheDataType::kAuto"),
        *(geometry.block_size, size, THREADS, str(alibi).lower(), ratio, 1),
        f"ck_tile::ComposedAttention<{int(scores.soft_cap > 0)} * ck_tile::LOGITS_SOFT_CAP>",
        str(windowed).lower(),
    )
    merge = (kind, kind, size, size, PARTITION, loops)
    names = ("paged_attention_ll4mi_QKV_mfma16_kernel", "paged_attention_ll4mi_reduce_kernel")
    one, two = (
        f"{name}<{', '.join(map(str, words))}>"
        for name, words in zip(names, (main, merge), strict=True)
    )
    return one, two
