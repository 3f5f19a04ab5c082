"""Launch parameters of the attention kernels.

A pipeline stage holds one tile of keys in LDS (shared memory), of which a program has at most
64 KiB on AMD targets (gfx950: 160 KiB) and 227 KiB on an NVIDIA H100.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, Literal

import torch
import triton

# The family of each AMD target: conformance/matrix/targets.toml has the same, and a test compares
# them. A target that is missing here is refused, not guessed at from its name.
FAMILIES = {
    "gfx90a": "CDNA2",
    "gfx942": "CDNA3",
    "gfx950": "CDNA4",
    "gfx1250": "CDNA5",
    "gfx1100": "RDNA3",
    "gfx1101": "RDNA3",
    "gfx1150": "RDNA3.5",
    "gfx1151": "RDNA3.5",
    "gfx1200": "RDNA4",
    "gfx1201": "RDNA4",
}


# Where a kernel's keys lie: in dense rows, in a paged cache, or first in one and then in the other.
Keys = Literal["packed", "paged", "both"]


@dataclass(frozen=True)
class Launch:
    """Tile sizes (``block_m`` query rows by ``tile`` keys), waves and pipeline stages."""

    block_m: int
    tile: int
    num_warps: int
    num_stages: int

    def block_q(self, group: int) -> int:
        """Tokens per query block, for ``group`` query heads per KV head."""
        return self.block_m // group

    @cached_property
    def options(self) -> dict[str, int]:
        """What Triton takes beside a kernel's arguments."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


def run_kernel(
    kernel: Any, grid: tuple[int, ...], launch: Launch | None = None, /, **arguments: Any
) -> None:
    """``kernel[grid](**arguments)``, with a launch's waves and stages, by position.

    Triton hands named arguments on from function to function as dictionaries: fifty of them cost
    the host a quarter of a launch.

    Raises:
        KeyError: an argument is missing.
        TypeError: there are others than the kernel takes.
    """
    count, in_order = _parameters(kernel.fn)
    if len(arguments) > count:
        raise TypeError(f"{kernel.fn.__name__} takes {count} arguments: got {[*arguments]}")
    kernel[grid](*in_order(arguments), **(launch.options if launch else {}))


