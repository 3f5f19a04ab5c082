"""``diff``: what moves between two sides, and that each kind of change is named as its cause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from conformance.cli import run_cli
from conformance.comparison.causes import CANDIDATES, Between, Cause, Explainer, Observed
from conformance.comparison.differential import Comparison, Group
from conformance.comparison.questions import Questions, changed_fields
from conformance.comparison.report import Report
from conformance.comparison.sides import (
    UNKNOWN_BACKEND,
    UNKNOWN_DTYPE,
    Side,
    Variables,
    Words,
    answers,
    label,
    sides,
)
from conformance.comparison.words import WORD_ONLY
from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.matrix.requests import Ask, Candidate, Platform, Request, Selection, Vit
from conformance.matrix.targets import TARGETS
from conformance.subjects.base import Options
from conformance.subjects.reference import answer, edition_table, selector_on
from vllm_editions import DEFAULT_EDITION, Edition, edition_rows, load_edition

Table = dict[str, Any]
Result = tuple[int, str, str]
RunCli = Callable[..., Result]
ON = Platform.make("gfx942", aiter=True, env={"VLLM_ROCM_USE_AITER": "1"})
PLAIN = Platform.make("gfx942")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunCli:
    def run_it(*arguments: str) -> Result:
        code = run_cli(["diff", "-n", "1", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_it


def side(edition: str) -> Side:
    return Side(edition, edition, edition, edition, build=False)


def words(edition: str) -> Words:
    return Words.of(side(edition), side(edition).subject(Options(edition)).open(PLAIN))


# ---- sides -----------------------------------------------------------------------------------


def both(*subjects: str, edition: str = "auto") -> tuple[Side, Side]:
    return sides(RunConfig(subjects=subjects, cells=("*",), edition=edition), print)


def test_a_side_is_an_edition_by_its_series() -> None:
    assert both("0.20", "0.33") == (side("0.20"), side("0.33"))


def test_the_reference_has_the_other_sides_edition_or_the_users() -> None:
    assert both("reference", "0.28")[0].edition == "0.28"
    assert both("reference", "0.28", edition="0.30")[0].edition == "0.30"
    assert both("reference", "reference")[0].edition == DEFAULT_EDITION


@pytest.mark.parametrize("wrong", ["0.17", "1.0", "vlm", "0.33.0"])
def test_a_side_that_is_neither_edition_nor_subject_is_a_usage_error(wrong: str) -> None:
    with pytest.raises(UsageError) as failed:
        both(wrong, "0.33")
    assert repr(wrong) in str(failed.value)


def test_a_field_that_a_side_does_not_know_is_left_out() -> None:
    ask = Ask(Request(use_dcp=True, has_sink=True))
    assert words("0.28").put(ask) == Ask(Request(has_sink=True))
    assert words("0.29").put(ask) is ask


def test_a_side_answers_for_words_that_it_does_not_know() -> None:
    turbo = Ask(Request(kv_cache_dtype="turboquant_k8v4"))
    run_turbo = Ask(Request(run_kv_cache_dtype="turboquant_k8v4"))
    tree = Ask(Request(), "TREE_ATTN")
    older, newer = words("0.19"), words("0.33")
    assert older.put(turbo) == older.put(run_turbo) == Selection(None, error=UNKNOWN_DTYPE)
    assert newer.put(tree) == Selection(None, error=UNKNOWN_BACKEND)
    assert newer.put(turbo) is turbo
    assert older.put(tree) is tree


def test_answers_come_in_the_order_of_questions_of_any_kind() -> None:
    subject = side("0.19").subject(Options("0.19"))
    session = subject.open(ON)
    asks = [Ask(Vit()), Ask(Request(), "TREE_ATTN"), Ask(Vit()), Ask(Request())]
    asks.insert(2, Ask(Request(kv_cache_dtype="nvfp4")))
    got = answers(session, words("0.19"), asks)
    assert [label(ask, a) for ask, a in zip(asks, got, strict=True)] == [
        "ROCM_AITER_FA (vision)",
        "TREE_ATTN",
        "not known",
        "ROCM_AITER_FA (vision)",
        "ROCM_ATTN",
    ]


# ---- platforms and questions -----------------------------------------------------------------


def test_platforms_are_every_setting_of_aiters_variables_and_each_other_by_itself() -> None:
    variables = Variables.of(*(load_edition(name) for name in ("0.18", "0.19")))
    found = list(variables.platforms("gfx942"))
    assert len(found) == len(set(found))
    plain = [p for p in found if not p.flash_attn and "VLLM_ROCM_CUSTOM_PAGED_ATTN=0" not in str(p)]
    assert len([p for p in plain if "FLASH" not in str(p)]) == 2 * 2**4
    for text in (
        "gfx942",
        "gfx942+aiter VLLM_ROCM_USE_AITER=1 VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION=1",
        "gfx942 VLLM_ROCM_CUSTOM_PAGED_ATTN=0",
        "gfx942+flash_attn",
        "gfx942+flash_attn FLASH_ATTENTION_TRITON_AMD_ENABLE=TRUE",
        "gfx942+aiter FLASH_ATTENTION_TRITON_AMD_ENABLE=TRUE",
    ):
        assert text in map(str, found)


def test_with_aiter_and_variables_there_is_one_platform() -> None:
    variables = Variables.of(load_edition("0.33"))
    assert list(variables.platforms("gfx942", True, False, {"A": "1"})) == [
        Platform.make("gfx942", aiter=True, env={"A": "1"})
    ]
    assert {p.aiter for p in variables.platforms("gfx942", False)} == {False}


def test_what_only_one_edition_knows_is_asked() -> None:
    asks = Questions(load_edition("0.18"), load_edition("0.33")).seeded("seed", 2000)
    assert len(asks) == 2000
    fields = {name for ask in asks for name in changed_fields(ask)}
    for name in ("use_dcp", "use_rswa", "use_kv_connector", "use_prefill_decode_attention"):
        assert name in fields
    dtypes = {ask.question.kv_cache_dtype for ask in asks if isinstance(ask.question, Request)}
    assert {"octave_k3v4", "nvfp4", "turboquant_k8v4"} <= dtypes
    backends = {ask.backend for ask in asks if isinstance(ask.question, Request)}
    assert {"TREE_ATTN", "ROCM_OCTAVE", None} <= backends


# ---- causes ----------------------------------------------------------------------------------


def changed(**entries: Any) -> Table:
    """The table of 0.33 with other entries, each by its path with two underscores for a dot."""
    table = deepcopy(edition_rows("0.33"))
    for path, value in entries.items():
        holder: Any = table
        *parents, last = path.split("__")
        for name in parents:
            holder = holder[name]
        holder[last] = value
    return table


def dense() -> list[Table]:
    listed: list[Table] = deepcopy(edition_rows("0.33"))["candidates"]["dense"]
    return listed


def without_mha() -> list[Table]:
    entries = dense()
    for entry in entries:
        if entry["backend"] == "ROCM_AITER_FA":
            entry["when"].remove("VLLM_ROCM_USE_AITER_MHA")
    return entries


def checks(**other: Any) -> list[Table]:
    found = deepcopy(edition_rows("0.33"))["selection"]["checks"]
    return [{**check, **(other if check["supports"] == "pcp" else {})} for check in found]


NO_MHA = ON.with_env({"VLLM_ROCM_USE_AITER_MHA": "0"})
NEW_CHECK = {"asked": ["has_sink"], "supports": "dcp", "reason": "sinks are refused"}
CASES: dict[str, tuple[Table, Platform, Ask, str, str]] = {
    "order": (
        changed(candidates__dense=[dense()[-1], *dense()[:-1]]),
        PLAIN,
        Ask(Request(kv_cache_dtype="ultraquant_4bit")),
        "order",
        "dense candidates: ULTRAQUANT moves before ROCM_AITER_UNIFIED_ATTN",
    ),
    "capability": (
        changed(backends__TRITON_ATTN__sinks=False),
        PLAIN,
        Ask(Request(has_sink=True)),
        "capability",
        "sinks of TRITON_ATTN: no, was yes",
    ),
    "new check": (
        changed(selection__checks=[*checks(), NEW_CHECK]),
        PLAIN,
        Ask(Request(has_sink=True)),
        "new check",
        "'sinks are refused'",
    ),
    "variable": (
        changed(candidates__dense=without_mha()),
        NO_MHA,
        Ask(Request(has_sink=True)),
        "variable",
        "ROCM_AITER_FA as a dense candidate no longer needs VLLM_ROCM_USE_AITER_MHA",
    ),
    "word only": (
        changed(selection__checks=checks(reason="no PCP")),
        PLAIN,
        Ask(Request(use_pcp=True)),
        WORD_ONLY,
        "'no PCP', was 'PCP not supported'",
    ),
    "target class": (
        changed(classes__cdna3_up=["gfx950"]),
        ON,
        Ask(Request(has_sink=True)),
        "target class",
        "cdna3_up: without gfx942, gfx1250",
    ),
    "vision rules": (
        changed(vit__rules=[{"backend": "TORCH_SDPA"}]),
        ON,
        Ask(Vit()),
        "vision rules",
        "in order: no longer",
    ),
}


def why(before: Table, after: Table, platform: Platform, ask: Ask) -> list[Cause]:
    tables = [Edition.model_validate(table) for table in (before, after)]
    given = [answer(selector_on(table, platform), ask) for table in tables]
    known = words("0.33")
    explainer = Explainer(Between(before, after))
    found = explainer.why(platform, ask, (given[0], given[1]), (known, known))
    assert given[0] != given[1]
    return [cause for cause in found if isinstance(cause, Cause)]


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_an_edition_is_named_as_the_cause(name: str) -> None:
    after, platform, ask, kind, text = CASES[name]
    (cause,) = why(edition_rows("0.33"), after, platform, ask)
    assert cause.kind == kind
    assert cause.text.startswith(text)


def test_changes_that_only_move_a_request_together_are_named_together() -> None:
    after = changed(backends__TRITON_ATTN__sinks=False, backends__ROCM_AITER_FA__sinks=False)
    after["backends"]["TRITON_MLA"]["dtypes"] = ["float16"]
    causes = why(edition_rows("0.33"), after, ON, Ask(Request(has_sink=True, dtype="float32")))
    assert [c.text for c in causes] == ["sinks of TRITON_ATTN: no, was yes"]
    causes = why(after, edition_rows("0.33"), ON, Ask(Request(has_sink=True)))
    assert [c.text for c in causes] == ["sinks of ROCM_AITER_FA: yes, was no"]
    fewer = changed(candidates__dense=[e for e in dense() if e["backend"] != "TRITON_ATTN"])
    fewer["backends"]["ROCM_ATTN"]["sinks"] = True
    fewer["backends"]["ROCM_AITER_FA"]["sinks"] = False
    fewer["backends"]["ROCM_AITER_UNIFIED_ATTN"]["sinks"] = False
    causes = why(edition_rows("0.33"), fewer, ON, Ask(Request(has_sink=True)))
    assert [c.text for c in causes] == ["sinks of ROCM_ATTN: yes, was no"]


def selection(*candidates: tuple[str, tuple[str, ...]]) -> Selection:
    listed = tuple(Candidate(backend, reasons) for backend, reasons in candidates)
    chosen = next((c.backend for c in listed if not c.rejected), None)
    return Selection(chosen, listed, None if chosen else "no_valid_backend")


def observed(before: Selection, after: Selection) -> list[Cause | Observed]:
    """What is said of answers that no edition gives."""
    known = words("0.33")
    explainer = Explainer(Between.editions("0.33", "0.33"))
    return list(explainer.why(PLAIN, Ask(Request()), (before, after), (known, known)))


def test_a_build_that_no_edition_explains_is_told_by_its_own_reasons() -> None:
    before = selection(("A", ()), ("B", ("x",)), ("C", ()))
    after = selection(("A", ("too small",)), ("B", ("y",)), ("C", ()))
    (found,) = observed(before, after)
    assert isinstance(found, Observed)
    assert found.causes({"too small"}, set()) == (Cause("capability", "A now says 'too small'"),)
    assert found.causes(set(), set()) == (Cause("new check", "A now says 'too small'"),)


def test_a_build_with_other_candidates_is_told_by_their_order() -> None:
    before, after = selection(("A", ()), ("B", ())), selection(("B", ()), ("A", ()))
    assert observed(before, after) == [Cause("order", "dense candidates: B, A, were A, B")]
    assert observed(before, selection(("C", ()), ("A", ()), ("B", ()))) == [
        Cause(CANDIDATES, "dense candidates: C new")
    ]


@pytest.mark.parametrize(
    ("where", "kind"),
    [("VLLM_ROCM_USE_AITER_MHA=0", "variable"), ("aiter", "order"), ("", "order")],
)
def test_candidates_that_come_or_go_by_a_variable_are_its_doing(where: str, kind: str) -> None:
    """A build that no edition explains: what the platforms of a difference have in common."""
    asked = set(Variables.of(load_edition("0.33")).platforms("gfx942"))
    cause = Cause(CANDIDATES, "dense candidates: ROCM_AITER_FA new")
    group = Group(Counter({("A", "B"): 1}), platforms={p for p in asked if where in str(p)})
    found = Comparison(asked, 9, Counter({("A", "B"): 1}), groups={(cause,): group})
    (told,) = Report((side("0.33"), side("0.33")), found).as_json()["causes"]
    assert told["causes"][0]["kind"] == kind
    assert (where.replace("aiter", "aiter installed") in told["where"]) is True


def test_a_word_is_another_only_where_neither_side_says_both() -> None:
    before = selection(("A", ("old word",)), ("B", ()))
    after = selection(("A", ("new word",)), ("B", ()))
    (found,) = observed(before, after)
    assert isinstance(found, Observed)
    assert found.causes({"old word"}, {"new word"}) == (
        Cause(WORD_ONLY, "'old word' is now 'new word'"),
    )
    assert found.causes({"old word", "new word"}, {"new word", "old word"}) == (
        Cause("capability", "A no longer says 'old word'"),
        Cause("capability", "A now says 'new word'"),
    )


def test_a_backend_that_gives_other_answers_than_its_edition_is_not_explained_by_it() -> None:
    before = answer(selector_on(edition_table("0.32"), PLAIN), Ask(Request()))
    odd = replace(before, selected="TRITON_ATTN")
    explainer = Explainer(Between.editions("0.32", "0.33"))
    known = (words("0.32"), words("0.33"))
    (found,) = explainer.why(PLAIN, Ask(Request()), (before, odd), known)
    assert found == Cause("order", "ROCM_ATTN is now TRITON_ATTN")


# ---- the command -----------------------------------------------------------------------------

ONE = ["--target", "gfx942", "--aiter", "--env", "VLLM_ROCM_USE_AITER=1", "--sweep", "600"]


def test_one_platform_of_two_editions_shows_what_moves_and_why(run: RunCli) -> None:
    code, out, _ = run("0.22", "0.23", *ONE, "--format", "json")
    found = json.loads(out)
    assert (code, found["platforms"], found["compared"]) == (0, 1, 600)
    assert found["moved"] == sum(move["count"] for move in found["moves"])
    assert found["differing"] == found["moved"] + found["other_reasons"]
    by_text = {c["causes"][0]["text"]: c for c in found["causes"] if len(c["causes"]) == 1}
    sinks = by_text["sinks of ROCM_AITER_FA: yes, was no"]
    assert sinks["causes"][0]["sources"] == [
        "https://github.com/vllm-project/vllm/blob/v0.23.0/vllm/v1/attention/backends/"
        "rocm_aiter_fa.py#L714"
    ]
    assert sinks["example"]["request"] == {"has_sink": True}
    moves = {(move["old"], move["new"]) for move in sinks["moves"]}
    assert ("ROCM_AITER_UNIFIED_ATTN", "ROCM_AITER_FA") in moves


def test_what_is_new_is_asked_and_named(run: RunCli) -> None:
    _, out, _ = run("0.32", "0.33", "--target", "gfx942", "--sweep", "3000", "--format", "json")
    found = json.loads(out)
    kinds = {cause["kind"] for entry in found["causes"] for cause in entry["causes"]}
    assert "new word" in kinds
    assert {"not known": "ROCM_OCTAVE"} in [{m["old"]: m["new"]} for m in found["moves"]]


@pytest.mark.parametrize("style", ["pretty", "markdown"])
def test_a_diff_for_readers_has_moves_causes_and_examples(style: str, run: RunCli) -> None:
    _, out, _ = run("0.22", "0.23", *ONE, "--format", style)
    for part in (
        "edition 0.22 and edition 0.23: of 600 requests on 1 platform ",
        "ROCM_AITER_UNIFIED_ATTN",
        "sinks of ROCM_AITER_FA: yes, was no",
        "request: has_sink=True",
        "/v0.23.0/vllm/v1/attention/backends/rocm_aiter_fa.py#L714",
    ):
        assert part in out
    if style == "markdown":
        assert "| selected before | selected now | requests |" in out.splitlines()
        assert out.count("<details>") == out.count("</details>") == 1


def test_exit_code_says_whether_anything_differs(run: RunCli) -> None:
    few = ["--target", "gfx942", "--sweep", "400"]
    assert run("0.22", "0.23", *few)[0] == 0
    assert run("0.22", "0.23", *few, "--exit-code")[0] == 1
    assert run("0.21", "0.22", *few, "--exit-code")[0] == 0


def test_the_reference_and_itself_agree_everywhere(run: RunCli) -> None:
    code, out, _ = run(
        "reference", "reference", "--sweep", "2000", "--exit-code", "--format", "json"
    )
    found = json.loads(out)
    assert (code, found["differing"], found["compared"]) == (0, 0, 2000)
    assert found["causes"] == found["moves"] == []
    variables = Variables.of(load_edition(DEFAULT_EDITION))
    assert found["platforms"] == len(TARGETS) * len(list(variables.platforms("gfx942")))
