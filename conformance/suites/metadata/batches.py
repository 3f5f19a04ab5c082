"""The batches that metadata is built for: how many tokens each request has, and where they lie.

vLLM's runner puts decodes first, then requests that go on with a prompt, then new prompts
(https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/utils.py,
``reorder_batch_to_split_decodes_and_prefills``). A graph has the size it was captured with, so
before a replay the batch is padded with rows of no tokens, whose sequences are empty, and tokens
without a slot (-1).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from conformance.worker.metadata_contract import BatchFields, LayerFields

NO_SLOT = -1


@dataclass(frozen=True)
class Batch:
    """Requests with ``queries`` new tokens each, after ``contexts`` tokens that are in the cache.

    ``reqs`` and ``tokens`` are what it is padded to (0: not). ``prefix``: tokens that all requests
    share and that the engine asks to be attended once, for all (cascade attention).
    """

    name: str
    queries: tuple[int, ...]
    contexts: tuple[int, ...]
    reqs: int = 0
    tokens: int = 0
    prefix: int = 0

    @property
    def real_tokens(self) -> int:
        return sum(self.queries)

    @property
    def rows(self) -> int:
        return max(self.reqs, len(self.queries))

    @property
    def all_tokens(self) -> int:
        return max(self.tokens, self.real_tokens)

    @property
    def query_lens(self) -> list[int]:
        """Of every row, padding included."""
        return [*self.queries, *[0] * (self.rows - len(self.queries))]

    @property
    def seq_lens(self) -> list[int]:
        lens = [q + c for q, c in zip(self.queries, self.contexts, strict=True)]
        return [*lens, *[0] * (self.rows - len(lens))]

    @property
    def starts(self) -> list[int]:
        return [0, *accumulate(self.query_lens)]

    def padded(self, reqs: int, tokens: int) -> Batch:
        return replace(self, name=f"{self.name}, padded to {reqs}", reqs=reqs, tokens=tokens)

    def uniform(self) -> bool:
        """Whether every request has as many new tokens."""
        return len(set(self.queries)) == 1


@dataclass(frozen=True)
class Placed:
    """A batch whose tokens have places in a cache: ``table`` a row of blocks for each request."""

    batch: Batch
    layer: LayerFields
    table: tuple[tuple[int, ...], ...]

    @property
    def slots(self) -> list[int]:
        """Where each new token is written; NO_SLOT for padding."""
        batch = self.batch
        real = [
            self.slot(row, batch.contexts[row] + token)
            for row, queries in enumerate(batch.queries)
            for token in range(queries)
        ]
        return [*real, *[NO_SLOT] * (batch.all_tokens - len(real))]

    def slot(self, row: int, position: int) -> int:
        size = self.layer["block_size"]
        return self.table[row][position // size] * size + position % size

    def described(self) -> BatchFields:
        batch = self.batch
        return {
            "query_start_loc": batch.starts,
            "seq_lens": batch.seq_lens,
            "block_table": [list(row) for row in self.table],
            "slot_mapping": self.slots,
            "max_query_len": max(batch.query_lens),
            "max_seq_len": max(batch.seq_lens),
            "is_prefilling": [q > 1 and c == 0 for q, c in zip_rows(batch)],
            "prefix": batch.prefix,
        }


def zip_rows(batch: Batch) -> Iterator[tuple[int, int]]:
    """Of every row its new tokens and its context, padding included."""
    missing = [0] * (batch.rows - len(batch.contexts))
    return zip(batch.query_lens, [*batch.contexts, *missing], strict=True)


def placed(batch: Batch, layer: LayerFields, seed: int) -> Placed:
    """Gives a batch blocks of its own, in an order that no arithmetic gives."""
    width = -(-layer["max_len"] // layer["block_size"])
    blocks = list(range(1, batch.rows * width + 1))
    random.Random(f"{batch} {seed}").shuffle(blocks)
    table = []
    for row, length in enumerate(batch.seq_lens):
        used = -(-length // layer["block_size"])
        # Behind a request's own blocks a row holds what another request left there.
        table.append(tuple(blocks[row * width :][:used]) + (0,) * (width - used))
    return Placed(batch, layer, tuple(table))


DECODES = (
    Batch("one token", (1,), (0,)),
    Batch("decode", (1, 1, 1, 1), (17, 1, 63, 40)),
    Batch("decode at the edge of a block", (1, 1, 1), (15, 16, 31)),
    Batch("many requests", (1,) * 32, tuple(range(3, 131, 4))),
    Batch("as many requests, as long, as there may be", (1,) * 32, (255,) * 32),
)
PREFILLS = (
    Batch("as many tokens as there may be", (1, 1, 254), (5, 9, 0)),
    Batch("one prompt", (37,), (0,)),
    Batch("prompts", (5, 19, 2), (0, 0, 0)),
    Batch("chunks of prompts", (7, 33), (48, 90)),
    Batch("a chunk before a prompt", (6, 4), (21, 0)),
    Batch("decodes and prompts", (1, 1, 12, 9), (8, 33, 0, 0)),
    Batch("decodes and chunks", (1, 1, 9, 3), (30, 2, 16, 70)),
    Batch("decodes, chunks and prompts", (1, 1, 1, 6, 11, 8, 3), (4, 50, 16, 40, 7, 0, 0)),
    Batch("long contexts", (3, 2), (230, 180)),
)
ORDINARY = (*DECODES, *PREFILLS)


def speculative(tokens: int) -> tuple[Batch, ...]:
    """Batches in which a decode verifies up to ``tokens`` draft tokens besides its own."""
    many = tokens + 1
    return (
        Batch(f"{many} tokens each", (many,) * 3, (20, 5, 77)),
        Batch(f"1 to {many} tokens", tuple(range(many, 0, -1)), tuple(range(9, 9 + many))),
        Batch(f"{many} tokens and a prompt", (many, many, 4 * many), (33, 16, 0)),
    )


def cascades(layer: LayerFields) -> tuple[Batch, ...]:
    """Batches whose requests share a prefix of whole blocks."""
    prefix = 2 * layer["block_size"]
    return (
        Batch("decodes with a prefix", (1, 1, 1), (prefix + 3, prefix + 9, prefix), prefix=prefix),
        Batch("chunks with a prefix", (4, 2), (prefix + 1, prefix + 6), prefix=prefix),
    )


def graphs(layer: LayerFields) -> Sequence[tuple[Batch, Batch, Batch]]:
    """For each captured size: the batch of the capture, a large one, and a small padded one."""
    many = layer["speculative"] + 1
    sizes = [size for size in layer["capture_sizes"] if size % many == 0]
    made = []
    for size in sizes:
        reqs = size // many
        capture = Batch(f"capture of {size}", (many,) * reqs, (layer["max_len"] - many,) * reqs)
        full = Batch(
            f"replay of {size}", (many,) * reqs, tuple(11 + 5 * row for row in range(reqs))
        )
        fewer = max(1, reqs - 3) if reqs > 1 else 1
        part = Batch(f"{fewer} of {size}", (many,) * fewer, tuple(3 + 2 * r for r in range(fewer)))
        made.append((capture, full, part.padded(reqs, size)))
    return made


def random_batches(count: int, layer: LayerFields, seed: int) -> Iterator[Batch]:
    """Other batches within the scheduler's limits."""
    draw = random.Random(f"metadata {seed}")
    for number in range(count):
        decodes = [(1, draw.randrange(layer["max_len"] - 1)) for _ in range(draw.randrange(9))]
        chunks = [
            (draw.randrange(2, 24), draw.randrange(1, layer["max_len"] - 24))
            for _ in range(draw.randrange(4))
        ]
        prompts = [(draw.randrange(2, 40), 0) for _ in range(draw.randrange(4))]
        rows = [*decodes, *chunks, *prompts] or [(1, 0)]
        queries, contexts = zip(*rows, strict=True)
        yield Batch(f"random {number} of seed {seed}", queries, contexts)
