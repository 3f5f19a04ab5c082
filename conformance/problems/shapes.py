"""Batches: how many query tokens and how much context each sequence has."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Where kernels split a sequence: tiles, partitions (256 in vLLM's HIP kernel), chunks, segments.
TILE_EDGES = (16, 32, 64, 128)
PARTITION_EDGES = (256, 512)

# Each shape mixes lengths at and around the edges of blocks.
SHAPES = {
    "decode": "one query token each, short contexts around block edges",
    "decode_long": "one query token each, contexts around partition edges",
    "prefill": "no context, ragged",
    "extend": "several query tokens each after a context",
    "speculative": "the same few query tokens each after a context",
    "mixed": "all of these at once, and a sequence without query tokens",
    "single": "sequences of one token, and none at all",
}


@dataclass(frozen=True)
class Lengths:
    """Query tokens and context of each sequence of a batch."""

    query: tuple[int, ...]
    context: tuple[int, ...]


def lengths(shape: str, block: int, draw: random.Random, scale: int = 1) -> Lengths:
    """A batch of a shape, in random order. ``scale`` multiplies lengths that are no edges."""
    pairs = _pairs(shape, block, draw, scale)
    draw.shuffle(pairs)
    return Lengths(tuple(q for q, _ in pairs), tuple(c for _, c in pairs))


def around(edge: int, draw: random.Random) -> int:
    """A length at an edge, or one off."""
    return max(0, edge + draw.choice([-1, 0, 0, 1]))


def _pairs(shape: str, block: int, draw: random.Random, scale: int) -> list[tuple[int, int]]:
    """(query tokens, context) of each sequence."""
    short = block if block > 1 else 8
    if shape == "decode":
        ends = [around(short, draw), around(2 * short if short < 100 else 40, draw)]
        pairs = [(1, max(0, n - 1)) for n in [1, *ends, draw.randrange(2, 60 * scale)]]
    elif shape == "decode_long":
        edge = draw.choice(PARTITION_EDGES)
        pairs = [(1, around(edge, draw) - 1), (1, draw.randrange(130, 300 * scale))]
    elif shape == "prefill":
        pairs = [(1, 0), (around(16, draw), 0), (draw.randrange(20, 70 * scale), 0)]
    elif shape == "extend":
        pairs = [
            (draw.randrange(2, 20 * scale), around(short, draw)),
            (around(16, draw), draw.randrange(1, 70 * scale)),
            (draw.randrange(2, 5), around(draw.choice(TILE_EDGES), draw)),
        ]
    elif shape == "speculative":
        count = draw.choice([2, 3, 4, 5])
        pairs = [(count, around(short, draw)), (count, draw.randrange(0, 60 * scale)), (count, 0)]
    elif shape == "mixed":
        pairs = [
            (1, around(short, draw)),
            (draw.randrange(2, 24 * scale), 0),
            (draw.randrange(2, 12), draw.randrange(1, 70 * scale)),
            (0, draw.choice([0, 9])),
            (1, 0),
        ]
    else:
        assert shape == "single", shape
        pairs = [(1, 0), (1, 0), (0, 0)]
    return pairs


def rank(query: int, context: int) -> int:
    """A sequence's rank in a sorted batch: decodes, extends, prefills, those without tokens."""
    if query <= 1:
        return 3 if query == 0 else 0
    return 1 if context else 2


def in_order(batch: Lengths) -> Lengths:
    """The batch sorted by `rank`."""
    pairs = sorted(zip(batch.query, batch.context, strict=True), key=lambda pair: rank(*pair))
    return Lengths(tuple(q for q, _ in pairs), tuple(c for _, c in pairs))


def same_lengths(batch: Lengths, count: int) -> Lengths:
    """The batch with ``count`` query tokens per sequence, and at least as many keys as before."""
    pairs = [
        (count, max(0, q + c - count)) for q, c in zip(batch.query, batch.context, strict=True)
    ]
    return Lengths(tuple(q for q, _ in pairs), tuple(c for _, c in pairs))
