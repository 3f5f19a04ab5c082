"""Which process of a run gets which group of cases, and when."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped] # no stubs

from conformance.config import RunConfig
from conformance.matrix.targets import TARGETS
from conformance.suites.plugin import GROUP

# What the cases of a platform take, in problems: an import of a vLLM, and thousands of questions.
OF_PLATFORM = 18
# What must be left, in problems, for another process to begin with it too: the first import of a
# release in a process takes as long as so many interpreted problems.
WORTH_STARTING = 45
INTERPRETER = "interpreter"


class Start(NamedTuple):
    """What a process has to start before it can answer the cases of a group.

    ``selects``: a worker that is asked about platforms; else one that runs kernels. ``shown``: the
    GPU that it is shown, where that is another than the usual one.
    """

    subject: str
    selects: bool
    shown: str = ""


@cache
def start_of(scope: str) -> Start:
    """What a group needs: see ``Case.machine`` and ``ParityCase.group``."""
    subject, _, rest = scope.partition(" ")
    kind, _, what = rest.partition(" ")
    shown = what if kind != "on" and what in TARGETS else ""
    return Start(subject, kind == "on", shown)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc] # xdist's scheduler is untyped
    """Gives whole groups of cases to a process, so that cases of a platform share a session.

    A process stays with what it has started while there are groups for it, then with its subject,
    and takes next what no other process has, the most first: a start takes as long as many later
    cases. So it ends early where too little is left of others' to be worth one.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        run = RunConfig.loads(config.getoption("--conformance"))
        self._least = WORTH_STARTING if run.device == INTERPRETER else 0
        self._start_of: dict[Any, Start] = {}
        self._positions: dict[str, int] = {}

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:  # noqa: ARG002 - xdist's signature
        nodeid = self.registered_collections[node][item_index]
        scope = self._split_scope(nodeid)
        unit = self.assigned_work[node][scope]
        unit[nodeid] = True
        if all(unit.values()):
            # xdist counts what is pending among all that is here, after every case.
            del self.assigned_work[node][scope]
        self._reschedule(node)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.rpartition(GROUP)[2]

    def _assign_work_unit(self, node: Any) -> None:
        scope = self._next_for(node)
        if scope is None:
            # A process keeps its last case until it hears of another, or that there is none.
            node.shutdown()
            return
        self._start_of[node] = start_of(scope)
        unit = self.workqueue.pop(scope)
        self.assigned_work.setdefault(node, {})[scope] = unit
        if not self._positions:
            # Every process has listed the same cases in the same order.
            self._positions = {nodeid: i for i, nodeid in enumerate(self.collection)}
        node.send_runtest_some([self._positions[each] for each, done in unit.items() if not done])

    def _next_for(self, node: Any) -> str | None:
        """The next group of a process; None: too little is left of what others have started."""
        starts: dict[str, Start] = {scope: start_of(scope) for scope in self.workqueue}
        left: Counter[Start] = Counter()
        for start in starts.values():
            left[start] += OF_PLATFORM if start.selects else 1
        own = self._start_of.get(node)
        others = {
            start
            for other, start in self._start_of.items()
            if other is not node and other in self.assigned_work
        }

        def order(start: Start) -> tuple[bool, bool, bool, int]:
            same = own is not None and start[:2] == own[:2]
            return start != own, start in others, not same, -left[start]

        chosen = min(left, key=order)
        if chosen != own and chosen in others and left[chosen] < self._least:
            return None
        return next(scope for scope, start in starts.items() if start == chosen)
