"""Thirty faults in a copy of vLLM 0.33.0's source tree, each caught by what names it.

Slow, because each is another import of vLLM. `tests/suites/test_patched_vllm.py` judges a few of
0.19.0 from the command line, every time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.config import RunConfig
from conformance.errors import InfrastructureError
from conformance.matrix.requests import Platform
from conformance.suites.case import Case, Context, Nonconformance, SessionPool
from conformance.suites.selection import test_truth
from tests.suites.faults.of_a_release import FAULTS, RELEASE, SERIES, ReleaseFault
from tests.support.release_copy import Copy

SHIELD = 30  # the faults that there must be at least


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy.of(RELEASE, tmp_path_factory.mktemp("release") / "site")


def judged(folder: Path, requirements: set[str], platforms: set[Platform]) -> dict[str, str]:
    """The requirements that are judged there, each with its first finding, or "" if it is met."""
    spec = str(folder)
    config = RunConfig(
        subjects=(spec,),
        cells=("*",),
        edition=SERIES,
        releases={spec: RELEASE},
        timeout=600,
    )
    context = Context(config)
    sessions = SessionPool(context)
    found: dict[str, str] = {}
    try:
        for case in _cases(context, requirements, platforms):
            found.setdefault(case.requirement, "")
            try:
                test_truth.test_rows(case, context, sessions)
            except Nonconformance as error:
                found[case.requirement] = str(error)
    finally:
        context.close()
    return found


def _cases(context: Context, requirements: set[str], platforms: set[Platform]) -> list[Case]:
    cases = [
        case
        for case in test_truth.cases(context)
        if case.requirement in requirements
        and case.platform in platforms
        and case.asked_on == case.platform
    ]
    return sorted(cases, key=lambda case: (str(case.platform), case.requirement))


@pytest.mark.vllm
@pytest.mark.slow
def test_the_release_without_a_fault_is_caught_by_none(copy: Copy) -> None:
    found = judged(copy.folder, {f.caught_by for f in FAULTS}, {f.on for f in FAULTS})
    assert found == dict.fromkeys({f.caught_by for f in FAULTS}, "")


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_a_release_is_caught_by_the_requirement_that_names_it(
    fault: ReleaseFault, copy: Copy
) -> None:
    with copy.with_fault(fault):
        try:
            found = judged(copy.folder, {fault.caught_by}, {fault.on})
        except InfrastructureError as error:
            pytest.fail(f"{error.args[0]}\n{error.stderr[-2000:]}")
    assert found.get(fault.caught_by), found


def test_there_are_thirty_of_five_kinds() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= SHIELD
