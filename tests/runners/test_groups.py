"""Which process of a run gets which group of cases."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from conformance.runners.scheduling import ByGroup, Start, start_of
from conformance.suites.plugin import GROUP

OLD, NEW, REFERENCE = "vllm==0.19.0", "vllm==0.33.0", "reference"


@dataclass(eq=False)
class Process:
    """A process of the run, as xdist's scheduler sees one."""

    given: list[str] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    shutting_down: bool = False

    def send_runtest_some(self, positions: list[int]) -> None:
        self.sent += positions

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduler(groups: list[str], *processes: Process, least: int = 0) -> Any:
    """A scheduler of groups of two cases each, the second of which has run."""
    made: Any = object.__new__(ByGroup)
    made._start_of, made._positions, made._least = {}, {}, least
    made.numnodes, made.log = len(processes), lambda *_words: None
    made.collection = [f"case {n}{GROUP}{group}" for group in groups for n in (1, 2)]
    made.workqueue = OrderedDict(
        (group, {f"case {n}{GROUP}{group}": n == 2 for n in (1, 2)}) for group in groups
    )
    made.assigned_work = {process: {} for process in processes}
    return made


PROBLEMS = [f"{NEW} TRITON_ATTN problem {n}" for n in range(9)]
SHOWN = f"{NEW} ROCM_SEGMENTED_ATTN gfx1201"
GROUPS = [
    f"{OLD} on gfx942",
    f"{NEW} on gfx942",
    f"{OLD} on gfx950",
    f"{REFERENCE} TRITON_ATTN a problem",
    f"{NEW} on gfx950",
    *PROBLEMS,
    SHOWN,
    f"{NEW} on gfx90a",
]


def given(made: Any, process: Process) -> list[str]:
    return [*made.assigned_work[process]]


def test_what_a_group_needs_to_be_started() -> None:
    assert start_of(f"{NEW} on gfx942+aiter") == Start(NEW, selects=True)
    assert start_of(PROBLEMS[0]) == Start(NEW, selects=False)
    assert start_of(SHOWN) == Start(NEW, selects=False, shown="gfx1201")


def test_a_process_stays_with_what_it_started_and_takes_the_most_that_no_other_has() -> None:
    first, second = Process(), Process()
    made = scheduler(GROUPS, first, second)
    for process in (first, second, *[first] * 3, *[second] * 2):
        made._assign_work_unit(process)
    # Three platforms of the new release are the most, then two of the old one, then nine problems.
    assert given(made, first) == [GROUPS[1], GROUPS[4], GROUPS[-1], PROBLEMS[0]]
    assert given(made, second) == [GROUPS[0], GROUPS[2], GROUPS[3]]
    for _ in PROBLEMS[1:]:
        made._assign_work_unit(first)
    made._assign_work_unit(first)
    # Of what nobody has: its own subject's kernels, on another GPU.
    assert given(made, first)[-1] == SHOWN
    assert not made.workqueue


def test_another_process_begins_with_it_too_only_if_it_is_worth_the_start() -> None:
    first, second, third = Process(), Process(), Process()
    made = scheduler(PROBLEMS, first, second, third, least=7)
    made._assign_work_unit(first)
    made._assign_work_unit(second)
    made._assign_work_unit(third)
    assert given(made, second) == [PROBLEMS[1]]
    assert given(made, third) == [PROBLEMS[2]]
    made = scheduler(PROBLEMS, first, second, least=9)
    made._assign_work_unit(first)
    made._assign_work_unit(second)
    # Eight are left: the process ends, and its last case is not kept waiting for more.
    assert given(made, second) == []
    assert second.shutting_down
    for _ in PROBLEMS[1:]:
        made._assign_work_unit(first)
    assert not made.workqueue


def test_what_has_run_is_not_sent_again_and_the_rest_by_its_position() -> None:
    only = Process()
    made = scheduler(GROUPS[:1] + GROUPS[2:3], only)
    made._assign_work_unit(only)
    made._assign_work_unit(only)
    assert only.sent == [0, 2]


def test_what_a_process_that_is_gone_had_started_is_free() -> None:
    gone, other = Process(), Process()
    made = scheduler(PROBLEMS, gone, other, least=99)
    made._assign_work_unit(gone)
    del made.assigned_work[gone]
    made._assign_work_unit(other)
    assert given(made, other) == [PROBLEMS[1]]


def test_a_group_that_has_run_is_no_longer_counted_and_its_process_gets_the_next() -> None:
    only = Process()
    made = scheduler(PROBLEMS[:2], only)
    made.registered_collections = {only: made.collection}
    made._assign_work_unit(only)
    made.mark_test_complete(only, 0)
    assert given(made, only) == [PROBLEMS[1]]
    made.mark_test_complete(only, 2)
    assert given(made, only) == []
    assert only.shutting_down
    assert made.tests_finished
