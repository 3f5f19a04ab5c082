"""Requests as JSON lines in, selections as JSON lines out: what ``select`` reads and writes.

A bad line is answered with an error line that has its number and the reason; the lines after it are
still answered, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError

from conformance.errors import InfrastructureError, one_of
from conformance.matrix.requests import (
    ATTN_TYPES,
    DTYPES,
    Ask,
    PagedAttention,
    Question,
    Request,
    Selection,
    Vit,
)
from conformance.subjects.base import Session
from vllm_editions import kv_cache_dtypes

CHUNK = 256
BYTE_ORDER_MARK = "\ufeff"
QUESTIONS: dict[str, type[Request] | type[PagedAttention] | type[Vit]] = {
    "attention": Request,
    "paged_attention": PagedAttention,
    "vit": Vit,
}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind) for name, kind in QUESTIONS.items()
}
_KEYS = {"id", "request", "backend", "question"}


@dataclass(frozen=True)
class Line:
    """One line of input: a question, or what is wrong with the line."""

    number: int
    id: Any
    ask: Ask | None
    problem: str = ""


def parse(number: int, text: str, backends: dict[str, list[str]]) -> Line:
    """Reads one line; ``backends`` are the known names by kind of question."""
    identifier: Any = None
    kind = "attention"
    try:
        entry = _json(text)
        if not isinstance(entry, dict):
            raise ValueError(f"expected a JSON object, got {_shown(entry)}")
        identifier = entry.get("id")
        if unknown := entry.keys() - _KEYS:
            raise ValueError(str(one_of("key", min(unknown), sorted(_KEYS))))
        kind = str(entry.get("question", kind))
        return Line(number, identifier, _ask(entry, backends))
    except ValidationError as error:
        return Line(number, identifier, None, _explain(error, kind))
    except (ValueError, RecursionError) as error:
        return Line(number, identifier, None, str(error))


def _ask(entry: dict[str, Any], backends: dict[str, list[str]]) -> Ask:
    kind = entry.get("question", "attention")
    if not isinstance(kind, str) or kind not in QUESTIONS:
        raise ValueError(str(one_of("question", str(kind), list(QUESTIONS))))
    # From JSON, because strict validation accepts a dataclass from JSON only.
    question: Question = _ADAPTERS[kind].validate_json(json.dumps(entry.get("request", {})))
    _check_values(question)
    backend = entry.get("backend")
    if backend is not None and backend not in backends[kind]:
        raise ValueError(str(one_of("backend", str(backend), backends[kind])))
    return Ask(question, backend)


def _check_values(question: Question) -> None:
    if question.dtype not in DTYPES:
        raise ValueError(str(one_of("dtype", question.dtype, list(DTYPES))))
    if isinstance(question, Vit):
        return
    cache = question.kv_cache_dtype
    known = kv_cache_dtypes()
    if cache is not None and cache not in known:
        raise ValueError(str(one_of("kv_cache_dtype", cache, known)))
    if isinstance(question, Request) and question.run_kv_cache_dtype not in known:
        raise ValueError(str(one_of("run_kv_cache_dtype", question.run_kv_cache_dtype, known)))
    if question.head_size < 1:
        raise ValueError(f"head_size must be at least 1, got {question.head_size}")
    if question.block_size is not None and question.block_size < 1:
        raise ValueError(f"block_size must be at least 1 or null, got {question.block_size}")
    if isinstance(question, Request) and question.attn_type not in ATTN_TYPES:
        raise ValueError(str(one_of("attn_type", question.attn_type, list(ATTN_TYPES))))


def _json(text: str) -> Any:
    """The value of a line.

    Raises:
        ValueError: says where the line stops being JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON at character {error.pos + 1}: {error.msg}") from None


# What a field expects, by pydantic's word for the error.
_EXPECTED = {
    "int_type": "an integer",
    "bool_type": "a boolean, true or false",
    "string_type": "a string",
}


def _explain(error: ValidationError, kind: str) -> str:
    """What is wrong with a request, a sentence each; an unknown field with the nearest name."""
    known = [each.name for each in fields(QUESTIONS[kind])]
    problems = []
    for entry in error.errors():
        name = ".".join(str(part) for part in entry["loc"])
        if not name:
            problems.append(f"request: expected a JSON object, got {_shown(entry['input'])}")
        elif name not in known:
            problems.append(str(one_of("request field", name, known)))
        else:
            expected = _EXPECTED.get(entry["type"], entry["msg"])
            shown = _shown(entry["input"])
            problems.append(f"request field {name!r}: expected {expected}, got {shown}")
    return "; ".join(problems)


def _shown(value: Any) -> str:
    """A value as the line has it, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def answer_lines(
    texts: Iterable[str], session: Session, backends: dict[str, list[str]]
) -> Iterator[dict[str, Any]]:
    """Answers each line; blank lines are skipped but counted.

    Raises:
        InfrastructureError: the subject died; all lines before that have been answered.
    """
    plain = (text.removeprefix(BYTE_ORDER_MARK) for text in texts)
    numbered = ((n, text) for n, text in enumerate(plain, 1) if text.strip())
    while chunk := list(islice(numbered, CHUNK)):
        yield from _answer_chunk([parse(n, text, backends) for n, text in chunk], session)


def _answer_chunk(lines: list[Line], session: Session) -> Iterator[dict[str, Any]]:
    answers: dict[int, Selection] = {}
    died: InfrastructureError | None = None
    for kind in QUESTIONS.values():
        asked = [line for line in lines if line.ask and type(line.ask.question) is kind]
        asks = [line.ask for line in asked if line.ask]
        if asks and died is None:
            try:
                for line, selection in zip(asked, session.ask(asks), strict=True):
                    answers[line.number] = selection
            except InfrastructureError as error:
                died = error
    for line in lines:
        if died is not None and line.ask is not None and line.number not in answers:
            raise died
        if line.ask is None:
            problem = {"error": "bad_request", "line": line.number, "message": line.problem}
            yield {"id": line.id, **problem}
        else:
            yield {"id": line.id, **answers[line.number].as_json()}
