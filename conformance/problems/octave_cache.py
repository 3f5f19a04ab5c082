"""What the caches of ROCM_OCTAVE hold: a key and a value of 256 elements in one row of bytes.

Written from the format's description in release 0.33.0, below
https://github.com/vllm-project/vllm/blob/v0.33.0/: docs/design/rocm_octave.md,
csrc/attention/octave_format.cuh and vllm/v1/attention/ops/rocm_octave.py.

Elements get fixed signs and are rotated by Hadamard matrices: values as a whole, keys in blocks of
64 or, in the compact format, as a whole. A block's coordinates, divided by their root mean square,
become the nearest entries of a codebook of 8 bytes (3 bits a code) or 16 (4 bits): the first block
of keys, which is that of RoPE, and values of k3v4, have 4. An entry stands for its product with the
block's scale, which makes the product of the block and what stands for it the block's square.

A row is: codes of 4 bits of the key, of 3 bits, codes of the value, a float16 scale for each block.
Eight codes of 4 bits are 4 bytes: byte ``j`` has code ``j`` and, above it, code ``j + 4``. Codes of
3 bits are their lower two, 16 codes in 4 bytes (byte ``j`` has codes ``j``, ``j + 4``, ``j + 8``,
``j + 12``), and then their highest, 32 codes in 4 bytes.

Everything is in float64. As with other packed rows, problems have no keys and values whose codes or
scales hang on the last places of a kernel's float32: see ``packed_caches``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from conformance.problems import packed_caches
from conformance.problems.packed_caches import U32, settled_rows

HEAD_SIZE, BLOCK = 256, 64
# The stored scale is that of a codebook whose entries are divided by this.
ONE = 64.0
CODEBOOKS = {
    3: (-127, -79, -45, -14, 14, 45, 79, 127),
    4: (-126, -95, -74, -58, -43, -30, -18, -6, 6, 18, 30, 43, 58, 74, 95, 126),
}
# What a coordinate of the root mean square is on a codebook's scale.
UNIT_ENTRY = {3: 59.0, 4: 46.0}
LEAST_MEAN = 1e-12
SIGN_SEED = 0x5E17
# Roundings of a coordinate in float32: eight of a rotation's sums, its factor, a sum of squares and
# its root, the quotient and its product, twice over.
ROUNDINGS = 32
# A prefill's queries are so many steps at most, and the largest magnitude at least this.
LEVELS, SMALLEST_LARGEST = 127, 1e-8


@dataclass(frozen=True)
class Format:
    """The bits of each block of a key's and of a value's codes."""

    key: tuple[int, ...]
    value: int

    @property
    def is_compact(self) -> bool:
        return len(self.key) == 1

    @property
    def row_bytes(self) -> int:
        """The bytes that are written; a row is filled up to a multiple of 4 or 8 besides."""
        bits = sum(self.key) * (HEAD_SIZE // len(self.key)) + self.value * HEAD_SIZE
        return bits // 8 + 2 * (len(self.key) + 1)


FORMATS = {
    "octave_k3v4": Format((4, 3, 3, 3), 4),
    "octave_k3v3": Format((4, 3, 3, 3), 3),
    "octave_k3v3_compact": Format((3,), 3),
}


@cache
def signs() -> torch.Tensor:
    """1 or -1 for each element, keys and values alike: -1 where a seeded draw is 1."""
    draw = torch.Generator().manual_seed(SIGN_SEED)
    drawn = torch.randint(0, 2, (HEAD_SIZE,), generator=draw, dtype=torch.int64)
    return (1 - 2 * drawn).double()


@cache
def rotation(block: int) -> torch.Tensor:
    """What rows are multiplied by, in blocks of so many elements: orthonormal, [256, 256]."""
    hadamard = packed_caches.rotation(block)
    return signs()[:, None] * torch.kron(torch.eye(HEAD_SIZE // block).double(), hadamard)


def of_keys(name: str) -> torch.Tensor:
    """The rotation of keys, and of queries, of a cache of this name."""
    return rotation(HEAD_SIZE if FORMATS[name].is_compact else BLOCK)


def of_values() -> torch.Tensor:
    """The rotation of values."""
    return rotation(HEAD_SIZE)


@dataclass(frozen=True)
class Coded:
    """Blocks of rows as they are stored: ``codes`` [..., blocks, size] and the ``scale`` [...,
    blocks, 1] of each, in float16; ``exact`` is that before it was rounded. ``bits`` of each block.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    exact: torch.Tensor
    bits: tuple[int, ...]

    @property
    def numbers(self) -> torch.Tensor:
        """What they stand for, rotated, [..., 256] in float64."""
        entries = torch.stack(
            [
                _codebook(bits, self.codes)[self.codes[..., number, :]]
                for number, bits in enumerate(self.bits)
            ],
            -2,
        )
        return (entries * (self.scale.double() / ONE)).flatten(-2)


def coded_key(key: torch.Tensor, name: str) -> Coded:
    """Keys [..., 256] in a cache of this name."""
    return _coded(key, of_keys(name), FORMATS[name].key)


def coded_value(value: torch.Tensor, name: str) -> Coded:
    """Values [..., 256] in a cache of this name."""
    return _coded(value, of_values(), (FORMATS[name].value,))


def stored_key(key: torch.Tensor, name: str) -> torch.Tensor:
    """Keys [..., 256] as attention reads them, rotated back (float64)."""
    return coded_key(key, name).numbers @ of_keys(name).T.to(key.device)


def stored_value(value: torch.Tensor, name: str) -> torch.Tensor:
    """Values [..., 256] as attention reads them, rotated back (float64)."""
    return coded_value(value, name).numbers @ of_values().T.to(value.device)


