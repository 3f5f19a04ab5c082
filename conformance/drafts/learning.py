"""Reads off recorded answers what an edition would have to say to give them.

Every answer names all reasons against a backend, so what the backend supports can be read from
which requests have a reason and which have not. Where that depends on the machine or on other
fields, the fewest conditions are sought that tell the ones from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conformance.matrix.requests import Ask, Platform, Request, Selection
from rocm_reference.machine import Machine
from rocm_reference.selector import IMPORT_ERROR
from vllm_editions import Backend, Edition

Table = dict[str, Any]
WRONG_TARGET = "compute capability not supported"
# The reasons that every edition has, by the field of a backend that decides them.
REASONS = {
    "mm_prefix": "partial multimodal token full attention not supported",
    "sinks": "attention sinks not supported",
    "per_head_quant_scales": "per-head quant scales not supported",
}
ASKED_BY = {
    "mm_prefix": "use_mm_prefix",
    "sinks": "has_sink",
    "per_head_quant_scales": "use_per_head_quant_scales",
}
MOST_CONDITIONS = 4


@dataclass(frozen=True)
class Answered:
    """A question to the release, and its answer."""

    platform: Platform
    ask: Ask
    got: Selection


@dataclass(frozen=True)
class Seen:
    """What the release had against one backend for one request."""

    platform: Platform
    request: Request
    reasons: tuple[str, ...]


class Learner:
    """Learns entries of a table from what was seen of each backend."""

    def __init__(self, answered: Sequence[Answered], table: Table) -> None:
        self.answered = answered
        self._table = table
        self._edition = Edition.model_validate(table)
        self._facts: dict[tuple[Platform, str], bool] = {}
        self._machines: dict[Platform, Machine] = {}

    @cached_property
    def seen(self) -> dict[str, list[Seen]]:
        """What was seen of each backend, among candidates or asked for."""
        found: dict[str, list[Seen]] = {}
        for each in self.answered:
            if isinstance(each.ask.question, Request):
                for candidate in each.got.candidates:
                    seen = Seen(each.platform, each.ask.question, candidate.rejected)
                    found.setdefault(candidate.backend, []).append(seen)
        return found

    # ---- one backend -------------------------------------------------------------------------

    def backend(self, name: str) -> tuple[Table, dict[str, list[str]]]:
        """The entry of a backend, and the classes that it needs besides those there are."""
        entry: Table = dict(self._table["backends"].get(name, {}))
        classes: dict[str, list[str]] = {}
        seen = self.seen.get(name, [])
        kept = [s for s in seen if s.reasons != (IMPORT_ERROR,)]
        if len(kept) < len(seen):
            package = self._package(seen)
            if package:
                entry["imports"] = package
        elif any(not s.platform.aiter or not s.platform.flash_attn for s in seen):
            entry.pop("imports", None)
        if not kept:
            return entry, classes
        _read_sizes(entry, kept)
        _read_names(entry, kept, self._edition.asked.kv_cache_dtypes)
        _read_kinds(entry, kept)
        for field, reason in REASONS.items():
            self._read_support(entry, field, (ASKED_BY[field],), reason, kept, default=False)
        for check in self._edition.selection.checks:
            default = self._default(check.supports)
            self._read_support(entry, check.supports, check.asked, check.reason, kept, default)
        classes.update(self._read_target(entry, name, kept))
        return entry, classes

    def _default(self, field: str) -> bool:
        return bool(Backend.model_fields[field].default)

    def _package(self, seen: Sequence[Seen]) -> str:
        for package in ("aiter", "flash_attn"):
            if all((s.reasons == (IMPORT_ERROR,)) != getattr(s.platform, package) for s in seen):
                return package
        return ""

    def _read_support(
        self,
        entry: Table,
        field: str,
        asked: Sequence[str],
        reason: str,
        seen: Sequence[Seen],
        default: bool,
    ) -> None:
        """Whether a backend supports something: everywhere, nowhere, or where conditions hold."""
        asking = [s for s in seen if all(getattr(s.request, name) for name in asked)]
        yes = {s.platform for s in asking if reason not in s.reasons}
        no = {s.platform for s in asking if reason in s.reasons}
        if not asking or self._fits(entry.get(field, default), yes, no):
            return
        found: bool | list[str] | None = bool(yes)
        if yes and no:
            literals = self._about_machines()
            found = conditions(
                [(p, None) for p in yes], [(p, None) for p in no], literals, self._holds
            )
        if found is not None:
            entry[field] = found

    def _fits(self, value: Any, yes: Collection[Platform], no: Collection[Platform]) -> bool:
        def holds(platform: Platform) -> bool:
            if isinstance(value, bool):
                return value
            return all(self._holds((platform, None), word) for word in value)

        return all(map(holds, yes)) and not any(map(holds, no))

    def _read_target(self, entry: Table, name: str, seen: Sequence[Seen]) -> dict[str, list[str]]:
        """The class of targets that a backend is for; of a new one its targets."""
        no = {s.platform.target for s in seen if WRONG_TARGET in s.reasons}
        yes = {s.platform.target for s in seen if WRONG_TARGET not in s.reasons}
        if not no:
            entry.pop("only_on", None)
            return {}
        for of_class in filter(None, (entry.get("only_on"), *self._edition.classes)):
            inside = {t for t in yes | no if self._edition.in_class(t, of_class)}
            if inside == yes - no:
                entry["only_on"] = of_class
                return {}
        entry["only_on"] = name.lower()
        return {name.lower(): sorted(yes - no)}

    # ---- candidates --------------------------------------------------------------------------

    def listed_where(self, family_asks: Sequence[Answered], name: str) -> list[str] | None:
        """The conditions under which a backend is a candidate; None: no few conditions say it."""
        there: list[Case] = []
        absent: list[Case] = []
        for each in family_asks:
            assert isinstance(each.ask.question, Request)
            listed = any(c.backend == name for c in each.got.candidates)
            (there if listed else absent).append((each.platform, each.ask.question))
        literals = [*self._about_machines(), *self._about_requests()]
        return conditions(there, absent, literals, self._holds)

    def refused_where(self, name: str, reason: str) -> Table | None:
        """A refusal with words of its own: what its requests have in common, and no others."""
        seen = [s for s in self.seen.get(name, ()) if s.reasons != (IMPORT_ERROR,)]
        yes = [s for s in seen if reason in s.reasons]
        entry: Table = {"reason": reason}
        dtypes = sorted({s.request.dtype for s in yes})
        kv_dtypes = sorted({s.request.kv_cache_dtype or "none" for s in yes})
        others = [s for s in seen if reason not in s.reasons]
        if _few(dtypes, {s.request.dtype for s in others}):
            entry["dtypes"] = dtypes
            others = [s for s in others if s.request.dtype in dtypes]
        if _few(kv_dtypes, {s.request.kv_cache_dtype or "none" for s in others}):
            entry["kv_cache_dtypes"] = kv_dtypes
            others = [s for s in others if (s.request.kv_cache_dtype or "none") in kv_dtypes]
        literals = [*self._about_machines(), *self._about_requests()]
        pairs = [[(s.platform, s.request) for s in part] for part in (yes, others)]
        when = conditions(pairs[0], pairs[1], literals, self._holds)
        return None if when is None else {**entry, "when": when}

    def asked_together(self, reason: str) -> list[str] | None:
        """The fields that a request has whenever a reason is given, and else never all."""
        fields = self._about_requests(negated=False)
        given = [s for seen in self.seen.values() for s in seen if reason in s.reasons]
        common = [f for f in fields if all(getattr(s.request, f) for s in given)]
        return common or None

    # ---- conditions --------------------------------------------------------------------------

    def _about_machines(self) -> list[str]:
        edition = self._edition
        words = ["aiter_supported", *edition.flags, *(f"on {name}" for name in edition.classes)]
        words += ["aiter", "flash_attn"]
        return [*words, *(f"!{word}" for word in words)]

    def _about_requests(self, negated: bool = True) -> list[str]:
        asked = self._edition.asked
        probe = Request()
        names = (*asked.fields, *asked.context)
        words = [name for name in names if isinstance(getattr(probe, name, None), bool)]
        return [*words, *(f"!{word}" for word in words)] if negated else words

    def _holds(self, case: tuple[Platform, Request | None], literal: str) -> bool:
        platform, request = case
        word = literal.removeprefix("!")
        if request is not None and hasattr(request, word):
            return bool(getattr(request, word)) is not literal.startswith("!")
        key = (platform, literal)
        if key not in self._facts:
            self._facts[key] = bool(self._machine(platform).settled(literal))
        return self._facts[key]

    def _machine(self, platform: Platform) -> Machine:
        if platform not in self._machines:
            self._machines[platform] = Machine(
                self._edition,
                platform.target,
                aiter=platform.aiter,
                flash_attn=platform.flash_attn,
                env=platform.variables,
            )
        return self._machines[platform]


Case = tuple[Platform, Request | None]


def conditions(
    yes: Sequence[Any],
    no: Sequence[Any],
    literals: Sequence[str],
    holds: Callable[[Any, str], bool],
) -> list[str] | None:
    """Few words that hold for all of ``yes`` together and for none of ``no``; None: there are none.

    Each next one is the word that leaves the fewest of ``no``.
    """
    possible = [word for word in literals if all(holds(case, word) for case in yes)]
    found: list[str] = []
    left = list(no)
    while left and possible and len(found) < MOST_CONDITIONS:
        remaining = {word: [c for c in left if holds(c, word)] for word in possible}
        best = min(possible, key=lambda word: len(remaining[word]))
        if len(remaining[best]) == len(left):
            return None
        found.append(best)
        left = remaining[best]
    return None if left or not yes else found


def _few(values: Collection[str], others: Collection[str]) -> bool:
    """Whether some values are all that there is of them: others have values of their own."""
    return bool(set(others) - set(values)) and len(values) <= MOST_CONDITIONS


def _split(
    seen: Sequence[Seen], reason: str, value: Callable[[Request], Any]
) -> tuple[set[Any], set[Any]]:
    """The values of accepted requests, and those of rejected ones."""
    no = {value(s.request) for s in seen if reason in s.reasons}
    return {value(s.request) for s in seen if reason not in s.reasons}, no


def _read_sizes(entry: Table, seen: Sequence[Seen]) -> None:
    yes, no = _split(seen, "head_size not supported", lambda r: r.head_size)
    least, listed = entry.get("min_head_size", 0), entry.get("head_sizes")
    fits = all((listed is None or size in listed) and size >= least for size in yes)
    if not fits or any((listed is None or size in listed) and size >= least for size in no):
        entry.pop("head_sizes", None)
        entry.pop("min_head_size", None)
        if no and yes and max(no) < min(yes):
            entry["min_head_size"] = min(yes)
        elif no:
            unseen = {size for size in listed or () if size not in yes | no}
            entry["head_sizes"] = sorted(yes | unseen)
    yes, no = _split(seen, "block_size not supported", lambda r: r.block_size)
    yes, no = yes - {None}, no - {None}
    bases = entry.get("block_sizes", [])
    if any(not _is_multiple(size, bases) for size in yes) or any(
        _is_multiple(size, bases) for size in no
    ):
        entry.pop("block_sizes", None)
        if no:
            least_ones = [s for s in sorted(yes) if all(s % other for other in yes if other < s)]
            # None was accepted: one that nobody asked for stands for it.
            entry["block_sizes"] = least_ones or [max(no) + 1]


def _is_multiple(size: int, bases: Sequence[int]) -> bool:
    """Whether a backend takes a block size: no list means any."""
    return not bases or any(size % base == 0 for base in bases)


def _read_names(entry: Table, seen: Sequence[Seen], known: Sequence[str]) -> None:
    yes, no = _split(seen, "dtype not supported", lambda r: r.dtype)
    entry["dtypes"] = _merged(entry.get("dtypes", []), yes, no)
    yes, no = _split(seen, "kv_cache_dtype not supported", lambda r: r.kv_cache_dtype)
    if None in no:
        entry["kv_cache_dtype_required"] = True
    elif None in yes:
        entry.pop("kv_cache_dtype_required", None)
    listed = _merged(entry.get("kv_cache_dtypes", []), yes - {None}, no - {None})
    entry["kv_cache_dtypes"] = [name for name in listed if name in known]
    reason = "attention type {} not supported"
    kinds = {s.request.attn_type for s in seen}
    no = {s.request.attn_type for s in seen if reason.format(s.request.attn_type) in s.reasons}
    entry["attn_types"] = _merged(entry.get("attn_types", []), kinds - no, no)


def _merged(listed: Sequence[str], yes: set[Any], no: set[Any]) -> list[str]:
    """A list without what was rejected, and with what was accepted."""
    kept = [name for name in listed if name not in no - yes]
    return [*kept, *sorted(yes - set(kept))]


def _read_kinds(entry: Table, seen: Sequence[Seen]) -> None:
    for field, asked in (("mla", "use_mla"), ("sparse", "use_sparse")):
        word = "MLA" if field == "mla" else "sparse"
        yes = any(
            getattr(s.request, asked) and f"{word} not supported" not in s.reasons for s in seen
        )
        no = any(
            not getattr(s.request, asked) and f"non-{word} not supported" in s.reasons for s in seen
        )
        if yes or no:
            entry[field] = True
        elif any(f"{word} not supported" in s.reasons for s in seen):
            entry.pop(field, None)


def unexplained_reasons(learner: Learner, known: Collection[str]) -> Iterator[str]:
    """The reasons that the release gives and no entry of the table does."""
    yield from sorted(
        {r for seen in learner.seen.values() for s in seen for r in s.reasons} - set(known)
    )
