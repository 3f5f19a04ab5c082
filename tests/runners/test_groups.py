"""Which process of a run gets which group of cases."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from conformance.runners.local import _ByGroup

OLD, NEW, REFERENCE = "vllm==0.19.0", "vllm==0.33.0", "reference"


@dataclass(eq=False)
class Process:
    """A process of the run, as xdist's scheduler sees one."""

    given: list[str] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    def send_runtest_some(self, positions: list[int]) -> None:
        self.sent += positions


def scheduler(groups: list[str], *processes: Process) -> Any:
    """A scheduler of groups of two cases each, the second of which has run."""
    made: Any = object.__new__(_ByGroup)
    made._subject_of, made._positions = {}, {}
    made.collection = [f"case {n} of {group}" for group in groups for n in (1, 2)]
    made.workqueue = OrderedDict(
        (group, {f"case {n} of {group}": n == 2 for n in (1, 2)}) for group in groups
    )
    made.assigned_work = {process: {} for process in processes}
    return made


GROUPS = [
    f"{NEW} on gfx942",
    f"{NEW} on gfx950",
    f"{OLD} on gfx942",
    f"{REFERENCE} TRITON_ATTN a problem",
    f"{OLD} on gfx950",
    f"{NEW} on gfx90a",
]


def test_a_process_stays_with_its_subject_and_takes_next_what_no_other_has() -> None:
    first, second = Process(), Process()
    made = scheduler(GROUPS, first, second)
    for process in (first, second, first, second, second, second):
        made._assign_work_unit(process)
    assert [[*made.assigned_work[each]] for each in (first, second)] == [
        [GROUPS[0], GROUPS[1]],
        # Its own, then the free one, then what is left of the other's.
        [GROUPS[2], GROUPS[4], GROUPS[3], GROUPS[5]],
    ]
    assert not made.workqueue


def test_what_has_run_is_not_sent_again_and_the_rest_by_its_position() -> None:
    only = Process()
    made = scheduler(GROUPS, only)
    made._assign_work_unit(only)
    made._assign_work_unit(only)
    assert only.sent == [0, 2]


def test_the_subject_of_a_process_that_is_gone_is_free() -> None:
    gone, other = Process(), Process()
    made = scheduler(GROUPS, gone, other)
    made._assign_work_unit(gone)
    del made.assigned_work[gone]
    made._assign_work_unit(other)
    assert [*made.assigned_work[other]] == [GROUPS[1]]
