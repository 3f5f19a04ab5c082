"""Runs a batch of workgroups: which waves run next, jumps, barriers, and what went wrong where.

Waves at the same instruction run as one group; the group that stands earliest in the code runs
first, so that waves which took different ways meet again. In serial mode one wave of each
workgroup runs until it must wait, in an order drawn from a seed: what one wave leaves undone for
another to see, because a barrier is missing, then shows. Waves abreast take an instruction each in
turn from one barrier to the next, whatever way they took: near to hardware, where each of them has
a SIMD of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..assembly import Instruction
from .code import CODE_UNIT, Block, Code
from .instructions.access import AccessError
from .instructions.table import base_name
from .state import EXEC, VCC, State
from .target import UnknownError, UnknownInstructionError

ENDED = np.iinfo(np.int64).max
Waves = npt.NDArray[np.int64]


class Violation(Exception):  # noqa: N818 - a finding about the kernel, not an error of ours
    """What a kernel did that it must not: where, and which lane of which workgroup."""


@dataclass
class Tally:
    """What a run did: wave-instructions, and how often blocks ran, each from a start to an end.

    A block of several waves counts once for each. ``lanes_off``: whether a matrix product ran while
    lanes were off.
    """

    wave_instructions: int = 0
    blocks: Counter[tuple[int, int]] = field(default_factory=Counter)
    lanes_off: bool = False


class Machine:
    """One batch of workgroups, from its start to its end."""

    def __init__(
        self,
        code: Code,
        state: State,
        workgroups: list[tuple[int, int, int]],
        tally: Tally,
        *,
        abreast: bool = False,
    ) -> None:
        self.code, self.state, self.tally = code, state, tally
        self.abreast = abreast
        self.workgroups = workgroups
        waves = state.shape.waves
        self.pc = np.zeros(waves, dtype=np.int64)
        # A wave passes a barrier's wait once every wave of its workgroup has signalled more often.
        self.signalled = np.zeros(waves, dtype=np.int64)
        self.waited = np.zeros(waves, dtype=np.int64)
        self.waiting = np.zeros(waves, dtype=np.bool_)
        # Instructions since the last barrier.
        self.paces = np.zeros(waves, dtype=np.int64)
        if state.races is not None:
            state.races.signalled, state.races.waited = self.signalled, self.waited

    def run(self, order: np.random.Generator | None, limit: int) -> None:
        """Runs every wave to its end; ``order`` draws the serial mode's order.

        Raises:
            Violation: an access out of bounds, a barrier that some waves never reach.
            UnknownInstructionError: the code holds something the emulator does not know.
        """
        ranks = self._ranks(order) if order is not None else None
        while True:
            ready = np.flatnonzero((self.pc != ENDED) & ~self.waiting)
            if ready.size == 0:
                if (self.pc == ENDED).all():
                    return
                if not self._release():
                    self._deadlock()
                if order is not None:
                    ranks = self._ranks(order)
                continue
            if ranks is not None:
                ready = self._first_of_each(ready, ranks)
                self._run_group(ready, limit)
            elif self.abreast:
                self._step_those_behind(ready, limit)
            else:
                self._run_group(ready, limit)

    # -- order --------------------------------------------------------------------------------
    def _ranks(self, order: np.random.Generator) -> Waves:
        return order.permutation(self.pc.size).astype(np.int64)

    def _first_of_each(self, ready: Waves, ranks: Waves) -> Waves:
        """Of each workgroup the ready wave of the lowest rank; it keeps its turn until it waits."""
        by_rank = ready[np.argsort(ranks[ready], kind="stable")]
        _, first = np.unique(self.state.workgroup[by_rank], return_index=True)
        return np.sort(by_rank[first])

    def _step_those_behind(self, ready: Waves, limit: int) -> None:
        """Runs one instruction of the waves that have run the fewest since their last barrier."""
        behind = ready[self.paces[ready] == self.paces[ready].min()]
        pc = int(self.pc[behind].min())
        waves = self.state.of_one_mode(behind[self.pc[behind] == pc])
        self.state.select(waves)
        block = self.code.single(pc, self.state.mode)
        self._run_block(block, waves)
        self._check_end(limit)
        self.paces[waves] += 1
        goals = self._goal(block, waves)
        if goals is not None:
            self.pc[waves] = goals

    # -- a group ------------------------------------------------------------------------------
    def _run_group(self, ready: Waves, limit: int) -> None:
        """Runs the earliest of the ready waves until they part, wait, end or meet others."""
        counters = self.pc[ready]
        pc = int(counters.min())
        waves = self.state.of_one_mode(ready[counters == pc])
        others = counters[counters != pc]
        meet = int(others.min()) if others.size else ENDED
        self.state.select(waves)
        while True:
            block = self.code.block(pc, self.state.mode)
            self._run_block(block, waves)
            self._check_end(limit)
            goals = self._goal(block, waves)
            if isinstance(goals, int):
                pc = goals
                if pc < meet and pc != ENDED and not self.state.modes_differ:
                    continue
                self.pc[waves] = pc
                return
            if goals is not None:
                self.pc[waves] = goals
            return

    def _check_end(self, limit: int) -> None:
        if self.tally.wave_instructions > limit:
            raise Violation(f"no end after {limit} wave-instructions: does the kernel loop?")

    def _run_block(self, block: Block, waves: Waves) -> None:
        state, number = self.state, block.start
        watches = [one for one in (state.races, state.memory.reads) if one is not None]
        try:
            for number, step in block.steps:
                for watch in watches:
                    watch.number = number
                step(state)
        except AccessError as error:
            raise Violation(self._place(number, waves, error)) from None
        except UnknownInstructionError:
            raise
        except UnknownError as error:
            ins = self.code.program.instructions[number]
            raise UnknownInstructionError(ins, str(error)) from None
        except Exception as error:
            ins = self.code.program.instructions[number]
            raise RuntimeError(f"{type(error).__name__} in {ins}: {error}") from error
        self.tally.wave_instructions += (block.end - block.start) * waves.size
        self.tally.blocks[block.start, block.end] += waves.size

    def _place(self, number: int, waves: Waves, error: AccessError) -> str:
        ins = self.code.program.instructions[number]
        wave = int(waves[error.wave])
        group = int(self.state.workgroup[wave])
        inside = wave - int(np.argmax(self.state.workgroup == group))
        where = f"workgroup {self.workgroups[group]}, wave {inside}"
        if error.lane is not None:
            where += f", lane {error.lane}"
        return f"{error} by {where}: {ins}"

    # -- control --------------------------------------------------------------------------------
    def _goal(  # noqa: PLR0911 - one a kind
        self, block: Block, waves: Waves
    ) -> int | Waves | None:
        """Where the group goes: one place for all, a place for each, or None (it waits)."""
        last = block.last
        if last is None:
            return block.end
        name = base_name(last.mnemonic)
        if name == "s_endpgm":
            self.signalled[waves] = ENDED
            return ENDED
        if name in ("s_barrier", "s_barrier_signal", "s_barrier_wait"):
            return self._barrier(name, block, waves)
        if name == "s_getpc_b64":
            return self._save_counter(last, block)
        if name == "s_setpc_b64":
            return (self.state.s64(last.operands[0].index) // np.uint64(CODE_UNIT)).astype(np.int64)
        if name == "s_trap":
            raise Violation(f"the kernel gave up: {last}")
        if block.goal < 0:
            raise UnknownInstructionError(last, "a jump to somewhere else")
        if name == "s_branch":
            return block.goal
        taken = self._condition(name)
        if taken.all():
            return block.goal
        return block.end if not taken.any() else np.where(taken, block.goal, block.end)

    def _condition(self, name: str) -> npt.NDArray[np.bool_]:
        state = self.state
        if name.startswith("s_cbranch_scc"):
            scc: npt.NDArray[np.bool_] = state.scc[state.sel]
            return scc if name.endswith("1") else ~scc
        first = VCC if "vcc" in name else EXEC
        zero = (state.scalar[first : first + state.mask_words, state.sel] == 0).all(axis=0)
        return np.asarray(zero if name.endswith("z") and not name.endswith("nz") else ~zero)

    def _save_counter(self, last: Instruction, block: Block) -> int:
        out = last.operands[0].index
        self.state.set_s(out, np.array(block.end * CODE_UNIT, dtype=np.uint32))
        self.state.set_s(out + 1, np.array(0, dtype=np.uint32))
        return block.end

    # -- barriers -------------------------------------------------------------------------------
    def _barrier(self, name: str, block: Block, waves: Waves) -> int | None:
        if name != "s_barrier_wait":
            self.signalled[waves] += 1
        if name == "s_barrier_signal":
            return block.end
        self.waiting[waves] = True
        self.pc[waves] = block.end
        return None

    def _release(self) -> bool:
        """Lets the waves go whose workgroup has signalled; whether there were any."""
        groups = self.state.workgroup
        least = np.full(len(self.workgroups), ENDED, dtype=np.int64)
        np.minimum.at(least, groups, self.signalled)
        free = self.waiting & (least[groups] > self.waited)
        self.waited[free] += 1
        self.waiting[free] = False
        self.paces[free] = 0
        return bool(free.any())

    def _deadlock(self) -> None:
        stuck = np.flatnonzero(self.waiting)
        group = int(self.state.workgroup[stuck[0]])
        ins = self.code.program.instructions[int(self.pc[stuck[0]]) - 1]
        raise Violation(
            f"workgroup {self.workgroups[group]} waits for ever: {stuck.size} waves are at {ins}, "
            "and the others will not come"
        )
