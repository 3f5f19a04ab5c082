"""What Triton's interpreter makes of bfloat16 and fp8: prints what each operation gives, as JSON.

``python interpreter_arithmetic.py [repaired]``; a program of its own, because Triton is told to
interpret before it is imported.
"""

from __future__ import annotations

import json
import sys

from conformance.devices.triton import interpreter

interpreter.choose()

import torch  # noqa: E402 - after `choose`
import triton  # noqa: E402 - likewise
import triton.language as tl  # noqa: E402 - likewise

N = 16
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2)


@triton.jit
def cast_kernel(x_ptr, out_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(tl.bfloat16))


@triton.jit
def widen_kernel(x_ptr, out_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(tl.float32))


@triton.jit
def binary_kernel(x_ptr, y_ptr, sum_ptr, less_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    tl.store(sum_ptr + at, x * y + x)
    tl.store(less_ptr + at, (x < y).to(tl.int32))


@triton.jit
def dot_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(out_ptr + at, tl.dot(tl.load(x_ptr + at), tl.load(y_ptr + at)))


@triton.jit
def total_kernel(x_ptr, out_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(out_ptr + tl.arange(0, N), tl.sum(tl.load(x_ptr + at), 1))


@triton.jit
def boolean_kernel(x_ptr, both_ptr, either_ptr, N: tl.constexpr, ON: tl.constexpr):  # noqa: N803
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(both_ptr + at, (x >= 2 and x < 9).to(tl.int32))
    tl.store(either_ptr + at, (x < 2 or x >= 9).to(tl.int32))
    if ON and tl.load(x_ptr + 1) == 1:
        tl.store(both_ptr + 15, 7)


def blocks() -> bool:
    """Whether ``and`` and ``or`` of blocks are those of their elements, and of scalars Python's."""
    x = torch.arange(N, dtype=torch.int32)
    both, either = torch.empty_like(x), torch.empty_like(x)
    boolean_kernel[(1,)](x, both, either, N=N, ON=True)
    inside = ((x >= 2) & (x < 9)).int()
    inside[15] = 7
    return torch.equal(both, inside) and torch.equal(either, ((x < 2) | (x >= 9)).int())


@triton.jit
def masked_kernel(x_ptr, out_ptr, N: tl.constexpr):  # noqa: N803 - Triton's
    seen = tl.load(x_ptr + 3)
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at), mask=(seen >= 0) & (seen < N))


def masks() -> bool:
    """Whether a block is stored under one comparison for all of it."""
    x = torch.arange(N, dtype=torch.int32)
    out = torch.zeros_like(x)
    try:
        masked_kernel[(1,)](x, out, N=N)
    except Exception:  # the interpreter's own, which not all versions name
        return False
    return torch.equal(out, x)


def results() -> dict[str, bool]:
    """Which operations give what torch gives."""
    draw = torch.Generator().manual_seed(1)
    x32 = torch.randn(N, generator=draw)
    # Ties between two bfloat16 numbers, both ways; NaN, infinity, and what rounds up to it.
    x32[:6] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, torch.nan, torch.inf, 3.4e38])
    x, y = (torch.randn(N, generator=draw).bfloat16() for _ in range(2))
    a, b = (torch.randn(N, N, generator=draw).bfloat16() for _ in range(2))
    cast, total = torch.empty(N, dtype=torch.bfloat16), torch.empty(N, dtype=torch.bfloat16)
    wide, product, less = torch.empty(N), torch.empty(N, N), torch.empty(N, dtype=torch.int32)
    cast_kernel[(1,)](x32, cast, N=N)
    widen_kernel[(1,)](x, wide, N=N)
    binary_kernel[(1,)](x, y, total, less, N=N)
    dot_kernel[(1,)](a, b, product, N=N)
    rows = torch.empty(N, dtype=torch.bfloat16)
    total_kernel[(1,)](a, rows, N=N)
    return {
        "cast": torch.equal(cast.nan_to_num(7.0), x32.bfloat16().nan_to_num(7.0)),
        "widen": torch.equal(wide, x.float()),
        "arithmetic": torch.equal(total, x * y + x),
        "comparison": torch.equal(less, (x < y).int()),
        "sum": bool(torch.allclose(rows.float(), a.float().sum(1), rtol=0.02, atol=0.05)),
        "blocks": blocks(),
        "masks": masks(),
        "float8": all(float8(encoding) for encoding in FLOAT8),
        "dot": bool(torch.allclose(product, a.float() @ b.float(), atol=1e-5)),
    }


def float8(encoding: torch.dtype) -> bool:
    """Whether storing rounds to nearest even and saturates, and loading loses nothing."""
    limit = torch.finfo(encoding).max
    x = torch.randn(N, generator=torch.Generator().manual_seed(2)) * limit / 2
    x[:3] = torch.tensor([2 * limit, -3 * limit, torch.nan])
    stored, back = torch.empty(N, dtype=encoding), torch.empty(N)
    widen_kernel[(1,)](x, stored, N=N)
    widen_kernel[(1,)](stored, back, N=N)
    want = x.clamp(-limit, limit).to(encoding).float()
    return all(torch.equal(y.float().nan_to_num(7.0), want.nan_to_num(7.0)) for y in (stored, back))


if __name__ == "__main__":
    if "repaired" in sys.argv:
        interpreter.repair()
    print(json.dumps(results()))  # noqa: T201 - its answer
