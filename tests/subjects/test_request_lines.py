"""``select``: one answer for each line, whatever the line holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conformance.cli import run_cli
from conformance.errors import InfrastructureError
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection, Vit
from conformance.subjects.base import Session
from conformance.subjects.reference import ReferenceSubject, edition_table
from conformance.subjects.request_lines import CHUNK, QUESTIONS, answer_lines
from conformance.worker.contract import BackendDescription, Variable

TABLE = edition_table("0.19")
BACKENDS = {
    "attention": list(TABLE.backends),
    "paged_attention": [],
    "vit": [*TABLE.vit.explicit, *TABLE.backends],
}
GOOD = '{"id": "good", "request": {"head_size": 64}}'
# A bad line, and what its error must name.
BAD = {
    "no JSON": ("{nope", ["Expecting property name"]),
    "two values": ("{} {}", ["Extra data"]),
    "a list": ("[1]", ["expected a JSON object", "[1]"]),
    "null": ("null", ["expected a JSON object", "null"]),
    "unknown key": ('{"requst": {}}', ["'requst'", "Did you mean 'request'", "question"]),
    "unknown field": ('{"request": {"head_sise": 1}}', ["'head_sise'", "Did you mean 'head_size'"]),
    "request no object": ('{"request": 7}', ["7", "object"]),
    "request null": ('{"request": null}', ["null"]),
    "bool for int": ('{"request": {"head_size": true}}', ["'head_size'", "integer", "true"]),
    "text for int": ('{"request": {"block_size": "16"}}', ["'block_size'", "integer", '"16"']),
    "float for int": ('{"request": {"head_size": 64.0}}', ["'head_size'", "integer", "64.0"]),
    "NaN for int": ('{"request": {"head_size": NaN}}', ["head_size"]),
    "int for bool": ('{"request": {"use_mla": 1}}', ["'use_mla'", "boolean", "1"]),
    "int for text": ('{"request": {"dtype": 16}}', ["'dtype'", "string", "16"]),
    "null head size": ('{"request": {"head_size": null}}', ["'head_size'", "null"]),
    "null dtype": ('{"request": {"dtype": null}}', ["'dtype'", "null"]),
    "null flag": ('{"request": {"has_sink": null}}', ["'has_sink'", "null"]),
    "unknown dtype": ('{"request": {"dtype": "half"}}', ["'half'", "float16", "float64"]),
    "unknown KV dtype": (
        '{"request": {"kv_cache_dtype": "fp8_e4m4"}}',
        ["'fp8_e4m4'", "Did you mean 'fp8_e4m3'", "fp8_ds_mla"],
    ),
    "unknown kind": ('{"request": {"attn_type": "x"}}', ["'x'", "decoder", "encoder_only"]),
    "unknown backend": ('{"backend": "ROCM_ATN"}', ["'ROCM_ATN'", "'ROCM_ATTN'", "TREE_ATTN"]),
    "backend no text": ('{"backend": ["ROCM_ATTN"]}', ["ROCM_ATTN", "TREE_ATTN"]),
    "unknown question": ('{"question": "mamba"}', ["'mamba'", "attention", "vit"]),
    "question a list": ('{"question": ["vit"]}', ["vit", "paged_attention"]),
    "question an object": ('{"question": {}}', ["paged_attention"]),
    "head size 0": ('{"request": {"head_size": 0}}', ["head_size", "at least 1", "0"]),
    "head size -64": ('{"request": {"head_size": -64}}', ["head_size", "at least 1", "-64"]),
    "block size 0": ('{"request": {"block_size": 0}}', ["block_size", "at least 1 or null"]),
    "field of another question": (
        '{"question": "vit", "request": {"block_size": 16}}',
        ["'block_size'"],
    ),
    "backend of another question": ('{"backend": "TORCH_SDPA"}', ["'TORCH_SDPA'", "TRITON_ATTN"]),
    "nested too deep": ("[" * 200_000, []),
    "lone surrogate": ('{"request": {"dtype": "\\ud800"}}', []),
    "a number too long": ('{"request": {"head_size": ' + "1" * 5000 + "}}", []),
}


def session() -> Session:
    return ReferenceSubject("0.19").open(Platform.make("gfx942", aiter=True))


def answers(*lines: str) -> list[dict[str, Any]]:
    return list(answer_lines(lines, session(), BACKENDS))


def is_bad(answer: dict[str, Any]) -> bool:
    return answer.get("error") == "bad_request"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_and_the_next_is_answered(name: str) -> None:
    line, named = BAD[name]
    bad, good = answers(line + "\n", GOOD + "\n")
    assert is_bad(bad)
    assert bad["line"] == 1
    assert bad["message"]
    for part in named:
        assert part in bad["message"]
    assert (good["id"], good["selected"]) == ("good", "ROCM_ATTN")


@pytest.mark.parametrize("identifier", [0, -1, 1.5, "", "ü", None, True, [1, {"a": []}], {"k": 2}])
def test_any_id_comes_back_with_answers_and_errors(identifier: Any) -> None:
    good, bad = answers(
        json.dumps({"id": identifier}), json.dumps({"id": identifier, "request": {"dtype": "x"}})
    )
    assert "selected" in good
    assert is_bad(bad)
    assert good["id"] == bad["id"] == identifier
    assert type(good["id"]) is type(identifier)


def test_a_line_without_an_id_has_a_null_one() -> None:
    assert [answer["id"] for answer in answers("{}", "{x")] == [None, None]


def test_null_is_a_value_where_vllm_has_none() -> None:
    request = {"kv_cache_dtype": None, "block_size": None}
    (answer,) = answers(json.dumps({"request": request, "backend": None}))
    assert answer["selected"] == "ROCM_ATTN"


def test_blank_lines_are_skipped_but_counted() -> None:
    (good, bad) = answers("\n", GOOD, "   \n", "\t\n", "{x")
    assert good["id"] == "good"
    assert bad["line"] == 5


def test_nothing_in_nothing_out() -> None:
    assert answers() == []


def test_order_is_kept_across_chunks_and_kinds_of_question() -> None:
    kinds: list[dict[str, Any]] = [
        {"request": {"head_size": 64, "has_sink": True}},
        {"question": "vit"},
        {"question": "paged_attention", "request": {"max_seq_len": 999_999}},
        {"question": "paged_attention"},
        {"request": {"dtype": "wrong"}},
    ]
    lines = [json.dumps({"id": i, **kinds[i % 5]}) for i in range(2 * CHUNK + 37)]
    got = answers(*lines)
    assert [answer["id"] for answer in got] == list(range(len(lines)))
    unified = "ROCM_AITER_UNIFIED_ATTN"
    wanted = [unified, "TORCH_SDPA", "triton", "custom", None]
    assert [answer.get("selected") for answer in got] == [wanted[i % 5] for i in range(len(lines))]
    assert all(answer["line"] == i + 1 for i, answer in enumerate(got) if i % 5 == 4)


def test_a_line_is_answered_as_the_subject_answers() -> None:
    asks = [
        Ask(Request(head_size=80, use_mla=True)),
        Ask(Request(), "TREE_ATTN"),
        Ask(Request(has_sink=True), "ROCM_ATTN"),
        Ask(PagedAttention(gqa_ratio=32)),
        Ask(Vit(dtype="float32"), "TREE_ATTN"),
    ]
    names = {kind: name for name, kind in QUESTIONS.items()}
    lines = [
        json.dumps(
            {
                "question": names[type(ask.question)],
                "request": asdict(ask.question),
                "backend": ask.backend,
            }
        )
        for ask in asks
    ]
    expected = [next(iter(session().ask([ask]))).as_json() for ask in asks]
    assert answers(*lines) == [{"id": None, **answer} for answer in expected]


class OneKindAtATime:
    """A session that refuses a batch of several kinds of question, as a worker does."""

    alive = True

    def __init__(self) -> None:
        self.info = session().info
        self.sizes: list[int] = []

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        assert len({type(ask.question) for ask in asks}) == 1
        self.sizes.append(len(asks))
        return session().ask(asks)

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        raise NotImplementedError(names)

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        raise NotImplementedError(backends)

    def close(self) -> None:
        pass


def test_a_session_gets_one_kind_of_question_at_a_time_and_no_bad_line() -> None:
    strict = OneKindAtATime()
    lines = ['{"question": "vit"}', "{}", "{x", '{"question": "vit"}', "{}", "{}"]
    assert len(list(answer_lines(lines, strict, BACKENDS))) == 6
    assert sorted(strict.sizes) == [2, 3]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([*Request.__dataclass_fields__, *PagedAttention.__dataclass_fields__])
VALUES = JSON | st.sampled_from(["float16", "fp8", "decoder", 128, 16, True, None])
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "question": st.sampled_from(list(QUESTIONS)) | JSON,
        "request": st.dictionaries(FIELDS, VALUES, max_size=3) | JSON,
        "backend": st.sampled_from([*BACKENDS["vit"], None]) | JSON,
    },
)
LINES = st.lists(st.text() | (JSON | NEARLY).map(json.dumps), max_size=12)


class Dying(OneKindAtATime):
    """A subject that has died by the time it is asked about vision."""

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        if isinstance(asks[0].question, Vit):
            raise InfrastructureError("the worker died", "its stderr")
        return super().ask(asks)


def test_what_was_answered_before_a_death_is_not_lost() -> None:
    lines = [GOOD, "{nope", GOOD, '{"question": "vit"}', GOOD]
    got = []
    with pytest.raises(InfrastructureError, match="its stderr"):
        for answer in answer_lines(lines, Dying(), BACKENDS):
            got.append(answer)
    assert [is_bad(answer) for answer in got] == [False, True, False]


@settings(max_examples=150, deadline=None)
@given(LINES)
@example(['{"question": []}', "{}"])
@example(['{"request": {"dtype": "\\udfff"}}', "{}"])
def test_any_lines_give_one_answer_each_that_is_json(lines: list[str]) -> None:
    got = answers(*lines)
    assert len(got) == sum(1 for line in lines if line.strip())
    for answer in got:
        assert json.loads(json.dumps(answer)).keys() == answer.keys()
        assert ("selected" in answer) != ("error" in answer)
        assert not is_bad(answer) or answer["message"]


def select(
    text: str | bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]]]:
    """Runs ``select`` on these lines: the exit code, and what was printed."""
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    code = run_cli(["select", "--target", "gfx942", "--aiter"])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_select_exits_0_when_every_line_was_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = '{"id": 2, "request": {"has_sink": true}, "backend": "ROCM_ATTN"}'
    code, lines = select(f"{GOOD}\n\n{rejected}\n", monkeypatch, capsys)
    assert code == 0
    assert [line["id"] for line in lines] == ["good", 2]
    assert lines[1]["error"] == "invalid_selected_backend"


def test_select_exits_2_when_a_line_was_bad_and_answers_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = select(f"{{x\n{GOOD}", monkeypatch, capsys)
    assert code == 2
    assert [is_bad(line) for line in lines] == [True, False]


def test_bytes_that_are_no_text_cost_their_own_line_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = select(b'{"id": "\xff"}\n' + GOOD.encode(), monkeypatch, capsys)
    assert code in (0, 2)
    assert lines[-1]["id"] == "good"
