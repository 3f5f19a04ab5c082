"""Problems of the user's own: files of JSON, read without mercy, and their JSON Schema.

What a file may hold is stated once, in :class:`ProblemFile`: the fields of a :class:`Problem`, with
the numbers that each may be. ``problem.schema.json`` is made from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from conformance.errors import SuiteError, UsageError, nearest
from conformance.problems.cache_dtypes import CacheDtype
from conformance.problems.families import backends
from conformance.problems.problem import Kind, Order, Problem

SCHEMA = "problem.schema.json"
MOST_TOKENS = 1 << 24
# Of the largest tensor: what a GPU of 192 GB holds twice, with its oracle in float64 beside it.
MOST_ELEMENTS = 1 << 33
# Those of models that are served; kernels hold them in tiles of fixed size.
LATENT_RANKS, ROPE_SIZES = (256, 448, 512), (64,)
MOST_SHOWN = 10  # mistakes of one file

_Count = Annotated[int, Field(ge=1, le=1024)]
_Padding = Annotated[int, Field(ge=0, le=4096)]
_Length = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
_Lengths = Annotated[tuple[_Length, ...], Field(min_length=1, max_length=65_536)]
_Side = Annotated[int, Field(ge=-1, le=MOST_TOKENS)]
_Pair = tuple[_Length, _Length]
_Parents = Annotated[tuple[Annotated[int, Field(ge=0, le=1022)], ...], Field(max_length=1023)]
_Scale = Annotated[float, Field(gt=0, le=2.0**20, ge=2.0**-20)]
_SoftCap = Annotated[float, Field(ge=0, le=2.0**20)]

# What each field may be; of a field that is missing here only the type is checked, and a test says
# so. One that has a default may be left out.
LIMITS: dict[str, Any] = {
    "kind": Kind,
    "backend": Annotated[str, Field(min_length=1, max_length=64)],
    # What is not in it separates a case's name from the rest of what reports show.
    "id": Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,:+ -]{0,199}$")],
    "seed": Annotated[int, Field(ge=0, le=2**63 - 1)],
    "query_lens": _Lengths,
    "context_lens": _Lengths,
    "num_heads": _Count,
    "num_kv_heads": _Count,
    "head_size": _Count,
    "v_head_size": _Count,
    "dtype": Literal["float16", "bfloat16", "float32"],
    "kv_cache_dtype": CacheDtype,
    "key_lens": _Lengths | None,
    "block_size": Annotated[int, Field(ge=1, le=65_536)],
    "causal": bool,
    "window": tuple[_Side, _Side],
    "soft_cap": _SoftCap,
    "alibi": Literal["none", "linear", "sqrt"],
    "sinks": bool,
    "mm_prefix": tuple[tuple[_Pair, ...], ...],
    "prompts": _Lengths | tuple[()],
    "tree": _Parents,
    "interleaved": bool,
    "k_scale": _Scale,
    "v_scale": _Scale,
    "scale": _Scale | None,
    "new_tokens_from_cache": bool,
    "continued_from_cache": Annotated[int, Field(ge=0, le=MOST_TOKENS)],
    "head_pad": _Padding,
    "row_pad": _Padding,
    "extra_rows": _Padding,
    "spare_blocks": Annotated[int, Field(ge=0, le=MOST_TOKENS)],
    "shuffled": bool,
    "high_blocks": bool,
    "skipped_writes": _Padding,
    "evicted": bool,
    "block_pad": Annotated[int, Field(ge=0, le=MOST_TOKENS)],
    "table_spare": _Padding,
    "at_once": Annotated[int, Field(ge=0, le=2**31 - 1)],
    "pieces": _Padding,
    "order": Order,
    "fp8_edges": bool,
    "large_logits": bool,
    "dominant": tuple[_Pair, ...],
    "poison": Literal["nan", "inf", "huge"],
    "topk": Annotated[int, Field(ge=0, le=65_536)],
    "latent_rank": _Count,
    "rope_size": _Count,
    "tags": tuple[str, ...],
}


def _model() -> type[BaseModel]:
    hints = get_type_hints(Problem)
    columns: dict[str, Any] = {
        field.name: (
            LIMITS.get(field.name, hints[field.name]),
            ... if field.default is MISSING else field.default,
        )
        for field in fields(Problem)
    }
    made: type[BaseModel] = create_model(
        "Problem",
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        **columns,
    )
    made.__doc__ = Problem.__doc__
    return made


ProblemFile = _model()


def schema() -> dict[str, Any]:
    """The JSON Schema of a file: one problem, or several in a list."""
    one = ProblemFile.model_json_schema(ref_template="#/$defs/{model}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Attention problems, as rocm-conformance run --problem FILE reads them",
        "oneOf": [
            {"$ref": "#/$defs/problem"},
            {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/problem"}},
        ],
        "$defs": {"problem": {**one, "title": "Problem"}},
    }


def as_text(problems: Sequence[Problem]) -> str:
    """Problems as a file holds them; :func:`read_problems` gives the same ones again."""
    values = [problem.to_json() for problem in problems]
    return json.dumps(values[0] if len(values) == 1 else values, indent=2) + "\n"


def read_problems(path: Path) -> list[Problem]:
    """The problems of a file.

    Raises:
        UsageError: it cannot be read, or is no such file: names each field that is wrong, what is
            wrong with it, and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--problem {path}: cannot be read: {error}") from error
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--problem {path}: is no JSON: {error}") from error
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise UsageError(f"--problem {path}: the list is empty; expected at least one problem")
    mistakes: list[str] = []
    found: list[Problem] = []
    for number, row in enumerate(rows):
        wrong = list(_mistakes(row))
        where = f"problem {number}: " if isinstance(value, list) else ""
        mistakes += [f"{where}{text}" for text in wrong]
        if not wrong:
            found.append(Problem.from_json(row))
    if mistakes:
        raise UsageError(_listed(path, mistakes))
    return found