def rows(key: torch.Tensor, value: torch.Tensor, name: str) -> torch.Tensor:
    """The bytes that are written for keys and values [..., 256]: [..., ``row_bytes``]."""
    of_key, of_value = coded_key(key, name), coded_value(value, name)
    wide = [n for n, bits in enumerate(of_key.bits) if bits == 4]
    narrow = [n for n, bits in enumerate(of_key.bits) if bits == 3]
    parts = [_packed(of_key.codes[..., wide, :], 4)] if wide else []
    parts.append(_packed(of_key.codes[..., narrow, :], 3))
    parts.append(_packed(of_value.codes, of_value.bits[0]))
    scales = torch.cat([of_key.scale, of_value.scale], -2).flatten(-2)
    return torch.cat([*parts, scales.contiguous().view(torch.uint8)], -1)


def settled_key(key: torch.Tensor, name: str) -> torch.Tensor:
    """Keys that every kernel stores alike, each within a few last places of the given one."""
    return settled_rows(key, lambda x: _is_open(x, of_keys(name), FORMATS[name].key))


def settled_value(value: torch.Tensor, name: str) -> torch.Tensor:
    """Values that every kernel stores alike."""
    return settled_rows(value, lambda x: _is_open(x, of_values(), (FORMATS[name].value,)))


def _blocks(x: torch.Tensor, turn: torch.Tensor, count: int) -> torch.Tensor:
    return _split(x.double() @ turn.to(x.device), count, HEAD_SIZE // count)


def _split(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """The last axis as several."""
    return x.reshape(*x.shape[:-1], *sizes)


def _codebook(bits: int, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(CODEBOOKS[bits], dtype=torch.float64, device=like.device)


def _middles(bits: int, like: torch.Tensor) -> torch.Tensor:
    entries = _codebook(bits, like)
    return (entries[1:] + entries[:-1]) / 2


def _coded(x: torch.Tensor, turn: torch.Tensor, bits: tuple[int, ...]) -> Coded:
    blocks = _blocks(x, turn, len(bits))
    codes, scales = [], []
    for number, width in enumerate(bits):
        block = blocks[..., number, :]
        square = (block**2).sum(-1, keepdim=True)
        mean = (square / block.shape[-1]).sqrt().clamp_min(LEAST_MEAN)
        code = torch.bucketize(block / mean * UNIT_ENTRY[width], _middles(width, block))
        product = (block * _codebook(width, block)[code]).sum(-1, keepdim=True)
        scale = torch.where(product > 0, square / product.clamp_min(1e-300), 0.0) * ONE
        codes.append(code)
        scales.append(scale)
    exact = torch.stack(scales, -2)
    return Coded(torch.stack(codes, -2), exact.float().half(), exact, bits)


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The bytes of codes [..., blocks, size]."""
    flat = codes.flatten(-2).int()
    if bits == 4:
        return _planes(flat, 8, 4, 4)
    return torch.cat([_planes(flat & 3, 16, 4, 2), _planes(flat >> 2, 32, 4, 1)], -1)


def _planes(numbers: torch.Tensor, count: int, width: int, bits: int) -> torch.Tensor:
    """Each ``count`` numbers as ``width`` bytes: byte j has each ``width``-th from j on."""
    split = _split(numbers, numbers.shape[-1] // count, count // width, width)
    places = bits * torch.arange(count // width, device=numbers.device)
    made: torch.Tensor = (split << places[:, None]).sum(-2).flatten(-2)
    return made.to(torch.uint8)


def _is_open(x: torch.Tensor, turn: torch.Tensor, bits: tuple[int, ...]) -> torch.Tensor:
    """Which rows [...] float32 may store in two ways."""
    blocks = _blocks(x, turn, len(bits))
    length = blocks.norm(dim=-1, keepdim=True)
    mean = length / blocks.shape[-1] ** 0.5
    is_open = torch.zeros(blocks.shape[:-2], dtype=torch.bool, device=x.device)
    for number, width in enumerate(bits):
        block, own = blocks[..., number, :], mean[..., number, :]
        middles = own[..., None] * _middles(width, block) / UNIT_ENTRY[width]
        apart = (block[..., None] - middles).abs()
        error = ROUNDINGS * U32 * (length[..., number, :] + block.abs())
        is_open |= (apart < error[..., None]).flatten(-2).any(-1)
    scale = _coded(x, turn, bits).exact
    return is_open | packed_caches.rounds_apart(scale)[..., 0].any(-1)


def rounded_query(query: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries [..., 256] as a prefill multiplies them by cached keys, rotated, and how far kernels
    may be from that (float64).

    They become float16, and then multiples of the 127th part of their largest magnitude. One that
    lies next to the middle of two numbers may be rounded to either.
    """
    turned = query.double() @ of_keys(name).to(query.device)
    length: torch.Tensor = query.double().norm(dim=-1, keepdim=True)
    error = ROUNDINGS * U32 * length
    low, middle, high = ((turned + side * error).float().half().double() for side in (-1, 0, 1))
    largest = middle.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_LARGEST)
    wider = torch.maximum(low.abs(), high.abs()).amax(-1, keepdim=True) - largest
    steps, step = middle * LEVELS / largest, largest / LEVELS
    apart = (high - low) / step + steps.abs() * (2.0**-20 + 2 * wider.abs() / largest)
    moved = ((steps + apart).round() - (steps - apart).round()) * step
    # The step itself is as far off as the largest magnitude is.
    moved = moved + steps.abs() * (wider.abs() + 2.0**-20 * largest) / LEVELS
    return steps.round() * step, moved
