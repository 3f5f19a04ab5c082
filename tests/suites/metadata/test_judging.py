"""Answers of an honest builder, and the same with one thing wrong: each is found, by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.suites.metadata.asked import Question, questions
from conformance.suites.metadata.judging import findings
from conformance.worker.metadata_contract import Fields, MetadataAnswer
from tests.suites.metadata.toy_builder import answer

BACKEND, EDITION = "ROCM_AITER_MLA", "0.33"
ASKED = [q for q in questions(BACKEND, EDITION, "quick", 1) if q.layer["at_once"] == 0]
OF_WINDOWS = [q for q in questions("ROCM_AITER_FA", EDITION, "quick", 1) if q.layer["window"]]
Change = Callable[[Fields], None]


def found(changed: Callable[[MetadataAnswer, int], None] | None = None) -> set[str]:
    """The requirements that are not met, over all questions; the change is made to each step."""
    numbers = set()
    for in_three, asked in ((False, ASKED), (True, [*ASKED, *OF_WINDOWS])):
        for question in asked:
            given = answer(question, in_three=in_three)
            for number in range(len(given["steps"])):
                if changed is not None:
                    changed(given, number)
            numbers |= {finding.requirement for finding in findings(question, given)}
    return numbers


def put(path: str, make: Callable[[Any], Any]) -> Change:
    """Makes another value of a field, wherever it is."""

    def change(fields: Fields) -> None:
        if path in fields and fields[path].get("value") is not None:
            fields[path] = {**fields[path], "value": make(fields[path]["value"])}

    return change


def drop(path: str) -> Change:
    def change(fields: Fields) -> None:
        fields.pop(path, None)

    return change


def part(path: str, **changed: Any) -> Change:
    def change(fields: Fields) -> None:
        if path in fields:
            fields[path] = {**fields[path], **changed}  # type: ignore[typeddict-item] # any of Seen's

    return change


def narrow(path: str, axis: int) -> Change:
    def change(fields: Fields) -> None:
        if path in fields:
            shape = list(fields[path]["shape"])
            shape[axis] //= 2
            fields[path] = {**fields[path], "shape": shape}

    return change


def _last(values: list[int]) -> list[int]:
    return [*values[:-1], values[-1] + 1]


def _first(values: list[int]) -> list[int]:
    return [values[0] + 1, *values[1:]]


WRONG: dict[str, tuple[str, Change]] = {
    "a row too many": ("MET-003", put("num_reqs", lambda n: n + 1)),
    "a token too few": ("MET-003", put("num_actual_tokens", lambda n: n - 1)),
    "starts of the batch before": ("MET-003", put("query_start_loc", _last)),
    "lengths without the new tokens": ("MET-003", put("seq_lens", lambda v: [n - 1 for n in v])),
    "a bound below the longest": ("MET-003", put("max_seq_len", lambda n: n - 1)),
    "a query longer than the bound": ("MET-003", put("max_query_len", lambda n: n - 1)),
    "another request's blocks": ("MET-004", put("block_table", _first)),
    "slots one further": ("MET-004", put("slot_mapping", lambda v: [n + 1 for n in v])),
    "a decode too few": ("MET-005", put("num_decodes", lambda n: n - 1)),
    "tokens of decodes": ("MET-005", put("num_decode_tokens", lambda n: n + 1)),
    "starts of prefills not from 0": (
        "MET-005",
        put("prefill.query_start_loc", lambda v: [n + 1 for n in v]),
    ),
    "tables of prefills from the decodes": ("MET-005", put("prefill.block_table", _first)),
    "a chunk that starts late": ("MET-006", put("prefill.chunked_context.starts", _last)),
    "a chunk left out": (
        "MET-006",
        put("extend_metadata.chunk_context_metadata.chunk_starts", lambda v: [0] * len(v)),
    ),
    "a chunk's total": ("MET-006", put("prefill.chunked_context.seq_tot", _first)),
    "a window one short": (
        "MET-006",
        put("extend_metadata.chunk_context_metadata.swa_metadata.swa_seq_starts", _first),
    ),
    "a page of another token": ("MET-007", put("decode.paged_kv_indices", _first)),
    "a page too few": ("MET-007", put("decode.paged_kv_indptr", lambda v: [*v[:-1], v[-1] - 1])),
    "each decode one token": ("MET-007", put("decode.qo_indptr", lambda v: list(range(len(v))))),
    "last pages of 0": ("MET-007", put("decode.paged_kv_last_page_len", lambda v: [0] * len(v))),
    "tokens of the request before": ("MET-008", put("req_id_per_token", lambda v: [0] * len(v))),
    "a token's keys one short": ("MET-008", put("q_to_klen", lambda v: [max(n - 1, 0) for n in v])),
    "a prefix in every request": ("MET-009", put("suffix_kv_lens", _first)),
    "no cascade": ("MET-009", put("use_cascade", lambda _: False)),
    "a table somewhere else": ("MET-013", part("decode.block_table", address=12)),
    "a shape of the batch": ("MET-013", part("decode.qo_indptr", shape=[2])),
    "a schedule for other buffers": ("MET-014", part("work_info_set", address=12)),
    "no schedule": ("MET-014", drop("reduce_final_map")),
    "partial results of half a head": ("MET-015", narrow("softmax_segm_output", 3)),
    "partial results of half the heads": ("MET-015", narrow("softmax_segm_max", 1)),
    "a workspace of half a head": ("MET-015", narrow("prefill.chunked_context.workspace", 1)),
    "starts of 64 bits": ("MET-016", part("decode.qo_indptr", dtype="int64")),
    "slots of 32 bits": ("MET-016", part("slot_mapping", dtype="int32")),
}


def test_an_honest_builder_meets_all() -> None:
    assert found() == set()


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_by_the_requirement_that_names_it(name: str) -> None:
    requirement, change = WRONG[name]
    moves = requirement == "MET-013"

    def changed(given: MetadataAnswer, number: int) -> None:
        if number or not moves:  # what moves is the replay's, not the capture's
            change(given["steps"][number]["fields"])

    assert requirement in found(changed)


def test_a_schedule_of_the_batch_before_is_found() -> None:
    def changed(given: MetadataAnswer, number: int) -> None:
        if number == 0:
            given["planned"] = [call for call in given["planned"] if call["step"] <= 0]

    assert found(changed) == {"MET-014"}


def test_buffers_for_single_tokens_are_found_where_drafts_are_verified() -> None:
    def changed(given: MetadataAnswer, _number: int) -> None:
        given["planned"][0]["arguments"]["max_seqlen_qo"] = {"value": 1}

    assert found(changed) == {"MET-014"}


def test_a_batch_that_the_builder_changes_is_found() -> None:
    def changed(given: MetadataAnswer, number: int) -> None:
        seen = given["steps"][number]["given"]
        seen["seq_lens"] = {**seen["seq_lens"], "value": [1]}

    assert found(changed) == {"MET-017"}


@pytest.mark.parametrize(
    ("role", "requirement"),
    [
        ("ordinary", "MET-001"),
        ("cascade", "MET-009"),
        ("drafting", "MET-011"),
        ("graph", "MET-012"),
        ("update", "MET-018"),
    ],
)
def test_an_error_belongs_to_the_call_that_raises_it(role: str, requirement: str) -> None:
    question = next(q for q in ASKED if q.role == role)
    given = answer(question)
    given["steps"][-1]["raised"] = "IndexError: out of range"
    assert {finding.requirement for finding in findings(question, given)} == {requirement}


def test_padding_that_goes_back_is_found_and_padding_of_any_length_is_not() -> None:
    question = next(q for q in ASKED if q.role == "graph" and len(q.steps[0].placed.table) > 1)
    given = answer(question)
    fields = given["steps"][-1]["fields"]
    lens = list(fields["decode.seq_lens"]["value"])  # type: ignore[arg-type] # a list of integers
    fields["decode.seq_lens"] = {**fields["decode.seq_lens"], "value": [*lens[:-1], 4]}
    assert list(findings(question, given)) == []
    ends = list(fields["decode.qo_indptr"]["value"])  # type: ignore[arg-type] # likewise
    fields["decode.qo_indptr"] = {**fields["decode.qo_indptr"], "value": [*ends[:-1], 0]}
    assert {f.requirement for f in findings(question, given)} >= {"MET-012"}


def test_a_threshold_between_one_token_and_all_is_found() -> None:
    question: Question = next(q for q in ASKED if q.role == "speculative")
    given = answer(question)
    given["threshold"] = 3
    assert "MET-010" in {finding.requirement for finding in findings(question, given)}


def test_a_builder_that_claims_no_graphs_is_asked_for_none() -> None:
    question = next(q for q in ASKED if q.role == "graph")
    given = answer(question)
    given["graphs"] = "NEVER"
    given["steps"][0]["raised"] = "AssertionError"
    assert list(findings(question, given)) == []