def refuse_same_ids(problems: Sequence[Problem]) -> None:
    """
    Raises:
        UsageError: two problems of a run have the same id, which reports would mix up.
    """
    twice = [name for name, count in Counter(p.id for p in problems).items() if count > 1]
    if twice:
        raise UsageError(f"--problem: several problems have the id {twice[0]!r}; give each its own")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the field {twice[0]!r} is there twice")
    return dict(pairs)


def _listed(path: Path, mistakes: Sequence[str]) -> str:
    more = len(mistakes) - MOST_SHOWN
    lines = [*mistakes[:MOST_SHOWN], *([f"and {more} other mistakes"] if more > 0 else [])]
    schema = "rocm-conformance problems schema prints what a file may hold"
    return "\n  ".join([f"--problem {path}:", *lines, schema])


def _mistakes(row: Any) -> Iterator[str]:
    """What is wrong with one problem, a sentence each."""
    if not isinstance(row, dict):
        yield f"is {_kind_of(row)}; expected an object with the fields of a problem"
        return
    try:
        # As JSON: there a list may be a tuple, and nothing else is taken for what it is not.
        ProblemFile.model_validate_json(json.dumps(row))
    except ValidationError as error:
        # A value that may be null is wrong in two ways, and a list because of what is in it.
        seen: set[str] = set()
        for each in error.errors():
            field = _place(each["loc"])
            if not any(other == field or other.startswith(f"{field}[") for other in seen):
                seen.add(field)
                yield f"{field}: {_words(each)}"
        return
    yield from does_not_fit(Problem.from_json(row))


def _place(location: tuple[int | str, ...]) -> str:
    """Where in a problem: query_lens[2]. What pydantic adds of its own (which type) is left out."""
    name, *rest = location
    return f"{name}{''.join(f'[{part}]' for part in rest if isinstance(part, int))}"


