"""A difference between two answers, taken apart and given to its requirement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from conformance.matrix.requests import (
    AITER,
    Ask,
    Candidate,
    PagedAttention,
    Platform,
    Question,
    Request,
    Selection,
    Vit,
)
from conformance.requirements import requirements_of
from conformance.requirements.attribution import (
    Facet,
    Rule,
    facets,
    family,
    requirement_of,
    rules_on,
    unnamed_part,
)

A, B, C = "ROCM_ATTN", "ROCM_AITER_UNIFIED_ATTN", "TRITON_ATTN"
SINKS, SIZE = "attention sinks not supported", "head_size not supported"


def answer(
    selected: str | None, candidates: Mapping[str, Sequence[str]], **changes: Any
) -> Selection:
    listed = tuple(Candidate(name, tuple(why)) for name, why in candidates.items())
    return replace(Selection(selected, listed), **changes)


EXPECTED = answer(B, {A: [SINKS], B: [], C: []})


def found(
    got: Selection,
    question: Question | None = None,
    backend: str | None = None,
    expected: Selection = EXPECTED,
) -> list[Facet]:
    return list(facets(Ask(question or Request(), backend), expected, got))


def test_equal_answers_have_no_facet() -> None:
    assert found(EXPECTED) == []
    assert found(replace(EXPECTED, message="another text")) == []


def test_a_lacking_and_an_added_reason_are_told_apart_from_the_choice() -> None:
    lacking = answer(A, {A: [], B: [], C: []})
    assert found(lacking) == [Facet("reason", "dense", False, A, SINKS)]
    both = answer(C, {A: [SIZE], B: [SIZE], C: []})
    assert set(found(both)) == {
        Facet("reason", "dense", False, A, SINKS),
        Facet("reason", "dense", False, A, SIZE),
        Facet("reason", "dense", False, B, SIZE),
    }


@pytest.mark.parametrize(
    "candidates",
    [{B: [], C: []}, {B: [], A: [SINKS], C: []}, {A: [SINKS], B: [], C: [], "X": []}],
)
def test_missing_added_and_reordered_candidates(candidates: dict[str, list[str]]) -> None:
    reordered = candidates.keys() == {A, B, C}
    assert found(answer(B, candidates)) == [Facet("candidates", "dense", reordered=reordered)]


def test_the_order_of_reasons_is_a_facet_of_its_own() -> None:
    expected = answer(C, {A: [SIZE, SINKS], C: []})
    got = answer(C, {A: [SINKS, SIZE], C: []})
    assert found(got, expected=expected) == [Facet("reason_order", "dense", False, A)]


def test_another_choice_from_the_same_candidates() -> None:
    got = replace(EXPECTED, selected=C)
    assert found(got) == [Facet("selected", "dense")]


def test_an_explicit_backend_that_was_replaced() -> None:
    expected = answer(None, {A: [SINKS]}, error="invalid_selected_backend", message=f"{A} {SINKS}")
    got = answer(C, {C: []})
    assert found(got, backend=A, expected=expected) == [Facet("selected", "dense", True)]


def test_a_crash_is_nothing_but_a_crash() -> None:
    got = answer(None, {}, error="crash", message="KeyError: 'x'")
    assert found(got) == [Facet("crash", "dense")]


def test_an_error_must_name_what_it_stands_on() -> None:
    error = answer(None, {A: [SINKS], C: [SIZE]}, error="no_valid_backend")
    good = replace(error, message=f"{A}: {SINKS}, {C}: {SIZE}")
    assert found(good, expected=good) == []
    for part in (A, SINKS, C, SIZE):
        got = replace(good, message=good.message.replace(part, "?"))
        assert unnamed_part(got) == part
        assert found(got, expected=good) == [Facet("message", "dense", False, "", part)]
    assert unnamed_part(EXPECTED) == ""


@pytest.mark.parametrize(
    ("question", "kind"), [(PagedAttention(), "paged_attention"), (Vit(), "vit")]
)
def test_questions_apart_from_the_selector(question: Question, kind: str) -> None:
    expected = Selection("custom", (Candidate("custom"),))
    assert found(Selection("custom"), question, expected=expected) == []
    (facet,) = found(Selection("triton"), question, expected=expected)
    assert (facet.kind, facet.explicit) == (kind, False)
    (facet,) = found(Selection(None, error="x"), question, "TORCH_SDPA", expected=expected)
    assert (facet.kind, facet.explicit) == (kind, True)


def test_the_family_of_a_request() -> None:
    assert family(Request()) == "dense"
    assert family(Request(use_mla=True)) == "mla"
    assert family(Request(use_mla=True, use_sparse=True)) == "sparse"


def test_the_first_rule_that_answers_decides() -> None:
    narrow = Rule(requirement="N", facet="reason", family="mla", backend=A, reason=SIZE)
    explicit = Rule(requirement="E", facet="reason", explicit=True)
    wide = Rule(requirement="W", facet="reason")
    rules = (narrow, explicit, wide)
    assert requirement_of(Facet("reason", "mla", True, A, SIZE), rules) == "N"
    assert requirement_of(Facet("reason", "mla", True, B, SIZE), rules) == "E"
    assert requirement_of(Facet("reason", "dense", False, A, SIZE), rules) == "W"
    assert requirement_of(Facet("reason", "mla", False, A, SINKS), rules) == "W"
    assert requirement_of(Facet("crash", "mla"), rules) is None


DENSE = Facet("candidates", "dense")
ON = {AITER: "1"}
WHERE = [
    (Platform.make("gfx90a"), "SEL-001"),
    (Platform.make("gfx942", env=ON), "SEL-001"),
    (Platform.make("gfx1100", aiter=True), "SEL-002"),
    (Platform.make("gfx1201"), "SEL-002"),
    (Platform.make("gfx942", aiter=True), "SEL-003"),
    (Platform.make("gfx950", aiter=True, env=ON), "SEL-004"),
    (
        Platform.make("gfx950", aiter=True, env={**ON, "VLLM_ROCM_USE_AITER_MHA": "0"}),
        "SEL-005",
    ),
    (Platform.make("gfx90a", aiter=True), "SEL-007"),
]


@pytest.mark.parametrize(("platform", "expected"), WHERE, ids=str)
def test_wrong_dense_candidates_break_the_requirement_of_the_platform(
    platform: Platform, expected: str
) -> None:
    rules = rules_on(platform, requirements_of("0.19"), "0.19.0")
    assert requirement_of(DENSE, rules) == expected


@pytest.mark.parametrize("platform", [platform for platform, _ in WHERE], ids=str)
def test_edition_018_holds_nobody_to_what_came_later(platform: Platform) -> None:
    known = requirements_of("0.18")
    rules = rules_on(platform, known, "0.18.1")
    named = requirement_of(DENSE, rules)
    assert named in known
    assert not known[named].introduced_by


def test_rules_of_release_bound_requirements_are_for_that_release() -> None:
    known = requirements_of("0.19")
    platform = Platform.make("gfx942", aiter=True)
    own = {rule.requirement for rule in rules_on(platform, known, "0.19.0")}
    older = {rule.requirement for rule in rules_on(platform, known, "0.18.1")}
    assert older < own
    assert {known[name].binds for name in own - older} == {"release"}
