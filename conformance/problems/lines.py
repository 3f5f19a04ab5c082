"""Problems from lines: a line is one sequence, with the positions of its dominant keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from conformance.problems.making import Maker
from conformance.problems.problem import Problem
from conformance.problems.shapes import rank

# One sequence: query tokens, context, and the positions of dominant keys (-1: none). Several keys
# share the weight, but the loss of a single one still shows.
Line = tuple[int, int, int | tuple[int, ...]]
Tagged = Iterator[tuple[str, Problem]]
# A problem to be made: its batch's tag, the batch, and what is given of its fields.
Row = tuple[str, tuple[Line, ...], dict[str, Any]]


def plain_problem(maker: Maker, kind: str, **fields: Any) -> Problem:
    """A problem of the kind with common values, some of them drawn at random."""
    values, draw = maker.values(kind), maker.draw

    def dealt(name: str, choices: Sequence[Any]) -> Any:
        return maker.decks.take(f"{kind} {name}", choices)

    row = {name: dealt(name, values[name]) for name in values}
    usual = {"window": False, "soft_cap": 0.0, "alibi": "none", "sinks": False, "mm_prefix": False}
    row |= {name: value for name, value in usual.items() if name in row}
    row |= {"large_logits": False} if "large_logits" in row else {}
    if "head_size" in row:
        common = [d for d in (64, 80, 128) if d in values["head_size"]]
        common = common[: maker.tier.edge_head_sizes] or values["head_size"]
        row["head_size"] = dealt("head_size", common)
        row["group"] = dealt("group", maker.tier.edge_groups)
    if kind == "paged":
        row["dtype"] = dealt("dtype", ["float16", "bfloat16"])
    if "block_size" in row:
        row["block_size"] = 16
    if kind != "indexer" and "kv_cache_dtype" in row and draw.random() < 0.7:
        row["kv_cache_dtype"] = "auto"
    row |= {name: value for name, value in fields.items() if name in row}
    return replace(maker.problem(kind, row, "", 0), dominant=(), mm_prefix=())


def with_lines(maker: Maker, problem: Problem, lines: Sequence[Line], **fields: Any) -> Problem:
    """The problem with these sequences, in the order in which its backend takes them."""
    if maker.admitted.features.ordered:
        lines = sorted(lines, key=lambda line: rank(line[0], line[1]))
    made = replace(
        problem,
        query_lens=tuple(query for query, _, _ in lines),
        context_lens=tuple(context for _, context, _ in lines),
        dominant=tuple((s, p) for s, line in enumerate(lines) for p in _positions(line) if p >= 0),
    )
    return replace(made, **fields)


def of_rows(
    maker: Maker, rows: Iterable[Row], plain: Callable[[Maker, dict[str, Any]], Problem]
) -> list[Problem]:
    """A problem for each row, tagged with its batch; ``plain`` makes it of the row's fields."""
    problems: list[Problem] = []
    for tag, lines, fields in rows:
        made = replace(with_lines(maker, plain(maker, fields), lines), tags=(tag,))
        problems.append(maker.named(made, tag, len(problems)))
    return problems


def _positions(line: Line) -> tuple[int, ...]:
    return line[2] if isinstance(line[2], tuple) else (line[2],)


def decodes(keys: int, *positions: int) -> list[Line]:
    """Decodes with ``keys`` keys, one for each dominant position."""
    return [(1, keys - 1, position) for position in positions]