def _words(error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = nearest(name, list(ProblemFile.model_fields))
        return f"is no field of a problem.{near} Allowed: {', '.join(ProblemFile.model_fields)}"
    if error["type"] == "missing":
        return f"is missing; allowed: {_allowed(name)}"
    got = "" if isinstance(error["input"], (dict, list)) else f", got {_shown(error['input'])}"
    said = error["msg"][0].lower() + error["msg"][1:]
    return f"{said}{got}; allowed: {_allowed(name)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _allowed(name: str) -> str:
    """What a field may be, from its schema."""
    return _of_schema(ProblemFile.model_json_schema()["properties"][name])


def _of_schema(rule: dict[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(map(str, rule["enum"]))
    if "anyOf" in rule:
        return " or ".join(_of_schema(each) for each in rule["anyOf"])
    if rule["type"] == "array":
        inner = rule.get("items") or next(iter(rule.get("prefixItems", [])), {"type": "any"})
        count = "two" if rule.get("minItems") == rule.get("maxItems") == 2 else "a list"
        return f"{count} of [{_of_schema(inner)}]"
    low = rule.get("minimum", rule.get("exclusiveMinimum"))
    high = rule.get("maximum", rule.get("exclusiveMaximum"))
    if low is not None:
        return f"{rule['type']} from {low} to {high}"
    pattern = f" that matches {rule['pattern']}" if "pattern" in rule else ""
    return f"{rule['type']}{pattern}"


def does_not_fit(problem: Problem) -> Iterator[str]:
    """What is wrong with a problem whose fields are each as they may be, but not together."""
    if problem.backend not in backends():
        near = nearest(problem.backend, backends())
        yield (
            f"backend: no problems are made for {problem.backend!r}.{near} "
            f"Allowed: {', '.join(backends())}"
        )
        return
    count = len(problem.query_lens)
    for name in ("context_lens", "key_lens"):
        lens = getattr(problem, name)
        if lens is not None and len(lens) != count:
            yield f"{name}: has {len(lens)} entries; allowed: {count}, as many as query_lens"
            return
    try:
        problem.check()
    except SuiteError as error:
        yield str(error).partition(": ")[2]
        return
    yield from (f"{name}: {text}" for name, wrong, text in _rules(problem) if wrong)


def _rules(p: Problem) -> Iterator[tuple[str, bool, str]]:
    """(field, whether it is wrong, why and what is allowed)."""
    sizes = {
        "mla": (p.latent_rank + p.rope_size, p.latent_rank),
        "mla_sparse": (p.key_size, p.key_size if p.is_ds_mla else p.latent_rank),
        "mla_prefill": (p.head_size, p.v_head_size),
        "indexer": (128, 128),
    }
    key, value = sizes.get(p.kind, (p.head_size, p.v_head_size))
    of = f"for kind {p.kind}"
    yield "head_size", p.head_size != key, f"is {p.head_size}; allowed {of}: {key}"
    yield "v_head_size", p.v_head_size != value, f"is {p.v_head_size}; allowed {of}: {value}"
    short = p.kind == "mla_prefill" and p.head_size <= p.rope_size
    yield "head_size", short, f"is {p.head_size}; allowed {of}: above rope_size, {p.rope_size}"
    no_fp8 = p.kind == "indexer" and p.kv_cache_dtype not in ("fp8_e4m3fn", "fp8_e4m3fnuz")
    yield "kv_cache_dtype", no_fp8, f"is {p.kv_cache_dtype}; allowed {of}: an fp8_e4m3 encoding"
    cached = p.kind == "varlen" and p.kv_cache_dtype != "auto"
    yield "kv_cache_dtype", cached, f"is {p.kv_cache_dtype}; allowed {of}: auto, it has no cache"
    keyed = p.key_lens is not None and p.kind not in ("paged", "varlen")
    yield "key_lens", keyed, f"is given; allowed {of}: null"
    contexts = p.kind == "varlen" and any(p.context_lens)
    yield "context_lens", contexts, f"has a context; allowed {of}: 0 each, it has no cache"
    wants = p.kind not in ("paged", "varlen")
    causal = p.causal != wants and (wants or p.kind == "varlen" or p.key_lens is not None)
    yield "causal", causal, f"is {_word(p.causal)}; allowed {of}: {_word(wants)}"
    index = p.kind == "indexer" and p.num_kv_heads != 1
    yield "num_kv_heads", index, f"is {p.num_kv_heads}; allowed {of}: 1"
    if p.is_latent:
        ranks = p.latent_rank not in LATENT_RANKS
        yield "latent_rank", ranks, f"is {p.latent_rank}; allowed: {_any_of(LATENT_RANKS)}"
        rope = p.rope_size not in ROPE_SIZES
        yield "rope_size", rope, f"is {p.rope_size}; allowed: {_any_of(ROPE_SIZES)}"
    ranges = [r for of_one in p.mm_prefix for r in of_one if r[0] > r[1]]
    yield "mm_prefix", bool(ranges), f"has {ranges[:1]}; allowed: start to end, start first"
    yield "query_lens", not any(p.query_lens), "has no query token; allowed: one or more in all"
    yield "query_lens", sum(p.query_lens) > MOST_TOKENS, f"adds up to more than {MOST_TOKENS:,}"
    yield "num_heads", p.num_heads < p.num_kv_heads, f"is below num_kv_heads, {p.num_kv_heads}"
    most = max(_elements(p))
    yield (
        "context_lens",
        most > MOST_ELEMENTS,
        f"with the heads and their size that is a tensor of {most:,} elements; "
        f"allowed: {MOST_ELEMENTS:,}",
    )


def _word(value: bool) -> str:
    return json.dumps(value)


def _any_of(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _elements(p: Problem) -> Iterator[int]:
    """The sizes of a problem's large tensors, in elements."""
    yield sum(p.seq_lens) * p.num_kv_heads * max(p.head_size, p.key_size)
    rows = sum(p.query_lens) + p.extra_rows
    yield rows * (p.num_heads + p.row_pad) * (max(p.head_size, p.v_head_size) + p.head_pad)
    if p.has_cache:
        block = p.block_size * p.num_kv_heads * p.key_size * (1 if p.is_latent else 2)
        yield p.num_blocks * (block + p.block_pad)
    if p.is_sparse:
        yield rows * max(p.topk, 1)
    yield p.num_sequences * (max(p.seq_lens) // p.block_size + 5)
