"""What caches hold that have a scale for each token and head: int8, fp8 and int4.

Written from the formats of release 0.33.0, below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/ops/: int8 and fp8 are in
``triton_reshape_and_cache_flash.py`` (from 0.20 on), int4 in ``int4_per_token_head.py`` (0.25 on).

A key or a value of one head is codes times one float32 number, which is kept behind the codes.

- int8: the largest magnitude is 127; to the nearest code, halves away from zero.
- fp8: the largest magnitude is 448 in E4M3FN, and 224 in E4M3FNUZ; to nearest even.
- int4: the vector is first rotated, by signs and by Hadamard's matrix without a factor, and rounded
  to its dtype. Sixteen steps lead from its least to its greatest element; the step's number that
  stands for 0 takes the four lowest bits of the scale.

A scale is no smaller than a millionth, so a vector of zeros is not divided by 0.

Everything is in float64. Kernels compute in float32, where a quotient near the middle of two codes
may fall to either side. So problems have no such keys and values: see :func:`settled`.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from conformance.problems import packed_caches

INT4 = "int4_per_token_head"
# What the largest magnitude of a vector becomes. E4M3FNUZ could hold 240: vLLM leaves out a step
# (https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/model_executor/layers/quantization/utils/quant_utils.py#L99).
LARGEST = {
    "int8_per_token_head": 127.0,
    "fp8_e4m3fn_per_token_head": 448.0,
    "fp8_e4m3fnuz_per_token_head": 224.0,
}
ENCODINGS = {
    "fp8_e4m3fn_per_token_head": torch.float8_e4m3fn,
    "fp8_e4m3fnuz_per_token_head": torch.float8_e4m3fnuz,
}
LEAST_SCALE = 1e-6
STEPS = 15  # of int4, between its least and its greatest element
ZERO_BITS = 0xF  # of a scale, which hold the number of the step that stands for 0
SIGNS_SEED = 0x9E3779B9
MATRIX = 128  # the largest block that releases rotate in a matrix unit
# How far apart float32's roundings may put a quotient, as a part of it, and in steps of int4.
MARGIN, STEP_MARGIN = 2.0**-18, 2.0**-17
# Which factors values have, and which of them are 0, so that scales differ from row to row.
FACTORS, EVERY_ZERO = (0.25, 1.0, 4.0), 13


def spread(values: torch.Tensor) -> torch.Tensor:
    """Values [K, G, V] whose magnitudes differ by token and head; some rows are 0."""
    keys, heads = values.shape[:2]
    number = torch.arange(keys)[:, None] * 4 + torch.arange(heads) * 5
    factor = torch.tensor(FACTORS)[number % len(FACTORS)]
    factor = torch.where(number % EVERY_ZERO == EVERY_ZERO - 1, 0.0, factor)
    return values * factor[..., None].to(values.dtype)


# ---- what is read --------------------------------------------------------------------------------


def stored(x: torch.Tensor, name: str) -> torch.Tensor:
    """Keys or values [..., D] as attention reads them from a cache of this name (float64)."""
    if name == INT4:
        codes, zero, scale = _steps(_turned_in_dtype(x))
        return turned_back((codes - zero) * scale)
    scale = scales(x, name)
    return codes_of(x, name, scale) * scale


def scales(x: torch.Tensor, name: str) -> torch.Tensor:
    """The scale of each row [..., 1], as stored (float64)."""
    if name == INT4:
        return _steps(_turned_in_dtype(x))[2]
    largest = x.float().abs().amax(-1, keepdim=True)
    return (largest / LARGEST[name]).clamp_min(LEAST_SCALE).double()


def zeros(x: torch.Tensor) -> torch.Tensor:
    """What is taken from int4's codes times the scale, so that 0 is 0: a number a row [..., 1]."""
    _, zero, scale = _steps(_turned_in_dtype(x))
    return zero * scale


def codes_of(x: torch.Tensor, name: str, scale: torch.Tensor) -> torch.Tensor:
    """The codes of int8 or fp8 rows with these scales, as numbers (float64)."""
    quotient = x.double() / scale
    if name in ENCODINGS:
        limit = LARGEST[name]
        return quotient.clamp(-limit, limit).float().to(ENCODINGS[name]).double()
    rounded = quotient.sign() * (quotient.abs() + 0.5).floor()
    return rounded.clamp(-128.0, LARGEST[name])


