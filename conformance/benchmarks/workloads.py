"""The shapes that attention kernels are measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

# The workload of which the host's share of a launch is measured.
LAUNCHED = "decode 1 x 8k, 32/8"


@dataclass(frozen=True)
class Workload:
    """One batch of one layer, in bfloat16.

    ``lengths``: each sequence's new tokens and the tokens before them, which are in the cache.
    ``window``: how many keys a query sees, itself included; 0: no limit. ``fp8``: the cache holds
    E4M3. ``rope``: 0, or the columns that follow a latent vector of ``head_size``, which all heads
    share (MLA in its absorbed form): keys are both, values the vector alone.
    """

    name: str
    lengths: tuple[tuple[int, int], ...]
    heads: int
    kv_heads: int
    head_size: int = 128
    block_size: int = 16
    window: int = 0
    sinks: bool = False
    fp8: bool = False
    rope: int = 0

    @property
    def key_size(self) -> int:
        return self.head_size + self.rope

    @property
    def is_even(self) -> bool:
        """Whether all sequences have the same lengths: torch's kernels take no others."""
        return len(set(self.lengths)) == 1

    @property
    def tokens(self) -> int:
        return sum(query for query, _ in self.lengths)

    @property
    def flops(self) -> float:
        """Floating-point operations of the two products over visible pairs."""
        pairs = sum(self._pairs(query, context) for query, context in self.lengths)
        return 2.0 * (self.key_size + self.head_size) * self.heads * pairs

    @property
    def cache_bytes(self) -> float:
        """Bytes of the keys and values that some query sees, read once."""
        keys = sum(
            min(query + context, query - 1 + self.window) if self.window else query + context
            for query, context in self.lengths
        )
        columns = self.key_size if self.rope else 2 * self.head_size
        return float((1 if self.fp8 else 2) * columns * self.kv_heads * keys)

    def _pairs(self, query: int, context: int) -> int:
        if not self.window:
            return query * context + query * (query + 1) // 2
        return sum(min(context + i + 1, self.window) for i in range(query))


def decode(sequences: int, length: int, tokens: int = 1) -> tuple[tuple[int, int], ...]:
    """``sequences`` of ``length`` keys, of which the last ``tokens`` are new."""
    return ((tokens, length - tokens),) * sequences


def workloads() -> Iterator[Workload]:
    """Decode and prefill of grouped, wide, narrow, windowed, quantised, ragged and MLA layers."""
    yield from _decodes()
    yield from _latent()
    yield from _several_tokens()
    yield from _prefills()


def _decodes() -> Iterator[Workload]:
    for heads in (32, 64):
        for sequences in (1, 8, 64):
            yield Workload(f"decode {sequences} x 8k, {heads}/8", decode(sequences, 8192), heads, 8)
        yield Workload(f"decode 1 x 131k, {heads}/8", decode(1, 131072), heads, 8)
    large = Workload("decode 64 x 8k, 32/8, fp8", decode(64, 8192), 32, 8, fp8=True)
    yield large
    yield replace(large, name="decode 64 x 8k, 64/8, fp8", heads=64)
    yield replace(large, name="decode 8 x 8k, 32/8, fp8", lengths=decode(8, 8192))
    yield replace(large, name="decode 1 x 131k, 32/8, fp8", lengths=decode(1, 131072))
    batch = Workload("decode 32 x 8k, 64/8 x 64", decode(32, 8192), 64, 8, head_size=64)
    yield batch
    yield replace(
        batch, name="decode 32 x 8k, 64/8 x 64, window 128, sinks", window=128, sinks=True
    )
    yield replace(batch, name="decode 32 x 8k, 16/8 x 256", heads=16, head_size=256)
    yield replace(batch, name="decode 32 x 4k, 32/32 x 80", lengths=decode(32, 4096), heads=32,
                  kv_heads=32, head_size=80)  # fmt: skip
    yield replace(batch, name="decode 32 x 4k, 32/32 x 96", lengths=decode(32, 4096), heads=32,
                  kv_heads=32, head_size=96)  # fmt: skip
    yield replace(batch, name="decode 32 x 8k, 16/4 x 192", heads=16, kv_heads=4, head_size=192)
    for pages in (32, 64):
        yield replace(batch, name=f"decode 32 x 8k, 32/8, pages of {pages}", heads=32,
                      head_size=128, block_size=pages)  # fmt: skip
    yield replace(batch, name="decode 32 x 4k, 32/32", lengths=decode(32, 4096), heads=32,
                  kv_heads=32, head_size=128)  # fmt: skip
    yield replace(batch, name="decode 64 x 8k, 64/4", lengths=decode(64, 8192), kv_heads=4,
                  head_size=128)  # fmt: skip
    yield replace(batch, name="decode 32 x 8k, 16/8", heads=16, head_size=128)
    ragged = tuple((1, length - 1) for length in (17, 200, 1000, 3000, 8192, 16384, 500, 64) * 4)
    yield Workload("decode 32 ragged, 32/8", ragged, 32, 8)


def _latent() -> Iterator[Workload]:
    for heads, sequences, length in (
        (16, 1, 8192),
        (16, 32, 8192),
        (16, 128, 4096),
        (32, 32, 8192),
        (64, 32, 8192),
        (128, 32, 8192),
        (128, 128, 4096),
    ):
        yield Workload(f"MLA decode {sequences} x {length // 1024}k, {heads} heads",
                       decode(sequences, length), heads, 1, 512, 64, rope=64)  # fmt: skip
    yield Workload("MLA decode 32 x 8k, 16 heads, fp8", decode(32, 8192), 16, 1, 512, 64,
                   fp8=True, rope=64)  # fmt: skip
    yield Workload("MLA speculative 4, 32 x 8k, 16 heads", decode(32, 8192, 4), 16, 1, 512, 64,
                   rope=64)  # fmt: skip


def _several_tokens() -> Iterator[Workload]:
    yield Workload("speculative 4, 32 x 8k, 32/8", decode(32, 8192, 4), 32, 8)
    yield Workload("speculative 8, 8 x 8k, 64/8", decode(8, 8192, 8), 64, 8)
    yield Workload("extend 512 over 32k, 32/8", decode(1, 32768 + 512, 512), 32, 8)
    yield Workload("extend 2k over 8k, 64/8", decode(1, 10240, 2048), 64, 8)
    mixed = ((1, 4095),) * 24 + ((512, 0), (512, 1024))
    yield Workload("mixed 24 decodes, 2 prefills, 32/8", mixed, 32, 8)


def _prefills() -> Iterator[Workload]:
    for heads in (32, 64):
        for length in (4096, 16384):
            name = f"prefill {length // 1024}k, {heads}/8"
            yield Workload(name, ((length, 0),), heads, 8)
    yield Workload("prefill 8 x 2k, 32/8", ((2048, 0),) * 8, 32, 8)
    yield Workload("prefill 8k, 64/8 x 64", ((8192, 0),), 64, 8, head_size=64)
    yield Workload("prefill 8k, 16/8 x 256", ((8192, 0),), 16, 8, head_size=256)
    yield Workload("prefill 8k, 16/8 x 256, window 1k", ((8192, 0),), 16, 8, 256, window=1024)
    yield Workload("prefill 4k, 32/32 x 96", ((4096, 0),), 32, 32, head_size=96)
    ragged = tuple((length, 0) for length in (100, 500, 1000, 2000, 4000, 300, 50, 1500))
    yield Workload("prefill 8 ragged, 32/8", ragged, 32, 8)