@cache
def _parameters(
    function: Callable[..., Any],
) -> tuple[int, Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
    """How many parameters a kernel has, and what puts named arguments into their order."""
    names = [*inspect.signature(function).parameters]
    return len(names), itemgetter(*names)


# The compute capability from which a program has 227 KiB of shared memory.
HOPPER = 90
# Full blocks of query rows, by where the keys lie and the bytes of a row: of those that were tried
# on an H200 the fastest over prefills of 4k to 16k tokens.
ON_HOPPER: dict[tuple[Keys, int], Launch] = {
    ("packed", 128): Launch(128, 64, 4, 4),
    ("packed", 256): Launch(128, 128, 8, 3),
    ("packed", 512): Launch(128, 64, 8, 2),
    ("paged", 128): Launch(128, 128, 4, 2),
    ("paged", 256): Launch(256, 128, 8, 3),
    ("paged", 512): Launch(128, 64, 8, 2),
    ("both", 128): Launch(128, 64, 4, 3),
    ("both", 256): Launch(128, 128, 8, 3),
    ("both", 512): Launch(128, 32, 8, 2),
}


def is_cuda(tensor: torch.Tensor) -> bool:
    """Whether a tensor is on an NVIDIA GPU: in ROCm's torch AMD devices are called cuda, too."""
    return tensor.is_cuda and torch.version.hip is None


@cache
def padded(size: int) -> int:
    """A head size as kernels hold it: a power of two, at least 16 as ``tl.dot`` demands."""
    return max(16, power_of_2(size))


def power_of_2(number: int) -> int:
    """The smallest power of two that is not less than a positive number."""
    return 1 << (number - 1).bit_length()


def choose(
    query: torch.Tensor,
    group: int,
    max_query_len: int,
    head_size: int,
    keys: Keys,
    sequences: int = 1,
) -> Launch:
    """A launch for ``max_query_len`` tokens a sequence at most, ``group`` query heads a KV head.

    ``sequences``: how many there are of them; if most are far shorter than the longest, blocks of
    query rows are smaller.
    """
    least = max(16, power_of_2(group))
    rows = group * max_query_len
    row_bytes = padded(head_size) * query.element_size()
    if is_cuda(query):
        mean_rows = group * query.shape[0] // max(sequences, 1)
        is_padded = padded(head_size) > head_size
        return _on_cuda(query, keys, least, rows, mean_rows, row_bytes, is_padded)
    block_m = max(least, min(64, power_of_2(rows)))
    tile = 64 if row_bytes <= 128 else 32 if row_bytes <= 512 else 16
    return without_spills(Launch(block_m, tile, 4, 1), least, row_bytes > 256, family())


def _on_cuda(
    query: torch.Tensor,
    keys: Keys,
    least: int,
    rows: int,
    mean_rows: int,
    row_bytes: int,
    is_padded: bool,
) -> Launch:
    """A launch for ``rows`` of the longest sequence and ``mean_rows`` of one, on an NVIDIA GPU."""
    if query.dtype == torch.float32:
        # No matrix unit multiplies float32: products are unrolled, and with large tiles the
        # compiler takes minutes.
        return Launch(max(least, 16), 16, 4, 1)
    on_hopper = current_target().arch >= HOPPER
    narrow = row_bytes <= 256
    if on_hopper and keys == "paged" and rows <= 32 and narrow:
        return Launch(max(least, power_of_2(rows)), 128, 4, 4)
    # Among many decodes a prefill is short work: what is launched for it, they all are.
    most = 64 if mean_rows * 8 <= rows else 128
    block_m = max(least, min(most, 128 if rows >= 128 else 64 if rows >= 64 else least))
    if block_m == 128 and row_bytes <= 512 and on_hopper:
        # A head that is padded needs masks, whose registers four warps do not have.
        launch = ON_HOPPER["both" if is_padded else keys, max(row_bytes, 128)]
        return launch if rows >= launch.block_m else Launch(128, 64, 4, 3)
    return Launch(block_m, 64 if narrow else 32, 8 if block_m >= 128 else 4, 3 if narrow else 2)


def describes(launch: Launch, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a kernel copies tiles of dense ``key`` and ``value`` rows by tensor descriptors.

    From Hopper on a unit of the processor copies a tile that is described by its address, shape
    and strides, all of them multiples of 16 bytes; threads need not compute addresses
    (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#tensor-memory-access). A program makes
    its descriptors in memory that Triton asks torch for. It pays with full blocks of query rows:
    prefills of 16k tokens take 0.85 of the time.
    """
    if launch.block_m < 128 or not is_cuda(key) or current_target().arch < HOPPER:
        return False
    if key.element_size() != 2 or not all(_is_aligned(rows) for rows in (key, value)):
        return False
    triton.set_allocator(_scratch)
    return True


def _is_aligned(rows: torch.Tensor) -> bool:
    """Whether rows [T, H, D] begin at multiples of 16 bytes."""
    places = (rows.data_ptr(), *(n * rows.element_size() for n in rows.stride()[:-1]))
    return rows.stride(-1) == 1 and all(place % 16 == 0 for place in places)


def _scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    """Memory that a launch needs on the GPU besides its arguments."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def choose_decode(
    query: torch.Tensor,
    group: int,
    head_size: int,
    cache_itemsize: int,
    packed_block: int | None = None,
) -> Launch:
    """A launch for one token per sequence, over a paged cache of ``cache_itemsize`` bytes a number.

    ``packed_block``: the block size if keys are packed, else None.
    """
    block_m = max(16, power_of_2(group))
    if not is_cuda(query) or query.dtype == torch.float32 or block_m > 64:
        return choose(query, group, 1, head_size, "paged")
    row_bytes = padded(head_size) * query.element_size()
    is_padded = head_size != padded(head_size)
    return _decode_on_cuda(block_m, row_bytes, is_padded, cache_itemsize, packed_block)


@cache
def _decode_on_cuda(
    block_m: int, row_bytes: int, is_padded: bool, cache_itemsize: int, packed_block: int | None
) -> Launch:
    """:func:`choose_decode` on an NVIDIA GPU, of which few rows occupy few warps.

    A single warp reads 4 KiB of a packed cache, with two such tiles in flight.
    """
    wide = row_bytes > 256
    if cache_itemsize == 1 and not wide:
        return Launch(block_m, 64, 2, 5)
    if packed_block in (16, 32) and is_padded:
        return Launch(block_m, 32, 2 if wide else 1, 3)
    if packed_block in (16, 32):
        tile = max(packed_block, 32 if row_bytes <= 128 else 16)
        return Launch(block_m, tile, 2 if wide or packed_block > 16 else 1, 5)
    if wide:
        return Launch(block_m, 16, 2, 6) if is_padded else Launch(block_m, 32, 2, 4)
    return Launch(block_m, 64 if row_bytes > 128 else 128, 2, 3)


def family_of(architecture: str) -> str:
    """The family of an AMD target; ``gfx942`` and ``gfx942:sramecc+:xnack-`` are both CDNA3.

    Raises:
        NotImplementedError: the target is not in the table.
    """
    name = architecture.partition(":")[0]
    if name not in FAMILIES:
        raise NotImplementedError(
            f"the reference kernels have no launch parameters for {name}, only for "
            f"{', '.join(FAMILIES)}: add its family to FAMILIES in rocm_reference/ops/launch.py"
        )
    return FAMILIES[name]


@cache
def family() -> str:
    """The family of the AMD target that kernels are compiled for: ``CDNA3``, ``RDNA4``, ...

    Empty on NVIDIA GPUs and in Triton's interpreter.
    """
    target = current_target()
    return family_of(str(target.arch)) if target is not None and target.backend == "hip" else ""


def current_target() -> Any:
    """What Triton compiles for (``backend``, ``arch``).

    None in the interpreter on a machine without a GPU: there is no driver.
    """
    try:
        return triton.runtime.driver.active.get_current_target()
    except RuntimeError:
        return None


def is_rdna(family: str) -> bool:
    """Whether a wave has 32 lanes, and a lane at most 256 vector registers."""
    return family.startswith("RDNA")


def is_rdna3(family: str) -> bool:
    """RDNA3 and RDNA3.5, whose matrix instructions take each operand twice.

    Both halves of a wave must hold it (https://gpuopen.com/learn/wmma_on_rdna3/).
    """
    return family in ("RDNA3", "RDNA3.5")


def without_spills(launch: Launch, least: int, wide: bool, family: str) -> Launch:
    """Adjusts a launch to fit RDNA's 256 VGPRs. ``wide`` rows still spill on RDNA3.

    ``least``: the fewest query rows that the caller can use; ``wide``: rows of more than 256
    bytes. The waves of a program share a tile of keys: with eight waves each holds half as much of
    it as with four. RDNA3 keeps matrix operands twice (see :func:`is_rdna3`), so it gets the
    smallest tiles there are. With two pipeline stages a tile waits in LDS, not in registers. These
    values are those that compile without spills (suite codegen); their speed was not measured.
    """
    if not is_rdna(family):
        return launch
    if not is_rdna3(family):
        if wide and launch.block_m <= 16:
            return replace(launch, tile=16, num_warps=8, num_stages=2)
        return replace(launch, tile=min(launch.tile, 32), num_warps=8)
    block_m = max(least, min(launch.block_m, 32))
    if block_m <= 16:
        return replace(launch, tile=16)
    return replace(launch, block_m=block_m, tile=16, num_warps=8)


@cache
def processors(device: torch.device) -> int:
    """The number of multiprocessors (compute units) of a device."""
    if device.type != "cuda":
        return 8
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def segments_for(
    programs: int,
    max_seq_len: int,
    tile: int,
    device: torch.device,
    most: int = 64,
    per_processor: int = 4,
) -> int:
    """The number of segments that keys are split into to fill a device: a power of two.

    ``programs``: how many there are without a split; there shall be no more than ``per_processor``
    for each multiprocessor. Segments of the longest sequence have at least four tiles or 256 keys,
    whichever is less.
    """
    wanted = min(
        per_processor * processors(device) // max(programs, 1),
        -(-max_seq_len // min(4 * tile, 256)),
        most,
    )
    return 1 << (max(int(wanted), 1).bit_length() - 1)
