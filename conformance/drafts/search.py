"""Drafts an edition: changes a base until it gives a release's answers, as far as it can.

Changes are proposed from the answers themselves. One is kept only if fewer answers differ with it,
and dropped again in the end if no more differ without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import ValidationError

from conformance.comparison.questions import Questions, changed_fields
from conformance.drafts.facts import OURS, Facts
from conformance.drafts.learning import Answered, Learner, Table
from conformance.drafts.proposals import Change, decode_kernels, requests, vision
from conformance.matrix.requests import (
    ATTN_TYPES,
    CONTEXT,
    DTYPES,
    Ask,
    PagedAttention,
    Platform,
    Request,
    Vit,
)
from conformance.subjects.base import Session, Subject
from conformance.subjects.reference import answer, selector_on
from conformance.suites.selection import sampling
from rocm_reference.selector import Selector
from vllm_editions import Backend, Edition, edition_rows
from vllm_editions.changes import Edit, apply
from vllm_editions.comparison import edits

ROUNDS = 12
PROBE, PLATFORMS = 150, 6
# Head and block sizes that a sweep does not ask for, and a closer look does.
MORE_SIZES = (256, 384, 512, 1024)
# A backend that no edition has, as far as questions go.
_ANY = Backend(dtypes=frozenset(), kv_cache_dtypes=frozenset(), attn_types=frozenset())


@dataclass(frozen=True)
class Drafted:
    """The rows of a draft, how many answers they explain, and those that still differ."""

    base: str
    rows: tuple[Edit, ...]
    table: Table
    asked: int
    before: int
    left: tuple[Answered, ...]
    notes: tuple[str, ...]


def record(
    subject: Subject,
    facts: Facts,
    base: Edition,
    platforms: Sequence[Platform],
    count: int,
    seed: int,
    on_platform: Callable[[int], None] = lambda _done: None,
) -> list[Answered]:
    """Asks a release what tells it from its base; ``count`` questions on each platform.

    Raises:
        InfrastructureError: the release died.
    """
    asked = base.asked.model_copy(
        update={"fields": facts.fields, "kv_cache_dtypes": facts.kv_cache_dtypes}
    )
    ours = {name: base.backends.get(name, _ANY) for name in looked_at(facts, base)}
    questions = Questions(base, base.model_copy(update={"asked": asked, "backends": ours}))
    found: list[Answered] = []
    for done, platform in enumerate(platforms, 1):
        session = subject.reopen(platform)
        asks = [
            ask
            for ask in questions.seeded(f"{seed} {platform}", count)
            if ask.backend is None or ask.backend in ours or isinstance(ask.question, Vit)
        ]
        found += _answered(session, platform, asks, facts)
        on_platform(done)
    return found


def look_closer(
    subject: Subject, facts: Facts, drafted: Drafted, platforms: Sequence[Platform]
) -> list[Answered]:
    """Asks a release for the backends that a draft changes: each value of each field by itself.

    Only machines with no variables set are asked.
    """
    asks = list(probes(drafted, facts))
    found: list[Answered] = []
    for platform in platforms if asks else ():
        if not platform.env:
            found += _answered(subject.reopen(platform), platform, asks, facts)
    return found


def probes(drafted: Drafted, facts: Facts) -> Iterator[Ask]:
    """For each backend that a draft changes a request that it takes, and all that differ in one."""
    about = {row.path.split(".")[1] for row in drafted.rows if row.path.startswith("backends.")}
    for name in sorted(about & drafted.table["backends"].keys()):
        taken = _taken(drafted.table["backends"][name])
        yield Ask(taken, name)
        for field, values in _values(facts).items():
            yield from (Ask(replace(taken, **{field: value}), name) for value in values)


def _taken(entry: Table) -> Request:
    """A request that a backend takes."""
    default = Request()
    least = max(default.head_size, entry.get("min_head_size", 0))
    return Request(
        head_size=_first(entry, "head_sizes", least),
        dtype=_first(entry, "dtypes", default.dtype),
        kv_cache_dtype=_first(entry, "kv_cache_dtypes", default.kv_cache_dtype),
        block_size=_first(entry, "block_sizes", default.block_size),
        use_mla=entry.get("mla", False),
        use_sparse=entry.get("sparse", False),
        attn_type=_first(entry, "attn_types", default.attn_type),
    )


def _first(entry: Table, key: str, default: Any) -> Any:
    return (entry.get(key) or [default])[0]


def _values(facts: Facts) -> dict[str, Sequence[Any]]:
    flags = (f.name for f in fields(Request) if isinstance(f.default, bool))
    return {
        "head_size": (*sampling.HEAD_SIZES, *sampling.MLA_HEAD_SIZES, *MORE_SIZES),
        "dtype": DTYPES,
        "kv_cache_dtype": (*facts.kv_cache_dtypes, None),
        "block_size": (*sampling.BLOCK_SIZES, *MORE_SIZES),
        "attn_type": ATTN_TYPES,
        "run_kv_cache_dtype": facts.kv_cache_dtypes,
        **{name: (True,) for name in flags if name in facts.fields},
    }


def _answered(
    session: Session, platform: Platform, asks: Sequence[Ask], facts: Facts
) -> Iterator[Answered]:
    """The answers to questions of any kind; those with a word that went are left out."""
    known = {*facts.fields, *CONTEXT}
    for kind in (Request, PagedAttention, Vit):
        mine = [ask for ask in asks if type(ask.question) is kind and _is_known(ask, facts, known)]
        for ask, got in zip(mine, session.ask(mine), strict=True):
            yield Answered(platform, ask, got)


def _is_known(ask: Ask, facts: Facts, known: set[str]) -> bool:
    question = ask.question
    if not isinstance(question, Request):
        return True
    dtypes = {question.kv_cache_dtype or "auto", question.run_kv_cache_dtype}
    return dtypes <= {*facts.kv_cache_dtypes} and changed_fields(ask).keys() <= known


def looked_at(facts: Facts, base: Edition) -> list[str]:
    """The backends that a draft is about: the base's, and new ones for AMD GPUs."""
    return [name for name in facts.backends if name in base.backends or name.startswith(OURS)]


