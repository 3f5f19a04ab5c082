"""Rows of editions in words: what kind of change each is, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import PydanticUndefined

from vllm_editions import Backend
from vllm_editions.changes import Edit

NEW_WORD = "new word"
WORD_ONLY = "word only"
# What a change is called, by where in a table it is.
KINDS = {
    "candidates": "order",
    "backends": "capability",
    "selection.checks": "new check",
    "selection.block_size_checked": "new check",
    "selection.shared_layouts": "cache layouts",
    "selection.falls_through": "fall-through",
    "selection.aiter_supported_on": "target class",
    "classes": "target class",
    "flags": "variable",
    "vit": "vision rules",
    "paged_attention": "decode kernel",
    "asked": NEW_WORD,
}
_NAMES = {
    "asked.fields": "request fields",
    "asked.context": "engine configuration",
    "asked.kv_cache_dtypes": "KV-cache dtypes",
    "selection.block_size_checked": "block sizes are checked",
    "selection.aiter_supported_on": "aiter counts on",
    "selection.shared_layouts": "layouts that a run's layers share",
    "selection.falls_through": "an explicit backend gives way",
    "vit.rules": "in order",
    "vit.explicit": "backends that may be asked for in vision",
}

# What comes and goes as a whole.
_WHOLE = {"backends": "", "classes": "class ", "flags": "", "paged_attention": "rule of "}


def described(row: Edit, table: dict[str, Any]) -> tuple[str, str]:
    """A row's kind and what it says, for readers; ``table`` is what it is applied to."""
    kind = next(word for path, word in KINDS.items() if f"{row.path}.".startswith(f"{path}."))
    if row.path.endswith(".when"):
        return _conditions(kind, row, table)
    if row.path.endswith(".reason"):
        return WORD_ONLY, f"{row.value!r}, was {entry_at(row.path, table)!r}"
    if row.path == "selection.checks":
        return _check(row)
    top, _, rest = row.path.partition(".")
    if top == "backends" and "." not in rest:
        kind = "backend"
    return kind, _said(top, rest, row, table)


def _said(top: str, rest: str, row: Edit, table: dict[str, Any]) -> str:
    if top == "candidates":
        return f"{rest} candidates: {_entries(row)}"
    backend, _, field = rest.partition(".")
    if top == "backends" and field:
        return f"{field} of {backend}: {_what(row, table)}"
    if top in _WHOLE and (row.drop or entry_at(row.path, table) is None):
        return f"{_WHOLE[top]}{rest} {'is gone' if row.drop else 'is new'}"
    return f"{_NAMES.get(row.path, rest)}: {_what(row, table)}"


def _conditions(kind: str, row: Edit, table: dict[str, Any]) -> tuple[str, str]:
    """The conditions of a candidate, or of the custom decode kernel."""
    was = _listed(entry_at(row.path, table))
    came = [*row.add, *(word for word in _listed(row.value) if word not in was)]
    kept = was if row.add or row.remove else _listed(row.value)
    went = [*row.remove, *(word for word in was if word not in kept)]
    flags = table["flags"]
    if any("=" in word or word.removeprefix("!") in flags for word in (*came, *went)):
        kind = "variable"
    parts = [f"now needs {_needs(came)}" if came else ""]
    parts += [f"no longer needs {_needs(went)}" if went else ""]
    top, name, *_ = row.path.split(".")
    if top == "candidates":
        name = f"{row.path.split('.')[2]} as a {name} candidate"
    else:
        name = f"ROCM_ATTN's custom kernel on {name}"
    return kind, f"{name} {' and '.join(filter(None, parts))}"


def _needs(conditions: Sequence[str]) -> str:
    return ", ".join(f"not {c.removeprefix('!')}" if c.startswith("!") else c for c in conditions)


def _check(row: Edit) -> tuple[str, str]:
    names = ", ".join(repr(entry["reason"]) for entry in row.add or row.remove)
    if row.add and row.remove:
        return WORD_ONLY, f"{names} comes in another place"
    return "new check", names if row.add else f"{names} is gone"


def _entries(row: Edit) -> str:
    """What became of an entry of a candidate list."""
    (entry, *_) = row.add or row.remove or (row.value,)
    where = f" before {row.before}" if row.before else "" if row.at is None else f" at {row.at}"
    if row.add and row.remove:
        at_the_end = "" if where else " to the end"
        return f"{entry['backend']} moves{where}{at_the_end}"
    if not row.add:
        return f"without {_shown(entry)}"
    return f"{_shown(entry)} is new{where or ', last'}"


def _what(row: Edit, table: dict[str, Any]) -> str:
    """What an entry was, and what it is now."""
    was = _was(row, table)
    if row.add or row.remove:
        parts = [f"also {', '.join(map(_shown, row.add))}" if row.add else ""]
        parts += [f"without {', '.join(map(_shown, row.remove))}" if row.remove else ""]
        return "; ".join(filter(None, parts))
    now = _default(row.path) if row.drop else row.value
    if _holds_tables(was) or _holds_tables(now):
        came = [_shown(entry) for entry in _listed(now) if entry not in _listed(was)]
        went = [_shown(entry) for entry in _listed(was) if entry not in _listed(now)]
        parts = ["; ".join(came), f"no longer {'; '.join(went)}" if went else ""]
        return "; ".join(filter(None, parts)) or "in another order"
    return f"{_shown(now)}, was {_shown(was)}"


def _was(row: Edit, table: dict[str, Any]) -> Any:
    was = entry_at(row.path, table)
    return _default(row.path) if was is None else was


def _default(path: str) -> Any:
    """What a backend's field is where a table says nothing."""
    top, *_, last = path.split(".")
    field = Backend.model_fields.get(last) if top == "backends" else None
    default = None if field is None else field.default
    return None if default is PydanticUndefined else default


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        told = "; ".join(f"{_key(k)}{_shown(v)}" for k, v in value.items() if k != "backend")
        return " ".join(filter(None, (value.get("backend", ""), f"({told})" if told else "")))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "any"
    return "any" if value is None else str(value)


def _key(key: str) -> str:
    return "where " if key == "when" else f"{key} "


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _holds_tables(value: Any) -> bool:
    return isinstance(value, dict) or any(isinstance(entry, dict) for entry in _listed(value))


def entry_at(path: str, table: dict[str, Any]) -> Any:
    """What a table has at a path, or None."""
    found: Any = table
    for key in path.split("."):
        if isinstance(found, dict):
            found = found.get(key)
        else:
            entries = (e for e in _listed(found) if key in (e.get("backend"), e.get("supports")))
            found = next(entries, None)
    return found
