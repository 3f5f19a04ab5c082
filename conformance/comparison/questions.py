"""The questions that two sides are asked: what either of them knows, and what only one does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from conformance.matrix.requests import CONTEXT, Ask, Request
from conformance.suites.selection import sampling
from vllm_editions import Edition

# One request in this many also sets the engine option that vLLM 0.18 reads.
OPTION_SHARE = 10
OPTION = "use_prefill_decode_attention"
# One question in this many is about vision, and one about ROCM_ATTN's decode kernel.
OTHER_SHARE = 20
NOT_FOR_VISION = "ROCM_ATTN"
# One request in this many is a simple one: what users ask has few fields that are not defaults.
SIMPLE_SHARE = 4
SIMPLE_FIELDS = 2


class Questions:
    """Makes questions from what both editions know; no selector goes by their sum."""

    def __init__(self, before: Edition, after: Edition) -> None:
        self._edition = _both(before, after)
        self._new = tuple(_words_of_one(before, after))

    def seeded(self, seed: str, count: int) -> list[Ask]:
        """``count`` seeded questions of every kind."""
        edition, others = self._edition, count // OTHER_SHARE
        asks = list(sampling.requests(seed, count - 2 * others, edition))
        rng = random.Random(f"{seed} simple")
        asks[::SIMPLE_SHARE] = [self._simple(ask, rng) for ask in asks[::SIMPLE_SHARE]]
        if OPTION in edition.asked.context:
            asks[1::OPTION_SHARE] = [_with(ask, OPTION, True) for ask in asks[1::OPTION_SHARE]]
        kernels = sampling.paged_attention(seed, others)
        vision = sampling.vit(seed, others, [*edition.vit.explicit, NOT_FOR_VISION])
        return [*asks, *kernels, *vision]

    def _simple(self, ask: Ask, rng: random.Random) -> Ask:
        """The question with few of its fields, and with a word that only one side knows."""
        changed = changed_fields(ask)
        kept = rng.sample(sorted(changed), min(len(changed), rng.randint(0, SIMPLE_FIELDS)))
        request = Request(**{name: changed[name] for name in kept})
        simple = Ask(request, ask.backend if rng.random() < 0.5 else None)
        if not self._new:
            return simple
        name, value = rng.choice(self._new)
        return Ask(request, value) if name == "backend" else _with(simple, name, value)


def changed_fields(ask: Ask) -> dict[str, Any]:
    """The fields of a question that are not the default's."""
    question = ask.question
    values = ((each.name, getattr(question, each.name), each.default) for each in fields(question))
    return {name: value for name, value, default in values if value != default}


def _with(ask: Ask, name: str, value: Any) -> Ask:
    assert isinstance(ask.question, Request)
    return replace(ask, question=replace(ask.question, **{name: value}))


def _both(before: Edition, after: Edition) -> Edition:
    """What either edition knows to ask."""
    asked = {
        name: tuple(dict.fromkeys((*getattr(before.asked, name), *getattr(after.asked, name))))
        for name in type(after.asked).model_fields
    }
    explicit = tuple(dict.fromkeys((*before.vit.explicit, *after.vit.explicit)))
    return after.model_copy(
        update={
            "asked": after.asked.model_copy(update=asked),
            "backends": {**before.backends, **after.backends},
            "vit": after.vit.model_copy(update={"explicit": explicit}),
        }
    )


def _words_of_one(before: Edition, after: Edition) -> Iterator[tuple[str, Any]]:
    """Each field (with a value), KV-cache dtype and backend that only one edition knows."""
    own = (before, after)
    asked = [{*table.asked.fields, *table.asked.context} for table in own]
    for name in sorted((asked[0] ^ asked[1]) - {*CONTEXT}):
        yield name, True
    dtypes = [set(table.asked.kv_cache_dtypes) for table in own]
    for name in sorted(dtypes[0] ^ dtypes[1]):
        yield "kv_cache_dtype", name
    for name in sorted(before.backends.keys() ^ after.backends.keys()):
        yield "backend", name
