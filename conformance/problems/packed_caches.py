"""What caches hold that pack a key and a value into one row of bytes: TurboQuant and UltraQuant.

Written from the formats of release 0.33.0, below
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/: TurboQuant's numbers of bits and codebook
are in ``model_executor/layers/quantization/turboquant/`` (config.py, centroids.py), its rows in
``v1/attention/ops/triton_turboquant_store.py``; UltraQuant's are in
``v1/attention/ops/ultraquant/`` (format.py, triton_store.py).

TurboQuant. A key is fp8 (E4M3, without a scale), or: divided by its length, rotated by a Hadamard
matrix, each coordinate replaced by the nearest entry of a codebook; on reading, that vector gets
length 1 and is multiplied by the key's length, which is kept in float16. A value's elements are
equal steps between its least and its greatest, both steps and least in float16.

UltraQuant. A rotated key, and a value as it is, are FP4 (E2M1) in groups of 32 with a power of two
as scale; the middle between two numbers is the lower one. Queries are rotated and rounded to fp8.

Everything is in float64. Kernels compute in float32, where a rotated coordinate near the middle of
two entries may fall to either side. So problems have no such keys and values: :func:`settled_key`
and :func:`settled_value` move elements by a last place until none is left. Of a query there would
be too many; :func:`rounded_query` says how far each coordinate may be off instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch

U32 = 2.0**-24
# Bits of a key's coordinate (8: fp8) and of a value's element.
BITS = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
}
FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
GROUP = 32  # elements of UltraQuant that have a scale in common
SCALE_FACTOR = 0.156  # UltraQuant's scale as a part of a group's largest magnitude
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# TurboQuant's codebook: Lloyd's iterations for a normal distribution, as the release stops them.
ITERATIONS, TOLERANCE, REACH, INTERVALS = 200, 1e-10, 3.5, 200
# A step of values is no smaller, so that equal elements are not divided by 0; in float16 it is 0.
LEAST_STEP = 1e-8
# How far apart, in steps, roundings of a value's quotient and of its step may put it.
VALUE_MARGIN = 2.0**-17
# After how many moves, until every kernel stores a key alike, elements move by one more place.
MOVES = 32


@cache
def rotation(size: int) -> torch.Tensor:
    """The orthonormal, symmetric matrix that keys are rotated by, [size, size].

    For a power of two Sylvester's Hadamard matrix. The release has none for another size, and fails
    there; then it is made of blocks, one for each power of two in the size, largest first.
    """
    made, at = torch.zeros(size, size, dtype=torch.float64), 0
    for power in (1 << bit for bit in range(size.bit_length() - 1, -1, -1) if size >> bit & 1):
        block = torch.ones(1, 1, dtype=torch.float64)
        while len(block) < power:
            block = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), block)
        made[at : at + power, at : at + power] = block / math.sqrt(power)
        at += power
    return made


@cache
def codebook(size: int, bits: int) -> torch.Tensor:
    """TurboQuant's ``2**bits`` entries, ascending, in float32.

    Those of a normal distribution with variance 1 / size, whose integrals are sums over trapezoids.
    """
    sigma = size**-0.5
    ends, count = REACH * sigma, 1 << bits
    number = torch.arange(count, dtype=torch.float64)
    entries: torch.Tensor = -ends + 2 * ends * (number + 0.5) / count
    weight = torch.ones(INTERVALS + 1, dtype=torch.float64)
    weight[0] = weight[-1] = 0.5
    for _ in range(ITERATIONS):
        inner = (entries[1:] + entries[:-1]) / 2
        outer = torch.tensor([3 * ends], dtype=torch.float64)
        edges = torch.cat([-outer, inner, outer])
        step = (edges[1:] - edges[:-1]) / INTERVALS
        x = edges[:-1, None] + step[:, None] * torch.arange(INTERVALS + 1)
        density = torch.exp(-(x**2) / (2 * sigma**2)) * weight
        mass = density.sum(1)
        moved = torch.where(mass > 0, (density * x).sum(1) / mass, entries)
        if float((moved - entries).abs().max()) < TOLERANCE:
            break
        entries = moved
    return entries.float()


@cache
def borders(size: int, bits: int) -> torch.Tensor:
    """The middles between neighbouring entries of the codebook, in float32."""
    entries = codebook(size, bits)
    return (entries[1:] + entries[:-1]) / 2


# ---- what is read --------------------------------------------------------------------------------


def stored_key(key: torch.Tensor, name: str) -> torch.Tensor:
    """Keys [..., D] as attention reads them from a cache of this name, not rotated (float64)."""
    bits = BITS.get(name, (0, 0))[0]
    if bits == 8:
        return key.float().clamp(-FP8_MAX, FP8_MAX).to(FP8).double()
    turn = _turn(key)
    if name == "ultraquant_4bit":
        return _in_groups(key.double() @ turn) @ turn
    size, wide = key.shape[-1], key.double()
    length = wide.norm(dim=-1, keepdim=True)
    turned = (wide / (length + 1e-8)) @ turn
    where = torch.bucketize(turned, borders(size, bits).to(key.device).double(), right=True)
    entries = codebook(size, bits).to(key.device).double()[where]
    entries = entries / torch.sqrt((entries**2).sum(-1, keepdim=True) + 1e-16)
    restored: torch.Tensor = length.half().double() * entries @ turn
    return restored


def stored_value(value: torch.Tensor, name: str) -> torch.Tensor:
    """Values [..., V] as attention reads them from a cache of this name (float64)."""
    if name == "ultraquant_4bit":
        return _in_groups(value.double())
    steps, least, step = _steps(value, name)
    return (steps + 0.5).floor() * step.half().double() + least.half().double()


def rounded_query(query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries [..., D], rotated and rounded to fp8, and how far kernels may be from that (float64).

    A coordinate that lies next to the middle of two numbers may be rounded to either.
    """
    turned, error = query.double() @ _turn(query), _error(query)
    low, rounded, high = (
        (turned + side * error).float().clamp(-FP8_MAX, FP8_MAX).to(FP8).double()
        for side in (-1, 0, 1)
    )
    return rounded, high - low


