"""A kernel as LLVM IR: one function that runs a wave until it waits, ends, or must be interpreted.

A block's instructions are gathered into regions. A region is scalar code, then one loop over the
lanes, sixteen at a time, in which every register is read and written at most once. What concerns
the wave as a whole (memory, matrices, values that move between lanes further than sixteen) ends a
region and is done between two of them, on the registers in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..target import IsaTarget
from .block import Block
from .context import FIND
from .context import field as context_field
from .lower import literal, type_of
from .memory import helper
from .plan import Plan, writes_exec
from .races import CHECKS, check_call
from .schedule import schedule
from .symbols import Symbol


class Kernel:
    """The text of one kernel."""

    def __init__(self, plan: Plan, races: bool = False) -> None:
        """``races``: accesses are checked for races, too."""
        self.plan, self.code, self.races = plan, plan.code, races
        self.target: IsaTarget = plan.code.target
        self.lanes = self.target.lanes
        self.starts = sorted(self.code.ends)
        self.whole = not writes_exec(plan)
        self.out: list[str] = []
        self.globals: dict[str, str] = {}
        self.declares: set[str] = set()
        self.helpers: set[str] = set()
        self.products: dict[str, str] = {}
        self.slots = 0
        self._n = 0

    def text(self) -> str:
        """The module: helpers, the kernel, and the function that runs a workgroup."""
        for number, start in enumerate(self.starts):
            Block(self, start, self.code.ends[start], number).emit()
        entries = " ".join(f"i64 {start}, label %b{start}" for start in self.starts)
        head = (
            "define internal i64 @kernel(ptr noalias %vg, ptr noalias %sg, ptr noalias %sccp, "
            "ptr noalias %lds, ptr noalias %scratch, ptr noalias %ctx, ptr noalias %pcp, "
            "ptr noalias %signalp, ptr noalias %waitp) #0 {\nentry:\n"
            f"  %cp = {context_field('counts')}\n  %counts = load ptr, ptr %cp\n"
            f"  %tp = {context_field('temporary')}\n  %tmp = load ptr, ptr %tp\n"
            f"  %slp = {context_field('slots')}\n  %slots = load ptr, ptr %slp\n"
            f"  %bp = {context_field('budget')}\n  %fp = {context_field('fault')}\n"
            f"  %from = load i64, ptr %pcp\n  switch i64 %from, label %lost [{entries}]\n"
            "lost:\n  ret i64 3\n"
        )
        known = "\n".join([FIND, *self._helpers(), *self.products.values()])
        declares = [text for text in sorted(self.declares) if text not in known]
        return "\n".join(
            [
                *self.globals.values(),
                *declares,
                _once(known),
                schedule(self.races),
                head + "\n".join(self.out),
                "}",
                'attributes #0 = { nounwind "prefer-vector-width"="512" }',
                'attributes #1 = { nounwind noinline "prefer-vector-width"="512" }',
                '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}',
                "",
            ]
        )

    def _helpers(self) -> Iterator[str]:
        for name in sorted(self.helpers):
            space, kind, size = name.split("_")
            check = CHECKS.get((space, kind)) if self.races else None
            if check is None:
                yield helper(name, self.lanes)
            else:
                yield check(int(size))
                yield helper(name, self.lanes, check_call(space, kind, int(size), self.lanes))

    def name(self) -> str:
        self._n += 1
        return f"x{self._n}"

    def slot(self) -> int:
        """A place for the buffer that an access last used: two numbers."""
        self.slots += 1
        return self.slots - 1

    def table(self, node: Symbol) -> str:
        """The name of a constant array, one element a lane."""
        kind = node.dtype
        if node.op == "lanes":
            values, kind = np.arange(self.lanes), np.dtype(np.int64)
        elif node.op == "lookup":
            kind = np.dtype(np.float32)
            values = np.frombuffer(node.attr, dtype=kind)
        else:
            values = np.frombuffer(node.attr, dtype=kind)
        stored = np.dtype(np.uint8) if kind.kind == "b" else kind
        items = ", ".join(
            f"{type_of(stored)} {literal(stored, value)}" for value in values.astype(stored)
        )
        text = f"constant [{values.size} x {type_of(stored)}] [{items}], align 64"
        if text not in self.globals:
            self.globals[text] = f"@t{len(self.globals)} = internal {text}"
        return self.globals[text].partition(" ")[0]


def _once(text: str) -> str:
    """The text without a declaration that stands in it before."""
    seen: set[str] = set()
    lines = []
    for line in text.splitlines():
        if line.startswith("declare "):
            if line in seen:
                continue
            seen.add(line)
        lines.append(line)
    return "\n".join(lines)