# ---- int4 ----------------------------------------------------------------------------------------


@cache
def rotation(size: int) -> torch.Tensor:
    """The orthonormal matrix [size, size] by which rows are rotated, without the signs' and the
    blocks' factor: signs, then Hadamard's matrix in blocks of the largest power of two in size."""
    block = block_of(size)
    draw = torch.Generator().manual_seed(SIGNS_SEED)
    signs = 2.0 * torch.bernoulli(torch.full((block,), 0.5), generator=draw).double() - 1.0
    one = signs[:, None] * packed_caches.rotation(block)
    return torch.kron(torch.eye(size // block, dtype=torch.float64), one)


def block_of(size: int) -> int:
    """The largest power of two that divides a head size."""
    return size & -size


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rows [..., D] as they are rotated before they are stored: longer by the root of a block."""
    root = math.sqrt(block_of(x.shape[-1]))
    result: torch.Tensor = x.double() @ rotation(x.shape[-1]).to(x.device) * root
    return result


def turned_back(x: torch.Tensor) -> torch.Tensor:
    root = math.sqrt(block_of(x.shape[-1]))
    result: torch.Tensor = x @ rotation(x.shape[-1]).to(x.device).T / root
    return result


def _turned_in_dtype(x: torch.Tensor) -> torch.Tensor:
    return turned(x).to(x.dtype).double()


def _steps(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The codes of rotated rows, the number that stands for 0, and the scale as stored."""
    scale, zero, exact = _step_and_zero(x)
    codes = (exact + zero + 0.5).floor().clamp(0.0, STEPS)
    bits = scale.float().view(torch.int32)
    return codes, zero, (bits & ~ZERO_BITS).view(torch.float32).double()


def _step_and_zero(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step, the number that stands for 0, and how many steps from 0 each element is."""
    least, most = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = ((most - least).float() / STEPS).clamp_min(LEAST_SCALE).double()
    zero = (-least / scale + 0.5).floor().clamp(0.0, STEPS)
    return scale, zero, x / scale


# ---- what must not hang on the last place --------------------------------------------------------


def settled(x: torch.Tensor, name: str) -> torch.Tensor:
    """Keys or values [K, G, D] that every kernel stores alike, each near the given one."""
    if name == INT4:
        return packed_caches.settled_rows(x, _is_open)
    scale = scales(x, name)
    low, high = (codes_of(x, name, scale / factor) for factor in (1 - MARGIN, 1 + MARGIN))
    # The largest element of a row, whose code is the largest, decides the scale and stays.
    return torch.where(low == high, x, (high * scale).to(x.dtype))


def _is_open(x: torch.Tensor) -> torch.Tensor:
    """Which rows [...] float32 may store in two ways."""
    wide = turned(x)
    block = block_of(x.shape[-1])
    sums = x.double().abs().reshape(*x.shape[:-1], -1, block).sum(-1, keepdim=True)
    # By additions one after the other, or in a matrix unit, which cuts sums off.
    steps = 2 * (block + block // 4 + 1) if block <= MATRIX else block.bit_length() + 1
    error = steps * packed_caches.U32 * sums.expand(*sums.shape[:-1], block)
    error = error.flatten(-2)
    low, high = ((wide + side * error).to(x.dtype).double() for side in (-1, 1))
    ends = low.amin(-1) != high.amin(-1), low.amax(-1) != high.amax(-1)
    scale, zero, _ = _step_and_zero(low)
    far = -low.amin(-1, keepdim=True) / scale + 0.5
    apart = torch.cat([far, low / scale + zero + 0.5], -1) - STEP_MARGIN
    beyond = torch.cat([far, high / scale + zero + 0.5], -1) + STEP_MARGIN
    one, other = (places.floor().clamp(0.0, STEPS) for places in (apart, beyond))
    near = (one != other).any(-1)
    is_open: torch.Tensor = (ends[0] | ends[1] | near) & (wide.abs().amax(-1) > 0)
    return is_open
