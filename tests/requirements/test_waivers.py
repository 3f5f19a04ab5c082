"""Waivers: what they excuse, what they do not, and when they fail a run themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import UsageError
from conformance.requirements import all_requirements
from conformance.requirements.waivers import (
    DEFAULT_PATH,
    SUITE,
    Waiver,
    WaiverSet,
    base_version,
    load_waivers,
    matches,
)
from conformance.results import CaseResult, Identity, Outcome

A, B = "rocm72-aiter-mha", "rocm72-noaiter-mha"
TODAY = date(2027, 1, 31)
CASE = CaseResult(
    suite="selection",
    name="SEL-004 row [gfx942+aiter]",
    outcome=Outcome.FAILED,
    cells=(A, B),
    subject="vllm",
    subject_version="0.19.0",
    edition="0.19",
    requirement="SEL-004",
    source="https://example.org/source",
    target="gfx942",
    platform="gfx942+aiter",
    simulated=True,
    message="expected ROCM_ATTN, got TRITON_ATTN",
)
PASSED = replace(CASE, outcome=Outcome.PASSED)
WAIVER = Waiver(
    id="W-1",
    requirement="SEL-004",
    reason="upstream disagrees",
    url="https://example.org/issue",
    expires=TODAY,
    subject="vllm==0.19.*",
)


def waivers(*changes: dict[str, Any], today: date = TODAY) -> WaiverSet:
    return WaiverSet(tuple(replace(WAIVER, **change) for change in changes), today)


REASON = "waived until 2027-01-31: upstream disagrees https://example.org/issue"


def test_a_failure_that_fits_is_waived_with_its_message_kept_and_the_reason_given() -> None:
    waived = replace(CASE, outcome=Outcome.WAIVED, waiver="W-1", detail=REASON)
    assert waivers({}).apply(CASE) == [waived]
    (case,) = waivers({}).apply(replace(CASE, detail="what it wrote"))
    assert case.detail == f"{REASON}\n\nwhat it wrote"


def test_every_finding_of_a_case_must_be_one_that_the_waiver_is_for() -> None:
    spill = "first_kernel: 8 spilled vector registers, 36 bytes of scratch a lane"
    other = "second_kernel: 2 spilled vector registers, 12 bytes of scratch a lane"
    case = replace(CASE, message=spill, findings=(spill,))
    only_first = waivers({"findings": ("first_kernel: * spilled vector registers, *",)})
    assert only_first.apply(case)[0].outcome is Outcome.WAIVED
    both = replace(case, message=f"{spill}; {other}", findings=(spill, other))
    assert only_first.apply(both) == [both]
    second = replace(case, message=other, findings=(other,))
    assert only_first.apply(second)[0].outcome is Outcome.FAILED
    either = waivers({"findings": ("first_kernel: *", "second_kernel: *")})
    assert either.apply(both)[0].outcome is Outcome.WAIVED
    # A finding is one text, whatever stands in it; a case without a list has found its message.
    one = replace(case, findings=(f"first_kernel: it said; {other}",))
    assert waivers({"findings": ("first_kernel: *",)}).apply(one)[0].outcome is Outcome.WAIVED
    assert only_first.apply(replace(case, findings=()))[0].outcome is Outcome.WAIVED
    # It was needed for nothing that it covers: only a pass of all of them calls it stale.
    assert closing(only_first, [both]) == []
    assert "stale" in closing(only_first, [replace(both, outcome=Outcome.PASSED)])[0].message


SHIPPED = load_waivers(today=date(2027, 1, 1))


def codegen_case(name: str, target: str, message: str) -> CaseResult:
    return replace(
        CASE,
        suite="codegen",
        name=f"{name} on {target}",
        requirement=name.partition(" ")[0],
        subject="vllm==0.19.0",
        target=target,
        message=message,
        identities=(Identity("spill", (message.partition(":")[0],)),),
    )


UNIFIED = "kernel_unified_attention_2d"
SPILLS = "{}: 33 spilled vector registers, 136 bytes of scratch a lane"


@pytest.mark.parametrize(
    ("name", "target", "kernel"),
    [
        ("CGN-003 prefill[dtype=float16,head_size=128]", "gfx942", "_fwd_kernel"),
        (
            "CGN-003 unified_2d[dtype=float16,head_size=80]",
            "gfx1151",
            "kernel_unified_attention_2d",
        ),
        ("CGN-003 paged_2d[dtype=float16,head_size=80]", "gfx1201", "kernel_paged_attention_2d"),
    ],
)
def test_a_known_spill_of_vllm_is_waived(name: str, target: str, kernel: str) -> None:
    (case,) = SHIPPED.apply(codegen_case(name, target, SPILLS.format(kernel)))
    assert case.outcome is Outcome.WAIVED and "cannot change" in case.detail


@pytest.mark.parametrize(
    ("name", "target", "kernel"),
    [
        ("CGN-003 prefill[dtype=float16,head_size=64]", "gfx942", "_fwd_kernel"),
        ("CGN-003 prefill[dtype=float16,head_size=128]", "gfx950", "_fwd_kernel"),
        (
            "CGN-003 unified_2d[dtype=float16,head_size=80]",
            "gfx1201",
            "kernel_unified_attention_2d",
        ),
        ("CGN-003 unified_2d[dtype=float16,head_size=80]", "gfx1151", "another_kernel"),
        ("CGN-003 merge[dtype=float16,head_size=128]", "gfx1100", "merge_attn_states_kernel"),
        ("CGN-001 prefill[dtype=float16,head_size=128]", "gfx942", "_fwd_kernel"),
    ],
)
def test_a_new_spill_elsewhere_still_fails(name: str, target: str, kernel: str) -> None:
    case = codegen_case(name, target, SPILLS.format(kernel))
    assert SHIPPED.apply(case) == [case]
    newer = replace(case, subject="vllm==0.20.0", subject_version="0.20.0")
    assert SHIPPED.apply(newer) == [newer]


@pytest.mark.parametrize(
    "change",
    [
        {"requirement": "SEL-005"},
        {"subject": "vllm==0.18.*"},
        {"subject": "vllm"},
        {"releases": ">=0.20"},
        {"releases": ">=0.18,<0.19"},
        {"cells": ("rocm70-*",)},
        {"targets": ("gfx90a",)},
        {"platforms": ("device isa:*",)},
        {"case": "SEL-004 row [gfx950*"},
    ],
)
def test_each_part_of_the_scope_counts(change: dict[str, Any]) -> None:
    assert waivers(change).apply(CASE) == [CASE]


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "*"},
        {"releases": ">=0.18,<0.32"},
        {"cells": ("rocm70-*", "rocm72-*")},
        {"targets": ("gfx90a", "gfx94?")},
        {"platforms": ("device isa:*", CASE.platform)},
        {"case": "* [gfx942*]"},
        {"case": CASE.name},
    ],
)
def test_patterns_fit(change: dict[str, Any]) -> None:
    assert [case.outcome for case in waivers(change).apply(CASE)] == [Outcome.WAIVED]


# ---- builds by their base version --------------------------------------------------------------

BY_NAME = {"subject": "vllm==0.19.*", "releases": ">=0.19,<0.19.2"}


@pytest.mark.parametrize("subject", ["/src/vllm", "vllm", "/env/bin/python"])
@pytest.mark.parametrize(
    "version",
    ["0.19.0", "0.19.0+12.gabc1234", "0.19.1.dev5+gabc1234", "0.19.1rc2", "dev", "", "0.1.dev7+g1"],
)
def test_a_fork_or_checkout_is_judged_by_its_base_version(subject: str, version: str) -> None:
    case = replace(CASE, subject=subject, subject_version=version)
    assert waivers(BY_NAME).apply(case)[0].outcome is Outcome.WAIVED


@pytest.mark.parametrize("version", ["0.20.0", "0.20.0rc1.dev4+gabc", "0.18.1", "0.19.2.dev1"])
def test_a_checkout_of_another_release_is_not(version: str) -> None:
    case = replace(CASE, subject="/src/vllm", subject_version=version, edition="0.20")
    assert waivers(BY_NAME).apply(case) == [case]


def test_a_build_without_a_version_is_of_the_edition_that_judges_it() -> None:
    case = replace(CASE, subject="/src/vllm", subject_version="dev", edition="0.20")
    assert waivers(BY_NAME).apply(case) == [case]
    assert base_version(case) == "0.20.0"
    assert base_version(replace(case, edition="")) == ""


@pytest.mark.parametrize("subject", ["reference", "worker:python select.py"])
def test_what_is_no_vllm_is_known_by_its_name_alone(subject: str) -> None:
    case = replace(CASE, subject=subject)
    assert waivers(BY_NAME).apply(case) == [case]
    assert waivers({"subject": f"{subject}==*"}).apply(case)[0].outcome is Outcome.WAIVED


def test_aiter_alone_is_no_vllm_either() -> None:
    case = replace(CASE, subject="amd-aiter==0.1.7", subject_version="0.1.7")
    assert waivers(BY_NAME).apply(case) == [case]
    assert waivers({"subject": "amd-aiter==0.1.*"}).apply(case)[0].outcome is Outcome.WAIVED


def test_a_checkout_may_have_mended_what_is_waived() -> None:
    passed = replace(PASSED, subject="/src/vllm")
    assert closing(waivers(BY_NAME), [passed]) == []
    assert "stale" in closing(waivers(BY_NAME), [passed, PASSED])[0].message


# ---- findings by what they are -----------------------------------------------------------------

SHORT = Identity("wrong-value", ("write", "decode"), ("one-short",))
BOTH = replace(SHORT, deviations=("one-short", "no-prefix"))
POISON = Identity("non-finite", ("decode",), ("unused",), "PAR-080")


def found(*identities: Identity, **changes: Any) -> CaseResult:
    texts = tuple(f"finding {number}" for number, _ in enumerate(identities))
    return replace(CASE, findings=texts, identities=identities, **changes)


def outcomes(these: WaiverSet, case: CaseResult) -> list[tuple[str, str]]:
    return [(part.outcome.value, part.waiver) for part in these.apply(case)]


FAILS = [("failed", "")]


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({"kinds": ("wrong-value",)}, True),
        ({"kinds": ("non-finite", "raised")}, False),
        ({"kernels": ("write", "dec*")}, True),
        ({"kernels": ("decode",)}, False),
        ({"deviations": ("one-short",)}, True),
        ({"deviations": ("no-prefix",)}, False),
        ({"deviations": ("one-short",), "kinds": ("raised",)}, False),
        ({"deviations": ("one-short",), "findings": ("another*",)}, False),
    ],
)
def test_a_finding_is_accepted_for_what_it_is(change: dict[str, Any], accepted: bool) -> None:
    expected = [("waived", "W-1")] if accepted else FAILS
    assert outcomes(waivers(change), found(SHORT)) == expected


def test_a_second_fault_under_a_waived_one_fails() -> None:
    short = waivers({"deviations": ("one-short",)})
    assert outcomes(short, found(SHORT)) == [("waived", "W-1")]
    # A value that is not that deviation, an error, a write outside: each is another finding.
    for other in (replace(SHORT, deviations=()), Identity("raised"), Identity("write-outside")):
        assert outcomes(short, found(other)) == FAILS
        assert outcomes(short, found(SHORT, other)) == FAILS
    # A suite that does not say what its finding is gets no waiver for what it is.
    assert outcomes(short, replace(found(SHORT), identities=())) == FAILS


def test_several_waivers_accept_what_is_several_deviations() -> None:
    short, prefix = {"deviations": ("one-short",)}, {"id": "W-2", "deviations": ("no-prefix",)}
    assert outcomes(waivers(short), found(BOTH)) == FAILS
    (part,) = waivers(short, prefix).apply(found(BOTH))
    assert (part.outcome, part.waiver) == (Outcome.WAIVED, "W-1 + W-2")
    assert part.detail.count("waived until") == 2


def test_a_finding_may_break_another_requirement_than_its_case() -> None:
    poison = {"id": "W-2", "requirement": "PAR-080", "case": "PAR-080 row*"}
    short = {"deviations": ("one-short",)}
    assert outcomes(waivers(short, poison), found(SHORT, POISON)) == [("waived", "W-1 + W-2")]
    assert outcomes(waivers(short), found(SHORT, POISON)) == FAILS
    assert outcomes(waivers({**short, "requirement": "PAR-080"}), found(SHORT)) == FAILS


def test_an_expired_one_of_several_accepts_nothing() -> None:
    late = {"id": "W-2", "deviations": ("no-prefix",), "expires": date(2020, 1, 1)}
    assert outcomes(waivers({"deviations": ("one-short",)}, late), found(BOTH)) == FAILS


def test_cells_are_split_by_the_waivers_that_they_need() -> None:
    one, two = {"cells": (A,)}, {"id": "W-2", "cells": ("rocm72-*",)}
    assert outcomes(waivers(one, two), found(SHORT)) == [("waived", "W-1"), ("waived", "W-2")]


def test_an_unknown_kind_of_finding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown kind of finding 'spil'. Did you mean 'spill'"):
        load(tmp_path, GOOD + 'kinds = ["spil"]\n')
    known = load(tmp_path, GOOD + 'kinds = ["spill", "wrong-*"]\n')
    assert known.waivers[0].kinds == ("spill", "wrong-*")


def test_brackets_in_a_pattern_are_brackets() -> None:
    assert matches("a [bc]", "a [bc]")
    assert not matches("a [bc]", "a b")


@pytest.mark.parametrize(
    "outcome", [Outcome.PASSED, Outcome.UNSUPPORTED, Outcome.ERRORED, Outcome.WAIVED]
)
def test_only_failures_are_waived(outcome: Outcome) -> None:
    case = replace(CASE, outcome=outcome)
    assert waivers({}).apply(case) == [case]


def test_a_waiver_for_some_cells_splits_the_case() -> None:
    waived, failed = waivers({"cells": ("*-noaiter-*",)}).apply(CASE)
    assert (waived.outcome, waived.cells, waived.waiver) == (Outcome.WAIVED, (B,), "W-1")
    assert (failed.outcome, failed.cells, failed.waiver) == (Outcome.FAILED, (A,), "")
    assert waived.message == failed.message == CASE.message


def test_several_waivers_share_a_case_without_overlap() -> None:
    three = replace(CASE, cells=(A, B, "rocm70-aiter-mha"))
    parts = waivers({"id": "W-1", "cells": (A,)}, {"id": "W-2", "cells": ("rocm72-*",)}).apply(
        three
    )
    assert [(part.waiver, part.cells) for part in parts] == [
        ("W-1", (A,)),
        ("W-2", (B,)),
        ("", ("rocm70-aiter-mha",)),
    ]
    assert parts[-1].outcome is Outcome.FAILED


def test_a_case_outside_of_the_matrix_needs_a_waiver_for_all_cells() -> None:
    case = replace(CASE, cells=())
    assert [part.outcome for part in waivers({}).apply(case)] == [Outcome.WAIVED]
    assert waivers({"cells": ("rocm72-*",)}).apply(case) == [case]


def test_a_waiver_holds_until_the_end_of_its_last_day() -> None:
    assert waivers({}, today=TODAY).apply(CASE)[0].outcome is Outcome.WAIVED
    assert waivers({}, today=date(2027, 2, 1)).apply(CASE) == [CASE]


def closing(
    these: WaiverSet, cases: list[CaseResult], *, partial: bool = False
) -> list[CaseResult]:
    applied = [part for case in cases for part in these.apply(case)]
    return these.closing_cases(applied, partial=["*"] if partial else [])


def test_a_waiver_that_is_needed_closes_quietly() -> None:
    assert closing(waivers({}), [CASE, replace(PASSED, name="another")]) == []


def test_an_expired_waiver_fails_and_says_how_to_go_on() -> None:
    late = waivers({}, today=date(2027, 2, 1))
    (case,) = closing(late, [CASE])
    assert (case.suite, case.name, case.outcome) == (SUITE, "W-1", Outcome.FAILED)
    assert "expired on 2027-01-31" in case.message
    assert "renew" in case.message
    (case,) = closing(late, [PASSED])
    assert "pass now: delete it" in case.message
    assert len(closing(late, [CASE], partial=True)) == 1


def test_a_stale_waiver_fails() -> None:
    (case,) = closing(waivers({}), [PASSED, replace(PASSED, name="another")])
    assert "stale: all 2 cases it covers pass" in case.message
    assert "delete it from waivers.toml" in case.message
    assert case.cells == (A, B)
    assert (case.requirement, case.source) == ("SEL-004", WAIVER.url)


def test_a_waiver_that_fits_no_case_fails_when_its_requirement_was_judged() -> None:
    (case,) = closing(waivers({"case": "SEL-004 rwo*"}), [PASSED])
    assert "fits no case" in case.message
    assert "'SEL-004 rwo*'" in case.message
    assert CASE.name in case.message


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "vllm==0.18.1", "expires": date(2020, 1, 1)},
        {"requirement": "REM-001", "expires": date(2020, 1, 1)},
        {"cells": ("rocm100-*",)},
        {"targets": ("gfx1201",)},
    ],
)
def test_a_waiver_whose_scope_was_not_run_is_no_failure(change: dict[str, Any]) -> None:
    assert closing(waivers(change), [PASSED]) == []


@pytest.mark.parametrize("outcome", [Outcome.UNSUPPORTED, Outcome.ERRORED])
def test_a_waiver_whose_cases_were_not_judged_is_no_failure(outcome: Outcome) -> None:
    unjudged = replace(CASE, outcome=outcome)
    assert closing(waivers({}), [unjudged]) == []
    assert closing(waivers({}), [replace(PASSED, name="another"), unjudged]) == []


def test_a_partial_run_calls_no_waiver_stale_or_unmatched() -> None:
    assert closing(waivers({}), [PASSED], partial=True) == []
    assert closing(waivers({"case": "nothing"}), [PASSED], partial=True) == []


def test_a_waiver_needed_by_one_subject_is_not_stale_for_the_others() -> None:
    other = replace(PASSED, subject_version="0.19.1")
    assert closing(waivers({}), [CASE, other]) == []
    failures = closing(waivers({}), [PASSED, other])
    assert [case.subject_version for case in failures] == ["0.19.0", "0.19.1"]


def test_a_failing_waiver_cannot_be_waived() -> None:
    (stale,) = closing(waivers({}), [PASSED])
    assert waivers({"id": "W-2"}).apply(stale) == [stale]


def test_two_waivers_for_one_failure_are_both_needed() -> None:
    assert closing(waivers({"id": "W-1"}, {"id": "W-2"}), [CASE]) == []


GOOD = """
[[waiver]]
id = "W-1"
requirement = "SEL-004"
reason = "upstream disagrees"
url = "https://example.org/issue"
expires = 2027-01-31
subject = "vllm==0.19.*"
"""


def load(tmp_path: Path, text: str, **known: Any) -> WaiverSet:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_waivers(path, today=TODAY, **known)


def test_a_waiver_file_is_read(tmp_path: Path) -> None:
    more = 'cells = ["rocm7*"]\ntargets = ["gfx942"]\ncase = "a*"\n'
    these = load(tmp_path, GOOD + more, requirements=["SEL-004"], cells=[A])
    expected = replace(WAIVER, cells=("rocm7*",), targets=("gfx942",), case="a*")
    assert these == WaiverSet((expected,), TODAY, "mine.toml")
    assert load(tmp_path, GOOD).waivers == (WAIVER,)
    assert load(tmp_path, "").waivers == ()


def test_the_suites_own_file_waives_known_deviations_and_shows_how(tmp_path: Path) -> None:
    own = load_waivers(requirements=all_requirements()).waivers
    waived = {waiver.requirement.partition("-")[0] for waiver in own}
    assert waived == {"CGN", "PAR", "REM", "CAP", "SEL", "MET"}
    known = ("vllm==", "reference==0.19", "amd-aiter==0.1.7.")
    assert all(waiver.subject.startswith(known) for waiver in own)
    # What is accepted of all releases is said to be of those that were seen.
    named = ("vllm==0.", *known[1:])
    assert all(w.releases for w in own if not w.subject.startswith(named))
    text = DEFAULT_PATH.read_text(encoding="utf-8")
    example = text[text.index("# [[waiver]]") : text.index("# In patterns")]
    (waiver,) = load(tmp_path, example.replace("# ", "", 1).replace("\n# ", "\n")).waivers
    assert waiver.id == "W-1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('reason = "upstream disagrees"\n', "", "missing: reason"),
        ('url = "https://example.org/issue"\n', "", "missing: url"),
        ("expires = 2027-01-31\n", "", "missing: expires"),
        ('subject = "vllm==0.19.*"\n', "", "missing: subject"),
        ("upstream disagrees", " ", "reason: expected a text that is not empty"),
        ("https://example.org/issue", "issue 5", "url: expected a web address"),
        ("2027-01-31", '"2027-01-31"', "expires: expected a date without quotes"),
        ("2027-01-31", "2027-01-31T00:00:00", "expires: expected a date"),
        ("subject =", "subjects =", "unknown key 'subjects'. Did you mean 'subject'?"),
        ("expires", "cells = []\nexpires", "cells: expected a list of patterns"),
        ("expires", 'cells = "*"\nexpires', "cells: expected a list of patterns"),
        ("expires", 'releases = "0.18 on"\nexpires', 'releases: expected a range such as ">=0.18'),
        ("expires", "targets = [5]\nexpires", "targets: expected a text"),
    ],
)
def test_a_malformed_waiver_is_named_with_file_and_id(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(caught.value)
    assert "mine.toml: waiver 'W-1': " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('id = "W-1"\n', ""), "waiver number 1: missing: id"),
        (GOOD + GOOD, "waiver 'W-1': another waiver has this id"),
        (GOOD.replace("2027-01-31", "2027-02-31"), "is not TOML"),
        ("waiver = 5", "expected only [[waiver]] tables"),
        ("waiver = [5]", "waiver number 1: expected a [[waiver]] table"),
        (GOOD.replace("[[waiver]]", "[[waivers]]"), "expected only [[waiver]] tables"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_names_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown requirement 'SEL-004'"):
        load(tmp_path, GOOD, requirements=["SEL-005"])
    with pytest.raises(UsageError, match="unknown cell 'rocm27"):
        load(tmp_path, GOOD + 'cells = ["rocm72-*", "rocm27-*"]', cells=[A, B])


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_waivers(tmp_path / "none.toml")
