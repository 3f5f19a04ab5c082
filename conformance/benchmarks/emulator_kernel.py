"""The benchmark's standard kernel: a tiled matrix product."""

import torch
import triton
import triton.language as tl

TILE = 64


@triton.jit
def product_kernel(a, b, out, n, k, TILE: tl.constexpr):  # noqa: N803 - Triton's language
    """out[i, j] = sum over x of a[i, x] * b[x, j]; row-major, sizes divisible by the tile."""
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, k, TILE):
        inner = start + tl.arange(0, TILE)
        left = tl.load(a + rows[:, None] * k + inner[None])
        right = tl.load(b + inner[:, None] * n + columns[None])
        total = tl.dot(left, right, total)
    tl.store(out + rows[:, None] * n + columns[None], total)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a [m, k] x b [k, n] in float32; every size divisible by 64."""
    out = torch.empty(a.shape[0], b.shape[1])
    grid = (a.shape[0] // TILE, b.shape[1] // TILE)
    product_kernel[grid](a, b, out, b.shape[1], a.shape[1], TILE=TILE)
    return out
