"""Caches of codes with a scale for each token and head: how they are written and read.

Cache layout: ``[N, 2, B, G, row]``, bytes, keys at index 0 of the second dimension: a row is the
codes of a head and then their scale, float32
(https://github.com/vllm-project/vllm/blob/v0.25.1/vllm/v1/attention/backends/triton_attn.py#L319).

- int8: ``round(x / scale)``, halves away from zero; the scale is the largest magnitude / 127.
- fp8: to nearest even; the scale is the largest magnitude / 448, in E4M3FNUZ / 224.
- int4: rows are rotated first (:func:`rotation`) and rounded to their dtype. With the scale a
  fifteenth of the way from the least element to the greatest, and ``z = round(-least / scale)``,
  codes are ``round(x / scale + z)``, two in a byte, the first in the lower half; ``z`` is in the
  four lowest bits of the scale.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Geometry
from rocm_reference.ops.fp8 import decode, encode, format_of
from rocm_reference.ops.launch import padded

INT8, INT4 = tl.constexpr(16), tl.constexpr(17)  # beside the formats of fp8
LARGEST = {"int8": 127.0, "fp8_e4m3fn": 448.0, "fp8_e4m3fnuz": 224.0, "int4": 15.0}
ENCODINGS = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e4m3fnuz": torch.float8_e4m3fnuz}
LEAST_SCALE = tl.constexpr(1e-6)
SCALE_BYTES = 4
SIGNS_SEED = 0x9E3779B9
TOKENS = 16  # that one program stores


def is_head_scaled(geometry: Geometry) -> bool:
    return geometry.packing.endswith("_per_token_head")


def row_bytes(geometry: Geometry) -> int:
    """The bytes of a key or a value of one head."""
    codes = geometry.head_size // 2 if code_name(geometry) == "int4" else geometry.head_size
    return codes + SCALE_BYTES


def code_name(geometry: Geometry) -> str:
    return geometry.packing.removesuffix("_per_token_head")


def code_format(geometry: Geometry) -> int:
    name = code_name(geometry)
    own = {"int8": INT8.value, "int4": INT4.value}
    return own[name] if name in own else format_of(ENCODINGS[name])


@cache
def rotation(size: int, device: torch.device) -> torch.Tensor:
    """The matrix [size, size], float32, that int4's rows are multiplied by: signs, then Hadamard's
    in blocks of the largest power of two that divides the size. Its rows' length is that's root."""
    block = size & -size
    draw = torch.Generator().manual_seed(SIGNS_SEED)
    signs = 2.0 * torch.bernoulli(torch.full((block,), 0.5), generator=draw) - 1.0
    one = torch.ones(1, 1)
    while len(one) < block:
        one = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), one)
    made: torch.Tensor = torch.block_diag(*[signs[:, None] * one] * (size // block))
    return made.to(device)


@triton.jit(do_not_specialize=["tokens"])
def head_scaled_write_kernel(
    rows_ptr,
    codes_ptr,
    scales_ptr,
    slots_ptr,
    tokens,
    row_token,
    row_head,
    code_block,
    code_slot,
    code_head,
    scale_block,
    scale_slot,
    scale_head,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    FORMAT: tl.constexpr,
    LARGEST: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Program (tokens, KV head): stores codes and scales; rows with a negative slot are skipped."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    slot = tl.load(slots_ptr + token, mask=token < tokens, other=-1)
    stored = slot >= 0
    at = rows_ptr + token.to(tl.int64) * row_token + head * row_head
    block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    into = codes_ptr + block * code_block + place * code_slot + head * code_head
    scale_at = scales_ptr + block * scale_block + place * scale_slot + head * scale_head
    if FORMAT == INT4:
        dims = tl.arange(0, D_PAD // 2)[None, :]
        mask = stored[:, None] & (2 * dims < D)
        first = tl.load(at[:, None] + 2 * dims, mask=mask, other=0).to(tl.float32)
        second = tl.load(at[:, None] + 2 * dims + 1, mask=mask, other=0).to(tl.float32)
        lower, upper = tl.minimum(first, second), tl.maximum(first, second)
        least = tl.min(tl.where(mask, lower, float("inf")), 1)
        most = tl.max(tl.where(mask, upper, float("-inf")), 1)
        scale = tl.maximum(tl.div_rn(tl.where(stored, most - least, 0.0), LARGEST), LEAST_SCALE)
        least = tl.where(stored, least, 0.0)
        zero = tl.clamp(tl.floor(tl.div_rn(-least, scale) + 0.5), 0.0, LARGEST)
        low = tl.div_rn(first, scale[:, None]) + zero[:, None]
        high = tl.div_rn(second, scale[:, None]) + zero[:, None]
        low = tl.clamp(tl.floor(low + 0.5), 0.0, LARGEST).to(tl.int32)
        high = tl.clamp(tl.floor(high + 0.5), 0.0, LARGEST).to(tl.int32)
        tl.store(into[:, None] + dims, (low | (high << 4)).to(tl.uint8), mask=mask)
        bits = (scale.to(tl.int32, bitcast=True) & -16) | zero.to(tl.int32)
        tl.store(scale_at, bits.to(tl.float32, bitcast=True), mask=stored)
    else:
        dims = tl.arange(0, D_PAD)[None, :]
        mask = stored[:, None] & (dims < D)
        row = tl.load(at[:, None] + dims, mask=mask, other=0).to(tl.float32)
        scale = tl.maximum(tl.div_rn(tl.max(tl.abs(row), 1), LARGEST), LEAST_SCALE)
        quotient = tl.div_rn(row, scale[:, None])
        if FORMAT == INT8:
            rounded = tl.floor(tl.abs(quotient) + 0.5)
            code = tl.where(quotient < 0, -rounded, rounded).to(tl.int8)
        else:
            code = encode(tl.clamp(quotient, -LARGEST, LARGEST), FORMAT)
        tl.store(into[:, None] + dims, code, mask=mask)
        tl.store(scale_at, scale, mask=stored)


def write_head_scaled(
    rows: torch.Tensor, cache: torch.Tensor, slot_mapping: torch.Tensor, geometry: Geometry
) -> None:
    """Stores ``rows`` [T, G, D] in one half of a cache, [N, B, G, row]."""
    tokens = slot_mapping.shape[0]
    if tokens == 0:
        return
    if code_name(geometry) == "int4":
        rows = (rows.float() @ rotation(geometry.head_size, rows.device)).to(rows.dtype)
    codes, scales = codes_and_scales(cache)
    head_scaled_write_kernel[(-(-tokens // TOKENS), geometry.num_kv_heads)](
        rows,
        codes,
        scales,
        slot_mapping,
        tokens,
        *(rows.stride(0), rows.stride(1)),
        *codes.stride()[:3],
        *scales.stride()[:3],
        D=geometry.head_size,
        D_PAD=padded(geometry.head_size),
        BLOCK_SIZE=geometry.block_size,
        FORMAT=code_format(geometry),
        LARGEST=LARGEST[code_name(geometry)],
        TOKENS=TOKENS,
    )


def codes_and_scales(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes [N, B, G, bytes] and the scales [N, B, G] of one half of a cache."""
    codes, scales = cache.split([cache.shape[-1] - SCALE_BYTES, SCALE_BYTES], dim=-1)
    return codes, scales.view(torch.float32)[..., 0]


@triton.jit
def load_scaled_tile(
    codes,
    scales,
    dims,
    stored,
    D: tl.constexpr,
    DTYPE: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """``(codes, as numbers, and their scales)`` of rows, of those not ``stored`` 0.

    ``codes`` and ``scales`` point at rows and ``stored`` says which there are, all [1, N], with
    ``dims`` [D_PAD, 1]; or all [N, 1], with ``dims`` [1, D_PAD].
    """
    scale = tl.load(scales, mask=stored, other=0)
    mask = stored & (dims < D)
    if FORMAT == INT4:
        bits = scale.to(tl.int32, bitcast=True)
        pair = tl.load(codes + dims // 2, mask=mask, other=0).to(tl.int32)
        number = ((pair >> (dims % 2 * 4)) & 0xF) - (bits & 0xF)
        return tl.where(mask, number, 0).to(DTYPE), (bits & -16).to(tl.float32, bitcast=True)
    code = tl.load(codes + dims, mask=mask, other=0)
    if FORMAT == INT8:
        return code.to(DTYPE), scale
    return decode(code, DTYPE, FORMAT), scale
