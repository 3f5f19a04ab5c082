"""How a problem's tensors lie in memory, and the order of programs: dealt evenly to problems."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from conformance.problems.problem import Order, Problem
from conformance.problems.tiers import Tier

Choice = TypeVar("Choice")


@dataclass
class Decks:
    """Draws values in shuffled rounds: none comes again before all others came.

    A small number of problems has every value, which chance alone would not see to.
    """

    draw: random.Random
    _left: dict[str, list[Any]] = field(default_factory=dict)

    def take(self, name: str, values: Sequence[Choice]) -> Choice:
        """One of ``values``, of which a round is called ``name``."""
        left: list[Choice] = self._left.setdefault(f"{name} of {values}", [])
        if not left:
            left += self.draw.sample(values, len(values))
        return left.pop()


# Unused elements after each head and unused heads after each token.
_ROWS = ((0, 0), (8, 0), (0, 1), (0, 0), (16, 2))
_EXTRA_ROWS = (0, 1, 5)
_SKIPPED = (0, 2, 7)
_SPARE_BLOCKS = (1, 3, 6)
_BLOCK_PADS = (0, 16, 48)
_POISONS: tuple[Literal["nan", "inf", "huge"], ...] = ("nan", "inf", "huge", "nan")


def laid_out(problems: Iterable[Problem], tier: Tier, draw: random.Random) -> Iterator[Problem]:
    """The problems with layouts dealt to those of each kind; one about its own layout keeps that.

    Programs run backwards and shuffled, which shows what forwards hides; in larger tiers forwards,
    too.
    """
    decks = Decks(draw)
    orders: tuple[Order, ...] = ("backwards", "shuffled", *(() if tier.small else ("forwards",)))
    for problem in problems:
        if problem.table_spare == 0:
            yield problem  # about a layout, which it has already
            continue
        kind = problem.kind
        head_pad, row_pad = decks.take(f"rows {kind}", _ROWS)
        gone = problem.slides and decks.take(f"evicted {kind}", (True, False))
        made = replace(
            problem,
            head_pad=head_pad if kind != "indexer" else 0,
            row_pad=row_pad,
            poison=decks.take(f"poison {kind}", _POISONS),
            order=decks.take(f"order {kind}", orders),
            evicted=problem.evicted or gone,
        )
        if problem.has_cache:
            made = replace(
                made,
                extra_rows=decks.take(f"extra {kind}", _EXTRA_ROWS),
                skipped_writes=decks.take(f"skipped {kind}", _SKIPPED),
                block_pad=decks.take(f"block {kind}", _BLOCK_PADS),
            )
        if problem.is_octave and problem.block_pad:
            # It decides which kernel decodes.
            made = replace(made, block_pad=problem.block_pad)
        if "hip_decode" in problem.tags:
            # From 0.21 on vLLM gives padded blocks to a Triton kernel.
            made = replace(made, block_pad=0)
        if problem.has_cache and not problem.high_blocks:
            made = replace(made, spare_blocks=decks.take(f"spare {kind}", _SPARE_BLOCKS))
        yield made
