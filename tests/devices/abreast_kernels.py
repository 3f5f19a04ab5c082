"""Kernels whose programs run abreast, part, or must not run abreast."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def blocks(x, out, M: tl.constexpr, N: tl.constexpr):  # noqa: N803
    """Every way to make a block, to move its elements and to reduce it."""
    program = tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    a = tl.load(x + program * M * N + rows[:, None] * N + columns[None, :])
    b = tl.load(x + rows[:, None] * N + columns[None, :])
    shift = tl.load(x + program)
    product = tl.dot(a, tl.trans(b), out_dtype=tl.float32)
    half = (a * shift + 0.5).to(tl.bfloat16)
    summed = tl.sum(half, 1) + tl.max(a, 1) + tl.argmax(a, 1) + tl.sum(tl.cumsum(a.T, 0, True), 0)
    summed += tl.sum(a.to(tl.float32)) + tl.min(a) + (-shift)
    pairs = tl.join(rows, rows + program).reshape(2 * M)
    left, right = tl.split(pairs.reshape(M, 2))
    moved = tl.gather(a, tl.broadcast_to(left[:, None] % N, (M, N)), 1)
    both = tl.cat(rows, right, can_reorder=True)
    whole = tl.where((a > shift) & (columns < N - 1)[None, :], a, moved).to(tl.float32)
    whole += tl.expand_dims(summed, -1) + tl.sum(both, 0) + tl.full((M, N), program, tl.float32)
    whole += tl.sum(tl.exp(product), 1, keep_dims=True) + tl.sigmoid(tl.zeros((M, N), tl.float32))
    encoded = (whole / 64).to(tl.float8e4nv).to(tl.float32) + tl.fma(whole, whole, whole)
    tl.store(out + program * M * N + rows[:, None] * N + columns[None, :], encoded)


@triton.jit
def parts(x, out, N: tl.constexpr):  # noqa: N803
    """Loops, conditions and returns that depend on the program."""
    program = tl.program_id(0)
    length = program % 5
    if length == 3:
        return
    total = tl.zeros((N,), tl.float32)
    for number in range(length, 2 * length + 1):
        total += tl.load(x + number * N + tl.arange(0, N))
    low, high = 0, 64
    while low < high:
        middle = (low + high) // 2
        if middle <= 3 * program:
            low = middle + 1
        else:
            high = middle
    first = tl.load(x + program)
    tl.store(out + program * N + tl.arange(0, N), total + low, mask=first > 0.5)


@triton.jit
def neighbours(x, out, N: tl.constexpr):  # noqa: N803
    """Each program also writes what the next ones write."""
    program = tl.program_id(0)
    at = tl.arange(0, N)
    for behind in range(3):
        tl.store(out + program * N + behind * N + at, tl.load(x + program * N + at) + behind)
        tl.store(out + program * N + behind * N, program - 0.5)


@triton.jit
def running_total(x, out, N: tl.constexpr):  # noqa: N803
    """Each program reads what the one before it wrote."""
    program = tl.program_id(0)
    at = tl.arange(0, N)
    before = tl.load(out + program * N + at)
    tl.store(out + (program + 1) * N + at, before + tl.load(x + program * N + at))


@triton.jit
def counts(x, out, N: tl.constexpr):  # noqa: ARG001, N803 - launched as the others are
    """Each program learns how many came before it."""
    before = tl.atomic_add(out, 1.0)
    tl.store(out + N + tl.program_id(0), before)


@triton.jit
def strays(x, out, N: tl.constexpr):  # noqa: N803
    """The last program reads past the end."""
    program = tl.program_id(0)
    at = tl.arange(0, N)
    tl.store(out + program * N + at, tl.load(x + (program + 1) * N * N - N // 2 + at))


@triton.jit
def refuses(x, out, N: tl.constexpr):  # noqa: N803
    """A program in the middle ends with an error."""
    program = tl.program_id(0)
    tl.store(out + program * N + tl.arange(0, N), tl.load(x + tl.arange(0, N)))
    if program == 5:
        tl.static_assert(N == 0, "no such block")