def _turn(x: torch.Tensor) -> torch.Tensor:
    return rotation(x.shape[-1]).to(x.device)


def _steps(value: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How many steps each element is above the least, the least, and a step."""
    levels = (1 << BITS[name][1]) - 1
    wide = value.double()
    least, most = wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
    step = ((most - least) / levels).clamp_min(LEAST_STEP)
    return ((wide - least) / step).clamp_max(levels), least, step


def _in_groups(x: torch.Tensor) -> torch.Tensor:
    """Numbers [..., D] as FP4 times their groups' powers of two."""
    grouped, scale = _groups(x)
    numbers = torch.tensor([*(-n for n in FP4[:0:-1]), *FP4], dtype=torch.float64, device=x.device)
    middles = (numbers[1:] + numbers[:-1]) / 2
    where = torch.bucketize(grouped / scale.clamp_min(2.0**-200), middles)
    return (numbers[where] * scale).flatten(-2)[..., : x.shape[-1]]


def _groups(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(groups [..., D / 32, 32], their scales [..., D / 32, 1])``; the last may be filled up."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % GROUP))
    grouped = padded.reshape(*x.shape[:-1], -1, GROUP)
    largest = grouped.abs().amax(-1, keepdim=True)
    power = torch.floor(torch.log2(SCALE_FACTOR * largest.clamp_min(2.0**-200)) + 0.5)
    # The byte of the exponent is 0 for a scale that is too small for it: then all is 0.
    return grouped, torch.where(power < -126, 0.0, torch.exp2(power))


# ---- what must not hang on the last place --------------------------------------------------------


def settled_key(key: torch.Tensor, name: str) -> torch.Tensor:
    """Keys that every kernel stores alike, each within a few last places of the given one."""
    if BITS.get(name, (0, 0))[0] == 8:
        return key
    return settled_rows(key, lambda x: _is_open(x, name))


def settled_value(value: torch.Tensor, name: str) -> torch.Tensor:
    """Values that every kernel stores alike."""
    if name == "ultraquant_4bit":
        # Quotients by a power of two are exact, and no number of 16 bits is near the place where
        # the next power begins: a test looks at all of them.
        return value
    for _ in range(value.shape[-1]):
        steps, least, step = _steps(value, name)
        fraction = steps + 0.5
        near = (fraction - fraction.round()).abs() < VALUE_MARGIN
        # The greatest element decides the step; others are moved by themselves.
        greatest = value == value.amax(-1, keepdim=True)
        near = torch.where(rounds_apart(step), greatest, near & ~greatest & (value != least))
        if not bool(near.any()):
            return value
        value = _places_up(value, near.to(torch.int16))
    raise AssertionError(f"values of {name} that always lie between two steps")


def settled_rows(x: torch.Tensor, is_open: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Moves an element of each row that is open, any of the row's, and further the longer it takes.

    A rotated row has as many coordinates that may be open as it has elements, each with its share
    of every move: by single places some long rows would never be closed. Rows are rotated in parts,
    so no element is left out.
    """
    draw = torch.Generator().manual_seed(x.shape[-1])
    rows = x.flatten(0, -2).clone()
    left = torch.arange(len(rows))
    for turn in range(4 * x.shape[-1]):
        left = left[is_open(rows[left])]
        if not len(left):
            return rows.view(x.shape)
        places = torch.zeros(len(left), x.shape[-1], dtype=torch.int16)
        drawn = torch.randint(x.shape[-1], (len(left), 1), generator=draw)
        rows[left] = _places_up(rows[left], places.scatter_(-1, drawn, 1 + turn // MOVES))
    raise AssertionError("rows that always lie between two codes")


def _places_up(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The elements with the next larger magnitudes of their dtype, so many places up each."""
    return (x.view(torch.int16) + places).view(x.dtype)


def _error(x: torch.Tensor) -> torch.Tensor:
    """How far float32 may be off in a rotated coordinate [..., 1]: a dot product's bound."""
    size = x.shape[-1]
    length: torch.Tensor = x.double().norm(dim=-1, keepdim=True)
    return length * (2 * (size + 8) * U32)


def _is_open(key: torch.Tensor, name: str) -> torch.Tensor:
    """Which keys [...] float32 may store in two ways."""
    size, wide = key.shape[-1], key.double()
    turned = wide @ _turn(key)
    if name == "ultraquant_4bit":
        grouped, scale = _groups(turned)
        middles = torch.tensor([(a + b) / 2 for a, b in zip(FP4[1:], FP4, strict=False)])
        apart = (grouped.abs()[..., None] - scale[..., None] * middles.to(key.device)).abs()
        near = (apart < 2 * _error(key)[..., None, None]) & (scale[..., None] > 0)
        return near.flatten(-3).any(-1) | _has_open_scale(turned)
    length = wide.norm(dim=-1, keepdim=True)
    middles = borders(size, BITS[name][0]).to(key.device).double()
    apart = (turned[..., None] - length[..., None] * middles).abs()
    near = (apart < _error(key)[..., None]).flatten(-2).any(-1)
    is_open: torch.Tensor = (near | rounds_apart(length)[..., 0]) & (length[..., 0] > 0)
    return is_open


def rounds_apart(x: torch.Tensor) -> torch.Tensor:
    """Whether float32's error decides what a number is in float16."""
    low, high = (x * (1 - 2.0**-16)).half(), (x * (1 + 2.0**-16)).half()
    return low != high


def _has_open_scale(turned: torch.Tensor) -> torch.Tensor:
    """Whether the scale of some group may be one power of two or the next."""
    grouped, _ = _groups(turned)
    largest = grouped.abs().amax(-1)
    power = torch.log2(SCALE_FACTOR * largest.clamp_min(2.0**-200)) + 0.5
    return ((power - power.round()).abs() < 2.0**-14).any(-1) & (largest > 0).any(-1)
