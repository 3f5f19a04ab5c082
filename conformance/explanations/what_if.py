"""What one change would do to an answer: a variable, a package, another release.

The reference selector answers these, by each release's edition, whatever build was asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from conformance.explanations.asked import LayerQuestion
from conformance.matrix.requests import AITER, Ask, Platform, Selection, Vit
from conformance.requirements import requirements_of
from conformance.requirements.attribution import facets, requirement_of, rules_on
from conformance.subjects.reference import answer, edition_table, selector_on
from vllm_editions import Edition, editions
from vllm_editions.causes import rows_behind
from vllm_editions.changes import Change

BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
AMD_TRITON = "FLASH_ATTENTION_TRITON_AMD_ENABLE"

# What is asked of an edition; the question may differ between releases, which know other fields.
Asks = Callable[[Edition, Platform], LayerQuestion]


@dataclass(frozen=True)
class Outcome:
    """What a situation comes to: the backend or the error, and ROCM_ATTN's decode kernel."""

    selected: str
    decode: str = ""

    def __str__(self) -> str:
        kernel = {"custom": "decoding with its HIP kernel", "triton": "decoding with Triton"}
        return f"{self.selected}, {kernel[self.decode]}" if self.decode else self.selected


def outcome(question: LayerQuestion, table: Edition, platform: Platform) -> Outcome:
    """The outcome by an edition."""
    if question.ask is None:
        return Outcome("no question")
    asked = question.ask.backend
    if asked and not _is_vision(question) and asked not in table.backends:
        return Outcome(f"no backend ({asked} is unknown)")
    selector = selector_on(table, platform)
    selection = answer(selector, question.ask)
    decode = ""
    if selection.selected == "ROCM_ATTN" and question.inner is not None:
        decode = selector.paged_attention(question.inner)
    return Outcome(selection.selected or f"no backend ({selection.error})", decode)


def changes_of_machine(asks: Asks, table: Edition, platform: Platform) -> Iterator[tuple[str, str]]:
    """Each single change that leads elsewhere: what it is, and what then is selected.

    A package and its variable together are told only where the package alone does something else.
    """
    now = outcome(asks(table, platform), table, platform)
    vision = _is_vision(asks(table, platform))
    told: dict[str, Outcome] = {}
    for what, other in _variations(table, platform, vision=vision):
        then = outcome(asks(table, other), table, other)
        alone = told.get(what.partition(" and ")[0], now)
        if then != alone:
            yield what, str(then)
        told[what] = then


def _is_vision(question: LayerQuestion) -> bool:
    return question.ask is not None and isinstance(question.ask.question, Vit)


def _variations(
    table: Edition, platform: Platform, *, vision: bool
) -> Iterator[tuple[str, Platform]]:
    variables = platform.variables
    for flag, usual in table.flags.items():
        on = _true(variables[flag]) if flag in variables else usual
        value = "0" if on else "1"
        yield f"{flag}={value}", platform.with_env({flag: value})
    if not platform.aiter:
        there = replace(platform, aiter=True)
        yield "aiter installed", there
        if not _true(variables.get(AITER, "0")):
            yield f"aiter installed and {AITER}=1", there.with_env({AITER: "1"})
    else:
        yield "aiter not installed", replace(platform, aiter=False)
    if vision:
        if not platform.flash_attn:
            there = replace(platform, flash_attn=True)
            yield "flash_attn installed", there
            yield (
                f"flash_attn installed and {AMD_TRITON}=TRUE",
                there.with_env({AMD_TRITON: "TRUE"}),
            )
        elif variables.get(AMD_TRITON) != "TRUE":
            yield f"{AMD_TRITON}=TRUE", platform.with_env({AMD_TRITON: "TRUE"})
    if "use_batch_invariant" in table.asked.fields and not _true(
        variables.get(BATCH_INVARIANT, "0")
    ):
        yield f"{BATCH_INVARIANT}=1", platform.with_env({BATCH_INVARIANT: "1"})


def _true(value: str) -> bool:
    return value.lower() in ("1", "true")


def next_release(asks: Asks, table: Edition, platform: Platform) -> str:
    """What the release series after an edition's does with the same layer."""
    known = editions()
    place = known.index(table.edition) + 1
    if place == len(known):
        return f"{table.edition} is the newest release series that this suite knows"
    lines = list(_steps(asks, platform, [table.edition, known[place]]))
    return lines[0] if lines else f"vLLM {known[place]} selects the same"


def history(asks: Asks, first: str, last: str, platform: Platform) -> tuple[str, ...]:
    """How the answer changed from one series to another: where, to what, and why."""
    known = editions()
    low, high = sorted((known.index(first), known.index(last)))
    span = known[low : high + 1]
    start = _asked_of(asks, span[0], platform)
    changes = list(_steps(asks, platform, span))
    return (
        (f"vLLM {span[0]}: {start}", *changes)
        if changes
        else (f"vLLM {span[0]} to {span[-1]}: {start} throughout",)
    )


def _asked_of(asks: Asks, edition: str, platform: Platform) -> Outcome:
    table = edition_table(edition)
    return outcome(asks(table, platform), table, platform)


def _steps(asks: Asks, platform: Platform, span: list[str]) -> Iterator[str]:
    before = _asked_of(asks, span[0], platform)
    for older, newer in itertools.pairwise(span):
        now = _asked_of(asks, newer, platform)
        if now != before:
            because = "; ".join(_causes(asks, older, newer, platform, now))
            yield f"vLLM {newer}: {now}" + (f" (because of {because})" if because else "")
        before = now


def _causes(asks: Asks, older: str, newer: str, platform: Platform, now: Outcome) -> Iterator[str]:
    """Why a release answers otherwise: rows of its edition, else what introduced a requirement."""
    rows = rows_behind(newer, lambda t: outcome(asks(t, platform), t, platform), now)
    if rows:
        yield from (_row(row) for row in rows)
        return
    before, after = edition_table(older), edition_table(newer)
    ask = asks(after, platform).ask
    if ask is None:
        return
    known = requirements_of(newer)
    rules = rules_on(platform, known, "")
    named: dict[str, str] = {}
    for facet in facets(ask, _select(before, platform, ask), _select(after, platform, ask)):
        identifier = requirement_of(facet, rules)
        if identifier and (source := known[identifier].introduced_by):
            named.setdefault(source, identifier)
    for source, identifier in named.items():
        yield f"{identifier}, introduced by {source}"


def _select(table: Edition, platform: Platform, ask: Ask) -> Selection:
    return answer(selector_on(table, platform), ask)


def _row(change: Change) -> str:
    """A row in words: where the edition changed, and the line of vLLM that says so."""
    if change.drop:
        done = f"{change.path} is gone"
    elif change.value is not None:
        done = f"{change.path} is {_short(change.value)}"
    else:
        parts = [f"with {_short(each)}" for each in change.add]
        parts += [f"without {_short(each)}" for each in change.remove]
        done = f"{change.path} {' and '.join(parts)}"
    return f"{done}: {change.source}"


def _short(value: object) -> str:
    if isinstance(value, dict):
        named = next(
            (str(value[key]) for key in ("backend", "reason") if key in value), "a new entry"
        )
        when = value.get("when")
        return f"{named} where {' and '.join(when)}" if when else named
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(each) for each in value) or "empty"
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )
