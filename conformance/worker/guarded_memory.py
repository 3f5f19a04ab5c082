"""Poisoned buffers and caches, in which everything that a backend wrote can be seen."""

from __future__ import annotations

import torch

CHUNK = 1 << 28  # bytes compared at a time
# What fills caches of bytes. 0xFF is NaN in float16 and in fp8; 0x7B a large number in both.
BYTES = {"zero": 0, "huge": 0x7B}


class Guarded:
    """A poisoned buffer [rows, heads, size] of which only [:tokens, :heads, :size] may change."""

    def __init__(
        self, buffer: torch.Tensor, tokens: int, heads: int, size: int, poison: str
    ) -> None:
        # An emulated device's empty memory is NaN of its own kind, by which it knows who reads it.
        if poison != "nan" or not is_nan(buffer):
            fill(buffer, poison)
        self._buffer = buffer
        self._before = buffer.clone()
        self._tokens = tokens
        self.view = buffer[:, :heads, :size]

    def written(self) -> torch.Tensor:
        """The rows that the backend has to write, contiguous."""
        view = self.view if self.view.dim() == self._buffer.dim() else self.view[..., None]
        return view[: self._tokens].contiguous()

    def violations(self, name: str) -> list[str]:
        """A sentence if anything else changed; ``name`` is what the buffer holds."""
        after, before = as_bytes(self._buffer), as_bytes(self._before)
        changed = (after != before).view(*self._buffer.shape, -1).any(-1)
        heads, size = self.view.shape[1], self.view.shape[2] if self.view.dim() > 2 else 1
        changed[: self._tokens, :heads, :size] = False
        if not bool(changed.any()):
            return []
        row, head, column = (int(i) for i in changed.nonzero()[0])
        return [
            f"{name} was written outside its rows: {int(changed.sum())} elements, the first at "
            f"row {row} of {self._tokens}, head {head} of {heads}, element {column} of {size}"
        ]


def opposite(cache: torch.Tensor, twin: torch.Tensor) -> None:
    """Makes every bit of a cache's twin the opposite of the cache's."""
    torch.bitwise_not(as_bytes(cache), out=as_bytes(twin))


def count_equal(cache: torch.Tensor, twin: torch.Tensor) -> int:
    """How many elements two caches have in common: of opposite ones, those written since."""
    pairs = zip(
        torch.split(as_bytes(cache), CHUNK), torch.split(as_bytes(twin), CHUNK), strict=True
    )
    size = cache.dtype.itemsize
    return sum(int((a == b).view(-1, size).all(1).sum()) for a, b in pairs)


def with_padded_blocks(cache: torch.Tensor, of_one_more: torch.Size, pad: int) -> torch.Tensor:
    """A cache like this one with ``pad`` unused elements after each block.

    ``of_one_more``: the shape of a cache of one block more, by which the axis of blocks is known.
    """
    changed = zip(cache.shape, of_one_more, strict=True)
    (axis,) = (i for i, (size, larger) in enumerate(changed) if size != larger)
    blocks, step = cache.shape[axis], cache.stride(axis)
    # Axes outside of the blocks (keys and values, say) step over whole rows of blocks.
    strides = [
        stride // step * (step + pad) if stride >= step else stride for stride in cache.stride()
    ]
    size = cache.numel() // (blocks * step) * blocks * (step + pad)
    return cache.new_empty(size).as_strided(cache.shape, strides)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor, flat: if it is not dense the whole of its storage.

    A dense one's bytes are in the order of their addresses, whatever that of its axes.
    """
    storage = tensor.untyped_storage()
    if storage.nbytes() > tensor.numel() * tensor.itemsize:
        flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        return flat.set_(storage)
    axes = [axis for axis in range(tensor.dim()) if tensor.shape[axis] != 1]
    order = sorted(axes, key=tensor.stride, reverse=True)
    return tensor.squeeze().permute([axes.index(axis) for axis in order]).view(-1).view(torch.uint8)


def is_nan(tensor: torch.Tensor) -> bool:
    """Whether every element of a tensor of 16 bits or more is NaN."""
    floats = tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1
    return floats and bool(tensor.isnan().all())


def fill(tensor: torch.Tensor, poison: str) -> None:
    """Fills a tensor with NaN ("nan"), infinity ("inf"), the largest finite value ("huge") or zeros
    ("zero"). A dtype without infinity gets NaN instead."""
    dtype = tensor.dtype
    if dtype in (torch.uint8, torch.int8):
        as_bytes(tensor).fill_(BYTES.get(poison, 0xFF))
        return
    if not dtype.is_floating_point:
        tensor.fill_(torch.iinfo(dtype).max)
        return
    if poison == "zero":
        value = 0.0
    elif poison == "huge":
        value = torch.finfo(dtype).max
    elif poison == "inf" and dtype not in (torch.float8_e4m3fn, torch.float8_e4m3fnuz):
        value = float("inf")
    else:
        value = float("nan")
    pattern = torch.tensor([value], dtype=torch.float32).to(dtype).view(torch.uint8)
    as_bytes(tensor).view(-1, dtype.itemsize)[:] = pattern.to(tensor.device)