def draft(
    base: str, facts: Facts, answered: Sequence[Answered], earlier: Drafted | None = None
) -> Drafted:
    """The rows that turn the edition ``base`` into one that gives these answers.

    ``earlier`` is a draft from fewer answers, from which to go on.
    """
    start = edition_rows(base)
    table, notes = _with_words(start, facts)
    before = len(differing(table, answered))
    table = earlier.table if earlier else table
    for kind, proposals in (
        (Request, requests),
        (PagedAttention, decode_kernels),
        (Vit, vision),
    ):
        part = [each for each in answered if isinstance(each.ask.question, kind)]
        table = _minimised(table, part, proposals)
    rows = _needed(start, edits(start, table), answered)
    for row in rows:
        apply(row, start)
    left = tuple(differing(start, answered))
    return Drafted(base, rows, start, len(answered), before, left, (*facts.notes, *notes))


def _with_words(base: Table, facts: Facts) -> tuple[Table, list[str]]:
    """The base with a release's fields and KV-cache dtypes, without the backends that are gone."""
    table = deepcopy(base)
    asked = table["asked"]
    known = {field.name for field in fields(Request)}
    notes = [
        f"the request field {name!r} is new to this suite: it is not asked"
        for name in facts.fields
        if name not in known
    ]
    asked["fields"] = _in_place(asked["fields"], [f for f in facts.fields if f in known])
    asked["kv_cache_dtypes"] = _in_place(asked["kv_cache_dtypes"], facts.kv_cache_dtypes)
    listed = {entry["backend"] for entries in table["candidates"].values() for entry in entries}
    for name in [name for name in table["backends"] if name not in facts.backends]:
        if name not in listed:
            del table["backends"][name]
    return table, notes


def _in_place(listed: Sequence[str], now: Sequence[str]) -> list[str]:
    """The words of now, those that were there in their order."""
    kept = [name for name in listed if name in now]
    return [*kept, *(name for name in now if name not in kept)]


def differing(
    table: Table, answered: Sequence[Answered], most: int | None = None
) -> list[Answered]:
    """The answers that an edition of this table does not give; no more than ``most`` and one."""
    selectors: dict[Platform, Selector] = {}
    found: list[Answered] = []
    try:
        edition = Edition.model_validate(table)
        for each in answered:
            if each.platform not in selectors:
                selectors[each.platform] = selector_on(edition, each.platform)
            if not _gives(selectors[each.platform], each):
                found.append(each)
                if most is not None and len(found) > most:
                    break
    except (KeyError, ValueError, ValidationError):
        return list(answered)
    return found


def _gives(selector: Selector, each: Answered) -> bool:
    try:
        return answer(selector, each.ask) == each.got
    except (AttributeError, KeyError, ValueError):  # a backend or a field is not there
        return False


Proposer = Callable[[Table, Sequence[Answered], Learner], Iterator[Change]]


def _minimised(table: Table, answered: Sequence[Answered], proposer: Proposer) -> Table:
    """The table after every proposal with which fewer answers differ.

    What differs on a few platforms is asked first, because most proposals do not help even there;
    when none does any more, all that differs is.
    """
    wrong = differing(table, answered)
    few = True
    for _ in range(ROUNDS):
        count = len(wrong)
        for change in proposer(table, wrong, Learner(answered, table)) if wrong else ():
            made = deepcopy(table)
            change(made)
            probe = _probe(wrong, PLATFORMS) if few else wrong
            if made == table or len(differing(made, probe, len(probe) - 1)) >= len(probe):
                continue
            found = differing(made, answered, len(wrong) - 1)
            if len(found) < len(wrong):
                table, wrong = made, found
        if not wrong or (len(wrong) == count and not few):
            break
        few = len(wrong) < count
    return table


def _probe(wrong: Sequence[Answered], most: int) -> Sequence[Answered]:
    """Some of what differs, on the platforms where most does."""
    counts = Counter(each.platform for each in wrong)
    chosen = {platform for platform, _ in counts.most_common(most)}
    return [each for each in wrong if each.platform in chosen][:PROBE]


def _needed(base: Table, rows: Sequence[Edit], answered: Sequence[Answered]) -> tuple[Edit, ...]:
    """The rows without those that explain no answer; words are kept, as facts of the source."""
    left = list(rows)
    least = len(differing(_applied(base, left), answered))
    for row in reversed(rows):
        rest = [other for other in left if other is not row]
        names = row.path.startswith("asked.") or (row.path.count(".") == 1 and row.drop)
        if names:
            continue
        try:
            without = differing(_applied(base, rest), answered, least)
        except (KeyError, ValueError):  # a later row needs it
            continue
        if len(without) <= least:
            left = rest
    return tuple(left)


def _applied(base: Table, rows: Sequence[Edit]) -> Table:
    table = deepcopy(base)
    for row in rows:
        apply(row, table)
    return table
