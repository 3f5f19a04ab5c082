"""Changes that could make an edition give more of a release's answers.

Each is a function that changes a table; whether it helps is found by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

from conformance.drafts.learning import Answered, Learner, Table, unexplained_reasons
from conformance.matrix.requests import DTYPES, PagedAttention, Request
from conformance.requirements.attribution import family
from vllm_editions import Backend, Edition

Change = Callable[[Table], None]
FAMILIES = ("dense", "mla", "sparse")


def requests(table: Table, wrong: Sequence[Answered], learner: Learner) -> Iterator[Change]:
    """What may make candidates, and the reasons against them, those of the release."""
    yield from _words(table, learner)
    yield from _backends(table, wrong, learner)
    for name in FAMILIES:
        of_family = [w for w in wrong if _family(w) == name and w.ask.backend is None]
        if of_family:
            yield from _candidates(table, name, learner)
    selection = table["selection"]
    yield partial(_set, ("selection",), "block_size_checked", not selection["block_size_checked"])
    for name in table["classes"]:
        yield partial(_set, ("selection",), "aiter_supported_on", name)
    yield from _layouts(table, wrong)
    yield from _check_order(table, learner)


def _check_order(table: Table, learner: Learner) -> Iterator[Change]:
    """The checks in the order in which their reasons come."""
    checks = table["selection"].get("checks", [])
    given = [s.reasons for seen in learner.seen.values() for s in seen]
    order = in_order([check["reason"] for check in checks], given)
    if order is not None:
        yield partial(_set, ("selection",), "checks", [checks[at] for at in order])


def _family(each: Answered) -> str:
    question = each.ask.question
    return family(question) if isinstance(question, Request) else ""


def _backends(table: Table, wrong: Sequence[Answered], learner: Learner) -> Iterator[Change]:
    """Each backend about which something differs, as it was seen: whole, then field by field."""
    about = dict.fromkeys(c.backend for each in wrong for c in each.got.candidates)
    for name in about:
        entry, classes = learner.backend(name)
        known = table["backends"].get(name, {})
        if entry == known or not {"dtypes", "kv_cache_dtypes", "attn_types"} <= entry.keys():
            continue
        yield partial(_put_backend, name, entry, classes)
        for key in sorted(entry.keys() | known.keys()) if known else ():
            if entry.get(key) != known.get(key):
                changed = {k: v for k, v in known.items() if k != key}
                changed |= {key: entry[key]} if key in entry else {}
                yield partial(_put_backend, name, changed, classes)


def _put_backend(name: str, entry: Table, classes: dict[str, list[str]], table: Table) -> None:
    table["backends"][name] = deepcopy(entry)
    table["classes"].update(deepcopy(classes))


def _words(table: Table, learner: Learner) -> Iterator[Change]:
    """Reasons that no entry of the table gives: other words of a check, a new check, a refusal."""
    checks = table["selection"].get("checks", [])
    said = {reason for seen in learner.seen.values() for s in seen for reason in s.reasons}
    refusals = [r["reason"] for b in table["backends"].values() for r in b.get("refuses", ())]
    for at, check in reversed(list(enumerate(checks))):
        if check["reason"] not in said:
            yield partial(_remove, ("selection",), "checks", at)
    for reason in unexplained_reasons(learner, _vocabulary(table, refusals)):
        for at, check in enumerate(checks):
            if check["reason"] not in said:
                yield partial(_set, ("selection", "checks", at), "reason", reason)
        fields = learner.asked_together(reason)
        used = {check["supports"] for check in checks}
        for supports in Backend.model_fields if fields else ():
            if supports not in used and any(f.endswith(supports) for f in fields or ()):
                asked = [f for f in fields or () if f.endswith(supports)]
                check = {"asked": asked, "supports": supports, "reason": reason}
                given = [s.reasons for seen in learner.seen.values() for s in seen]
                at = place_in([entry["reason"] for entry in checks], reason, given)
                yield partial(_insert, ("selection",), "checks", at, check)
        for backend, seen in learner.seen.items():
            if any(reason in s.reasons for s in seen) and backend in table["backends"]:
                refusal = learner.refused_where(backend, reason)
                if refusal is not None:
                    number = len(table["backends"][backend].get("refuses", ()))
                    yield partial(_insert, ("backends", backend), "refuses", number, refusal)


def _vocabulary(table: Table, refusals: Sequence[str]) -> set[str]:
    """Every reason that an edition of this table can give."""
    selection = table["selection"]
    words = {entry["reason"] for entry in selection.get("checks", ())}
    words |= {entry["reason"] for entry in selection.get("shared_layouts", ())}
    return {*words, *refusals, *BUILT_IN}


# The words that no edition changes: they are the reference selector's own.
BUILT_IN = frozenset(
    {
        "ImportError",
        "head_size not supported",
        "dtype not supported",
        "kv_cache_dtype not supported",
        "block_size not supported",
        "partial multimodal token full attention not supported",
        "MLA not supported",
        "non-MLA not supported",
        "attention sinks not supported",
        "sparse not supported",
        "non-sparse not supported",
        "per-head quant scales not supported",
        "compute capability not supported",
        *(
            f"attention type {kind} not supported"
            for kind in ("decoder", "encoder", "encoder_only", "encoder_decoder")
        ),
    }
)


def _candidates(table: Table, of: str, learner: Learner) -> Iterator[Change]:
    """Entries of a list that come, go, hold elsewhere, or stand elsewhere."""
    asks = [a for a in learner.answered if _family(a) == of and a.ask.backend is None]
    listed = [entry["backend"] for entry in table["candidates"][of]]
    orders = [tuple(c.backend for c in each.got.candidates) for each in asks]
    seen = dict.fromkeys(name for order in orders for name in order)
    for at, entry in reversed(list(enumerate(table["candidates"][of]))):
        if entry["backend"] not in seen:
            yield partial(_remove, ("candidates",), of, at)
        elif listed.count(entry["backend"]) == 1:
            when = learner.listed_where(asks, entry["backend"])
            if when is not None:
                new = {"backend": entry["backend"], **({"when": when} if when else {})}
                yield partial(_replace, ("candidates",), of, at, new)
    for name in seen:
        if name not in listed and name in table["backends"]:
            when = learner.listed_where(asks, name)
            if when is not None:
                new = {"backend": name, **({"when": when} if when else {})}
                at = place_in(listed, name, orders)
                yield partial(_insert, ("candidates",), of, at, new)
    order = in_order(listed, orders)
    if order is not None:
        entries = table["candidates"][of]
        yield partial(_set, ("candidates",), of, [entries[at] for at in order])
    elif len(set(listed)) < len(listed):
        yield from _orders(("candidates",), of, len(listed))


def in_order(names: Sequence[str], orders: Iterable[Sequence[str]]) -> list[int] | None:
    """The places of ``names`` as all ``orders`` have them; None: as they are, or none fits."""
    after = _precedences(orders)
    if len(set(names)) < len(names):
        return None
    left = list(range(len(names)))
    order: list[int] = []
    while left:
        first = (a for a in left if not any((names[b], names[a]) in after for b in left if b != a))
        at = next(first, None)
        if at is None:
            return None
        order.append(at)
        left.remove(at)
    return None if order == sorted(order) else order


def place_in(names: Sequence[str], new: str, orders: Iterable[Sequence[str]]) -> int:
    """Where a new name belongs among ``names``: after all that come before it in ``orders``."""
    before = _precedences(orders)
    return max((at + 1 for at, name in enumerate(names) if (name, new) in before), default=0)


def _precedences(orders: Iterable[Sequence[str]]) -> set[tuple[str, str]]:
    """The pairs of names of which the first comes first in some order."""
    return {
        (name, later)
        for order in set(map(tuple, orders))
        for at, name in enumerate(order)
        for later in order[at + 1 :]
    }


def _orders(path: tuple[Any, ...], key: str, number: int) -> Iterator[Change]:
    """Every entry of a list in every other place."""
    for at in range(number):
        for to in range(number):
            if at != to:
                yield partial(_move, path, key, at, to)


def _layouts(table: Table, wrong: Sequence[Answered]) -> Iterator[Change]:
    """Cache layouts of other backends, where reasons about layouts differ; whom they bind."""
    shared = table["selection"].get("shared_layouts", [])
    reasons = {entry["reason"] for entry in shared}
    about = {c.backend for each in wrong for c in each.got.candidates}
    runs = any(_run(each) != "auto" for each in wrong)
    if not reasons or not runs:
        return
    known: list[Any] = []
    for backend in table["backends"].values():
        if backend.get("layouts") not in (None, *known):
            known.append(backend["layouts"])
    for name in sorted(about & table["backends"].keys()):
        for layouts in known:
            yield partial(_set, ("backends", name), "layouts", layouts)
        for of_class in table["classes"]:
            for layouts in known:
                yield partial(_set, ("backends", name), "layouts_on", {of_class: layouts})
        yield partial(_drop, ("backends", name), "layouts")
    for at, entry in enumerate(shared):
        for key in ("automatic", "explicit"):
            yield partial(_set, ("selection", "shared_layouts", at), key, not entry.get(key, True))


def _run(each: Answered) -> str:
    question = each.ask.question
    return question.run_kv_cache_dtype if isinstance(question, Request) else "auto"


# ---- vision, and ROCM_ATTN's decode kernel ---------------------------------------------------


def vision(table: Table, wrong: Sequence[Answered], learner: Learner) -> Iterator[Change]:
    """Rules that ask other conditions, dtypes or targets, that come, go or stand elsewhere."""
    del wrong
    rules = table["vit"]["rules"]
    edition = Edition.model_validate(table)
    words = ["aiter_supported", "aiter", "flash_attn", *edition.flags]
    words += [word for rule in edition.vit.rules for word in rule.when if "=" in word]
    explicit = {a.ask.backend for a in learner.answered if a.ask.backend and a.got.selected}
    for name in sorted(explicit - set(table["vit"]["explicit"])):
        yield partial(_insert, ("vit",), "explicit", len(table["vit"]["explicit"]), name)
    refused = {a.ask.backend for a in learner.answered if a.ask.backend and not a.got.selected}
    for at, name in enumerate(table["vit"]["explicit"]):
        if name in refused:
            yield partial(_remove, ("vit",), "explicit", at)
    for at, rule in enumerate(rules):
        for changed in _rules_like(rule, dict.fromkeys(words), table["classes"]):
            yield partial(_replace, ("vit",), "rules", at, changed)
            for place in range(len(rules)):
                yield partial(_insert, ("vit",), "rules", place, changed)
        yield partial(_remove, ("vit",), "rules", at)
    yield from _orders(("vit",), "rules", len(rules))


def _rules_like(
    rule: Table, words: Sequence[str] | dict[str, None], classes: Table
) -> Iterator[Table]:
    """A rule with one thing changed."""
    when = rule.get("when", [])
    for word in when:
        yield {**rule, "when": [other for other in when if other != word]}
    for word in words:
        if word not in when:
            yield {**rule, "when": [*when, word]}
    for dtypes in (None, list(DTYPES[:2]), list(DTYPES[:3])):
        yield _with(rule, "dtypes", dtypes)
    for name in (None, *classes):
        yield _with(rule, "only_on", name)


def _with(entry: Table, key: str, value: Any) -> Table:
    rest = {k: v for k, v in entry.items() if k != key}
    return rest if value is None else {**rest, key: value}


def decode_kernels(table: Table, wrong: Sequence[Answered], learner: Learner) -> Iterator[Change]:
    """Rules of the custom kernel with other bounds, conditions or targets."""
    questions = [a.ask.question for a in wrong if isinstance(a.ask.question, PagedAttention)]
    edition = Edition.model_validate(table)
    flags = [*edition.flags, *(f for f in dict.fromkeys(_variables(learner)) if f in edition.flags)]
    for name, rule in table.get("paged_attention", {}).items():
        put = partial(_set, ("paged_attention", name))
        for key, field in (
            ("head_sizes", "head_size"),
            ("block_sizes", "block_size"),
            ("dtypes", "dtype"),
        ):
            for value in sorted({getattr(q, field) for q in questions}):
                listed = rule[key]
                rest = [v for v in listed if v != value]
                yield partial(put, key, rest if value in listed else [*listed, value])
        low, high = rule["gqa_ratio"]
        for ratio in sorted({q.gqa_ratio for q in questions}):
            yield from (partial(put, "gqa_ratio", pair) for pair in ([ratio, high], [low, ratio]))
        for length in sorted({q.max_seq_len for q in questions}):
            yield partial(put, "max_seq_len", length)
        yield partial(put, "alibi", not rule["alibi"])
        for kv in ([*rule.get("kv_cache_dtypes", []), q.kv_cache_dtype] for q in questions[:8]):
            yield partial(put, "kv_cache_dtypes", list(dict.fromkeys(kv)))
        yield partial(_drop, ("paged_attention", name), "kv_cache_dtypes")
        for flag in flags:
            yield partial(put, "when", [*rule.get("when", []), flag])
        yield partial(_drop, ("paged_attention", name), "when")
        for other in table["classes"]:
            yield partial(_set, ("paged_attention",), other, rule)
        yield partial(_drop, ("paged_attention",), name)


def _variables(learner: Learner) -> Iterator[str]:
    for each in learner.answered:
        yield from each.platform.variables


# ---- what a change does ----------------------------------------------------------------------


def _holder(path: tuple[Any, ...], table: Table) -> Any:
    found: Any = table
    for key in path:
        found = found.setdefault(key, {}) if isinstance(found, dict) else found[key]
    return found


def _set(path: tuple[Any, ...], key: str, value: Any, table: Table) -> None:
    _holder(path, table)[key] = deepcopy(value)


def _drop(path: tuple[Any, ...], key: str, table: Table) -> None:
    _holder(path, table).pop(key, None)


def _list(path: tuple[Any, ...], key: str, table: Table) -> list[Any]:
    listed: list[Any] = _holder(path, table).setdefault(key, [])
    return listed


def _insert(path: tuple[Any, ...], key: str, at: int, value: Any, table: Table) -> None:
    listed = _list(path, key, table)
    if value not in listed:
        listed.insert(at, deepcopy(value))


def _replace(path: tuple[Any, ...], key: str, at: int, value: Any, table: Table) -> None:
    listed = _list(path, key, table)
    if at < len(listed):
        listed[at] = deepcopy(value)


def _remove(path: tuple[Any, ...], key: str, at: int, table: Table) -> None:
    listed = _list(path, key, table)
    if at < len(listed):
        del listed[at]


def _move(path: tuple[Any, ...], key: str, at: int, to: int, table: Table) -> None:
    listed = _list(path, key, table)
    if max(at, to) < len(listed):
        listed.insert(to, listed.pop(at))
