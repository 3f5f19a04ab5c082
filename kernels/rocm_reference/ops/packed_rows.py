"""Caches that pack a key and a value into one row of bytes, as TurboQuant and UltraQuant do.

A row is one slot of one KV head: the key's codes, what belongs to the key, the value's codes, what
belongs to the value. Codes follow one another from the lowest bit on. Sources are below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/:

- TurboQuant (v1/attention/ops/triton_turboquant_store.py and, for the numbers of bits,
  model_executor/layers/quantization/turboquant/config.py). A key of 8 bits is E4M3. One of 3 or 4
  bits is divided by its length and rotated; a code is the entry of a codebook that is nearest to a
  coordinate, and the length (float16) stands behind. Of a value, steps above its least element; the
  size of a step and the least element (float16) stand behind.
- UltraQuant (v1/attention/ops/ultraquant/format.py). Rotated keys, and values, in FP4 (E2M1), a
  byte behind for each 32 of them: the exponent of a power of two, with bias 127; 0 means zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from rocm_reference.attention import Geometry
from rocm_reference.ops.fp8 import decode, encode, format_of
from rocm_reference.ops.launch import padded

KEY_FORMAT = torch.float8_e4m3fn
_BITS = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
    "ultraquant_4bit": (4, 4),
}
GROUP = tl.constexpr(32)  # elements that have a scale in common
# FP4's scale is the power of two next to this part of a group's largest magnitude.
SCALE_FACTOR = tl.constexpr(0.156)
LEAST_STEP = tl.constexpr(1e-8)


@dataclass(frozen=True)
class RowFormat:
    """How a row packs a key and a value of ``size`` elements each, in bits an element.

    ``grouped``: FP4 with scales of groups, else TurboQuant's.
    """

    size: int
    key_bits: int
    value_bits: int
    grouped: bool

    @property
    def key_bytes(self) -> int:
        """Of the key's codes."""
        return -(-self.size * self.key_bits // 8)

    @property
    def value_start(self) -> int:
        """Where the value's codes begin."""
        behind = 2 if self.rotates else 0
        return self.key_bytes + (self._groups if self.grouped else behind)

    @property
    def value_bytes(self) -> int:
        return -(-self.size * self.value_bits // 8)

    @property
    def bytes(self) -> int:
        """Of a row, rounded up to an even number as the release does."""
        used = self.value_start + self.value_bytes + (self._groups if self.grouped else 4)
        return used + used % 2

    @property
    def rotates(self) -> bool:
        return self.key_bits < 8

    @property
    def _groups(self) -> int:
        return -(-self.size // int(GROUP.value))

    def arguments(self) -> dict[str, int | bool]:
        """The arguments of kernels that read or write rows."""
        return {
            "D": self.size,
            "D_PAD": padded(self.size),
            "KEY_BITS": self.key_bits,
            "VALUE_BITS": self.value_bits,
            "KEY_BYTES": self.key_bytes,
            "VALUE_START": self.value_start,
            "VALUE_BYTES": self.value_bytes,
            "GROUPED": self.grouped,
            "FORMAT": format_of(KEY_FORMAT),
        }


def row_format(geometry: Geometry) -> RowFormat:
    """The format of a layer's cache; ``geometry.packing`` names it."""
    bits = _BITS[geometry.packing]
    return RowFormat(geometry.head_size, *bits, geometry.packing.startswith("ultraquant"))


@cache
def rotation(size: int, device: torch.device) -> torch.Tensor:
    """The orthonormal, symmetric matrix [size, size] by which keys and queries are rotated.

    A Hadamard matrix. The release has none for a size that is no power of two, and raises an error;
    here it is made of blocks then, one for each power of two in the size, the largest first.
    """
    made, at = torch.zeros(size, size), 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            row = torch.arange(1 << bit)
            common = row[:, None] & row[None, :]
            odd = torch.zeros_like(common)
            for shift in range(bit):
                odd ^= (common >> shift) & 1
            end = at + (1 << bit)
            made[at:end, at:end] = (1 - 2 * odd.double()) * 2 ** (-bit / 2)
            at = end
    return made.to(device)


@cache
def codebook(size: int, bits: int, device: torch.device) -> torch.Tensor:
    """TurboQuant's entries, float32 [2 ** bits], ascending.

    Lloyd's iterations for coordinates of variance 1 / size, which begin with even steps within 3.5
    standard deviations and end after 200, or once no entry moves by 1e-10; integrals by the
    trapezoidal rule in 200 steps
    (vllm/model_executor/layers/quantization/turboquant/centroids.py).
    """
    deviation, count = 1 / math.sqrt(size), 2**bits
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    entries: torch.Tensor = (2 * middle - 1) * 3.5 * deviation
    end = torch.tensor([10.5 * deviation], dtype=torch.float64)
    part = torch.linspace(0, 1, 201, dtype=torch.float64)
    for _ in range(200):
        borders = torch.cat([-end, (entries[:-1] + entries[1:]) / 2, end])
        x = torch.lerp(borders[:-1, None], borders[1:, None], part)
        density = torch.exp(-0.5 * (x / deviation) ** 2)
        moved = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
        if (moved - entries).abs().max() < 1e-10:
            break
        entries = moved
    return entries.float().to(device)


@triton.jit
def store_codes(pointer, codes, D: tl.constexpr, D_PAD: tl.constexpr, BITS: tl.constexpr):
    """Packs codes [D_PAD] of 3, 4 or 8 bits into bytes from ``pointer`` on; the first D count."""
    if BITS == 3:
        words = tl.sum(tl.reshape(codes, [D_PAD // 8, 8]) << (tl.arange(0, 8) * 3)[None, :], 1)
        at = tl.arange(0, D_PAD // 8)
        for byte in tl.static_range(3):
            part = ((words >> (8 * byte)) & 0xFF).to(tl.uint8)
            tl.store(pointer + at * 3 + byte, part, mask=at < D // 8)
    elif BITS == 4:
        pairs = tl.sum(tl.reshape(codes, [D_PAD // 2, 2]) << (tl.arange(0, 2) * 4)[None, :], 1)
        at = tl.arange(0, D_PAD // 2)
        tl.store(pointer + at, pairs.to(tl.uint8), mask=at < D // 2)
    else:
        at = tl.arange(0, D_PAD)
        tl.store(pointer + at, codes.to(tl.uint8), mask=at < D)


@triton.jit
def store_half(pointer, number):
    """A float32 as float16, in two bytes: rows need not begin at even addresses."""
    bits = number.to(tl.float16).to(tl.uint16, bitcast=True)
    tl.store(pointer, (bits & 0xFF).to(tl.uint8))
    tl.store(pointer + 1, (bits >> 8).to(tl.uint8))


@triton.jit
def passed(size, below, middle):
    """1 where a number of this size is past the middle between two, 0 elsewhere.

    The middle itself becomes the lower number: of a negative one, ``below`` 0, the larger size.
    """
    return tl.where(below, size >= middle, size > middle).to(tl.int32)


@triton.jit
def store_groups(pointer, x, D: tl.constexpr, D_PAD: tl.constexpr, BYTES: tl.constexpr):
    """Numbers [D_PAD] (0 past D) as FP4, and the exponents of their groups behind."""
    grouped = tl.reshape(x, [D_PAD // GROUP, GROUP])
    largest = tl.max(tl.abs(grouped), 1)
    power = tl.floor(tl.log2(tl.where(largest > 0, largest * SCALE_FACTOR, 1.0)) + 0.5)
    is_zero = (largest == 0) | (power < -126)
    exponent = tl.where(is_zero, 0.0, power + 127).to(tl.int32)
    # The reciprocal of a power of two, exactly: the exponent on the other side of the bias.
    reciprocal = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    scaled = grouped * tl.where(is_zero, 0.0, reciprocal)[:, None]
    size = tl.abs(scaled)
    below = scaled < 0
    code = passed(size, below, 0.25) + passed(size, below, 0.75) + passed(size, below, 1.25)
    code += passed(size, below, 1.75) + passed(size, below, 2.5) + passed(size, below, 3.5)
    code += passed(size, below, 5.0)
    code = tl.where(below & (code > 0), code + 8, code)
    code = tl.where(is_zero[:, None], 0, code)
    store_codes(pointer, tl.reshape(code, [D_PAD]), D, D_PAD, 4)
    group = tl.arange(0, D_PAD // GROUP)
    tl.store(pointer + BYTES + group, exponent.to(tl.uint8), mask=group * GROUP < D)


@triton.jit
def store_steps(
    pointer, x, D: tl.constexpr, D_PAD: tl.constexpr, BITS: tl.constexpr, BYTES: tl.constexpr
):
    """Numbers [D_PAD] as steps above the least of the first D, then the step and the least."""
    here = tl.arange(0, D_PAD) < D
    least = tl.min(tl.where(here, x, float("inf")), 0)
    most = tl.max(tl.where(here, x, float("-inf")), 0)
    LEVELS: tl.constexpr = 2**BITS - 1
    step = tl.maximum(tl.div_rn(most - least, LEVELS * 1.0), LEAST_STEP)
    steps = (tl.div_rn(x - least, tl.zeros([D_PAD], dtype=tl.float32) + step) + 0.5).to(tl.int32)
    code = tl.where(here, tl.minimum(tl.maximum(steps, 0), LEVELS), 0)
    store_codes(pointer, code, D, D_PAD, BITS)
    store_half(pointer + BYTES, step)
    store_half(pointer + (BYTES + 2), least)


@triton.jit
def write_packed_kernel(
    key_ptr,
    length_ptr,
    value_ptr,
    cache_ptr,
    slots_ptr,
    borders_ptr,
    key_token,
    key_head,
    value_token,
    value_head,
    cache_block,
    cache_slot,
    cache_head,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    KEY_BITS: tl.constexpr,
    VALUE_BITS: tl.constexpr,
    KEY_BYTES: tl.constexpr,
    VALUE_START: tl.constexpr,
    VALUE_BYTES: tl.constexpr,
    GROUPED: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Program (token, KV head): packs a key and a value into its slot's row.

    ``key_ptr``: keys, rotated where the format does, and divided by ``length_ptr`` float32 [T, G]
    where it keeps lengths. A token with a negative slot is skipped.
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(slots_ptr + token)
    if slot < 0:
        return
    at = slot // BLOCK_SIZE * cache_block + slot % BLOCK_SIZE * cache_slot + head * cache_head
    row = cache_ptr + at
    dims = tl.arange(0, D_PAD)
    key = tl.load(key_ptr + token * key_token + head * key_head + dims, mask=dims < D, other=0)
    key = key.to(tl.float32)
    if GROUPED:
        store_groups(row, key, D, D_PAD, KEY_BYTES)
    elif KEY_BITS == 8:
        store_codes(row, encode(key, FORMAT), D, D_PAD, 8)
    else:
        code = tl.zeros([D_PAD], dtype=tl.int32)
        for border in tl.static_range(2**KEY_BITS - 1):
            code += (key >= tl.load(borders_ptr + border)).to(tl.int32)
        store_codes(row, tl.where(dims < D, code, 0), D, D_PAD, KEY_BITS)
        store_half(row + KEY_BYTES, tl.load(length_ptr + token * tl.num_programs(1) + head))
    value_at = token * value_token + head * value_head
    value = tl.load(value_ptr + value_at + dims, mask=dims < D, other=0).to(tl.float32)
    if GROUPED:
        store_groups(row + VALUE_START, value, D, D_PAD, VALUE_BYTES)
    else:
        store_steps(row + VALUE_START, value, D, D_PAD, VALUE_BITS, VALUE_BYTES)


def write_packed(
    key: torch.Tensor,
    value: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    geometry: Geometry,
) -> None:
    """Packs keys and values [T, G, D] into rows of ``cache``, uint8 [N, B, G, bytes].

    ``slot_mapping``: int64 [<= T]; tokens past its end and those with -1 are skipped. As in the
    release, keys are rotated by a matrix product in float32 before the kernel.
    """
    tokens, form, device = len(slot_mapping), row_format(geometry), cache.device
    if tokens == 0:
        return
    key, value = key[:tokens], value[:tokens]
    length = borders = None
    if form.rotates:
        key = key.float()
        if not form.grouped:
            entries = codebook(form.size, form.key_bits, device)
            borders = (entries[1:] + entries[:-1]) / 2
            length = key.norm(dim=-1)
            key = key / (length + 1e-8)[..., None]
        key = key @ rotation(form.size, device)
    write_packed_kernel[(tokens, geometry.num_kv_heads)](
        key,
        length,
        value,
        cache,
        slot_mapping,
        borders,
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        *cache.stride()[:3],
        BLOCK_SIZE=geometry.block_size,
        **form.arguments(),
    )


@triton.jit
def load_codes(rows, here, D: tl.constexpr, D_PAD: tl.constexpr, BITS: tl.constexpr):
    """Codes [N, D_PAD] of rows of bytes at pointers [N]; 0 where there are none."""
    dims = tl.arange(0, D_PAD)[None, :]
    bit = dims * BITS
    mask = here[:, None] & (dims < D)
    word = tl.load(rows[:, None] + bit // 8, mask=mask, other=0).to(tl.int32)
    if BITS == 3:
        # The last bits of some codes are in the next byte.
        cut = mask & (bit % 8 > 5)
        word |= tl.load(rows[:, None] + (bit // 8 + 1), mask=cut, other=0).to(tl.int32) << 8
    return (word >> (bit % 8)) & (2**BITS - 1)


@triton.jit
def load_half(pointers, here):
    """float16 numbers [N] in two bytes each, as float32."""
    low = tl.load(pointers, mask=here, other=0).to(tl.uint16)
    high = tl.load(pointers + 1, mask=here, other=0).to(tl.uint16)
    return (low | (high << 8)).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def load_groups(rows, here, D: tl.constexpr, D_PAD: tl.constexpr, BYTES: tl.constexpr):
    """FP4 numbers [N, D_PAD] times their groups' scales, in float32: exact."""
    code = load_codes(rows, here, D, D_PAD, 4)
    half = (code & 1).to(tl.float32) * 0.5
    power = (code & 7) >> 1
    size = tl.where(power == 0, half, (1.0 + half) * ((1 << power) >> 1).to(tl.float32))
    dims = tl.arange(0, D_PAD)[None, :]
    mask = here[:, None] & (dims < D)
    exponent = tl.load(rows[:, None] + (BYTES + dims // GROUP), mask=mask, other=0).to(tl.int32)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    return tl.where(code < 8, size, -size) * scale


@triton.jit
def load_packed_key(
    rows,
    here,
    codebook_ptr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BITS: tl.constexpr,
    BYTES: tl.constexpr,
    GROUPED: tl.constexpr,
    FORMAT: tl.constexpr,
):
    """Keys [N, D_PAD] of rows, in float32, rotated where the format does; 0 where there are none.

    A vector of codebook entries gets length 1 before it is multiplied by the key's length.
    """
    if GROUPED:
        key = load_groups(rows, here, D, D_PAD, BYTES)
    elif BITS == 8:
        code = load_codes(rows, here, D, D_PAD, BITS)
        key = decode(code.to(tl.uint8), tl.float32, FORMAT)
    else:
        code = load_codes(rows, here, D, D_PAD, BITS)
        mask = here[:, None] & (tl.arange(0, D_PAD) < D)[None, :]
        entries = tl.load(codebook_ptr + code, mask=mask, other=0)
        length = tl.sqrt(tl.sum(entries * entries, 1) + 1e-16)
        key = entries * (load_half(rows + BYTES, here) / length)[:, None]
    return key


@triton.jit
def load_packed_value(
    rows,
    here,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BITS: tl.constexpr,
    BYTES: tl.constexpr,
    GROUPED: tl.constexpr,
):
    """Values [N, D_PAD] of rows (pointers to the values' codes), in float32."""
    if GROUPED:
        value = load_groups(rows, here, D, D_PAD, BYTES)
    else:
        step = load_half(rows + BYTES, here)
        least = load_half(rows + (BYTES + 2), here)
        code = load_codes(rows, here, D, D_PAD, BITS).to(tl.float32)
        value = code * step[:, None] + least[:, None]
    return value
