"""One block of a kernel: its instructions, region after region, then where it goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from ...assembly import Instruction, Program
from ..instructions.table import CONTROL, base_name
from ..state import EXEC, VCC
from ..target import IsaTarget
from .context import SLOT, field
from .lower import WIDTH
from .matrices import product_of
from .plan import Plan
from .region import FLAGS, VECTOR, Module, Region, within
from .symbols import Symbol, plain
from .trace import Access, Effect, Traced

# What a run of a wave ends with.
WAITS, STOPS, FAULT, BUDGET = 0, 2, 3, 4
# Bytes of the temporary area: masks, addresses and data of up to two accesses; rows of lanes.
_MASKS, _ADDRESSES, _DATA, _ROWS = 0, 256, 2048, 8192
TEMPORARY = 16384


class KernelText(Module, Protocol):
    """What a block asks of its kernel besides."""

    plan: Plan
    target: IsaTarget
    races: bool
    helpers: set[str]
    products: dict[str, str]

    def slot(self) -> int: ...


class Block(Region):
    """Ends a region wherever something concerns the wave as a whole."""

    def __init__(self, kernel: KernelText, start: int, end: int, number: int) -> None:
        self.owner = kernel
        self.start, self.end, self.number = start, end, number
        self.faulty = False
        super().__init__(kernel)

    def emit(self) -> None:
        kernel, program = self.owner, self.owner.plan.code.program
        self.label(f"b{self.start}")
        if self.start in kernel.plan.interpreted:
            self.put(f"store i64 {self.start}, ptr %pcp")
            self.put(f"ret i64 {STOPS}")
            return
        counter = self.op(f"getelementptr i64, ptr %counts, i64 {self.number}")
        count = self.op(f"load i64, ptr {counter}")
        self.put(f"store i64 {self.op(f'add i64 {count}, 1')}, ptr {counter}")
        for number in range(self.start, self.end):
            traced = kernel.plan.traced.get(number)
            if traced is not None:
                self.alive.append(traced)
                self._instruction(traced)
        self.close()
        if self.faulty:
            flag = self.op("load i64, ptr %fp")
            wrong = self.op(f"icmp ne i64 {flag}, 0")
            self.put(f"br i1 {wrong}, label %wrong{self.start}, label %fine{self.start}")
            self.label(f"wrong{self.start}")
            self.put(f"ret i64 {FAULT}")
            self.label(f"fine{self.start}")
        self._leave(program.instructions[self.end - 1], program)

    # -- control --------------------------------------------------------------------------------
    def _leave(self, last: Instruction, program: Program) -> None:
        name = base_name(last.mnemonic)
        if name not in CONTROL:
            self._go(self.end)
        elif name == "s_endpgm":
            self._count_signal(None)
            self._stay(None)
        elif name in ("s_barrier", "s_barrier_wait"):
            if name == "s_barrier":
                self._count_signal(1)
            self.put("store i8 1, ptr %waitp")
            self._stay(self.end)
        elif name == "s_barrier_signal":
            self._count_signal(1)
            if self.owner.races:
                parted = self.op(field("race_between"))
                self.put(f"store i64 1, ptr {parted}")
            self._go(self.end)
        elif name == "s_branch":
            self._go(program.labels[last.operands[0].text])
        else:
            self._branch(name, program.labels[last.operands[0].text])

    def _count_signal(self, more: int | None) -> None:
        """One more signal; None: this wave never signals again, so it counts as more than any."""
        if more is None:
            self.put(f"store i64 {np.iinfo(np.int64).max}, ptr %signalp")
            return
        old = self.op("load i64, ptr %signalp")
        self.put(f"store i64 {self.op(f'add i64 {old}, {more}')}, ptr %signalp")

    def _stay(self, goal: int | None) -> None:
        self.put(f"store i64 {np.iinfo(np.int64).max if goal is None else goal}, ptr %pcp")
        self.put(f"ret i64 {WAITS}")

    def _branch(self, name: str, goal: int) -> None:
        if name.startswith("s_cbranch_scc"):
            flag = self.read_scc()
            taken = flag if name.endswith("1") else self.op(f"xor i1 {flag}, true")
        else:
            first = VCC if "vcc" in name else EXEC
            value = self.read_s(first)
            if self.lanes == 64:
                value = self.op(f"or i32 {value}, {self.read_s(first + 1)}")
            taken = self.op(f"icmp {'ne' if name.endswith('nz') else 'eq'} i32 {value}, 0")
        back, fall = f"go{self.start}", f"fall{self.start}"
        self.put(f"br i1 {taken}, label %{back}, label %{fall}")
        self.label(back)
        self._go(goal)
        self.label(fall)
        self._go(self.end)

    def _go(self, goal: int) -> None:
        """To a block; each step back takes from what is left of the launch's instructions."""
        if goal not in self.owner.plan.code.ends:
            self.put(f"ret i64 {FAULT}")
            return
        if goal > self.start:
            self.put(f"br label %b{goal}")
            return
        budget = self.op("load i64, ptr %bp")
        left = self.op(f"sub i64 {budget}, {self.end - self.start}")
        self.put(f"store i64 {left}, ptr %bp")
        spent = self.op(f"icmp slt i64 {left}, 0")
        name = self.kernel.name()
        self.put(f"br i1 {spent}, label %{name}, label %b{goal}")
        self.label(name)
        self.put(f"store i64 {goal}, ptr %pcp")
        self.put(f"ret i64 {BUDGET}")

    # -- instructions -----------------------------------------------------------------------------
    def _instruction(self, traced: Traced) -> None:
        self.useen: dict[int, str] = {}
        self.loaded: dict[int, list[str]] = {}
        self.rows: dict[int, int] = {}
        if traced.matrix is not None:
            self.close()
            self._matrix(traced)
            return
        nodes = list(traced.nodes())
        lanes = any(n.is_lane for n in nodes) or any(e.kind in ("v", "raw") for e in traced.effects)
        scalar_writes = _scalar_writes(traced.effects)
        if self._conflicts(nodes, scalar_writes, traced, self.lanes // 32):
            self.close()
        if any(n.op in ("readlane", "first") for n in nodes) or (lanes and scalar_writes):
            self.close()
        for access in traced.loads:
            if access.space == "scalar":
                self._scalar_load(access)
        self._lay_down(nodes)
        vector_loads = [a for a in traced.loads if a.space != "scalar"]
        if vector_loads and self._loads(vector_loads, traced.effects):
            return
        self._effects(traced.effects)

    def _conflicts(self, nodes: list[Symbol], writes: set[int], traced: Traced, words: int) -> bool:
        """Whether scalar code of this instruction may not run before the region's loop."""
        masks = {index + word for index in self.mval for word in range(words)}
        reads = {n.attr for n in nodes if n.op == "s"}
        wanted = {n.attr for n in nodes if n.op == "mask"}
        part = any(w not in self.mval and (w in masks or w + words - 1 in masks) for w in wanted)
        replaced = {e.index for e in traced.effects if e.kind == "mask"}
        across = any(
            r not in self.mval and (r in masks or r + words - 1 in masks) for r in replaced
        )
        firsts = {n.args[0].attr for n in nodes if n.op == "first"}
        return bool(reads & masks or writes & masks or firsts & masks) or part or across

    def _effects(self, effects: Iterable[Effect]) -> None:
        """Every value first, then every change: an instruction reads before it writes."""
        effects = list(effects)
        values = [self._value_of(effect) for effect in effects]
        stores = []
        for effect, (value, mask) in zip(effects, values, strict=True):
            if effect.kind == "s":
                assert effect.value is not None
                self.write_s(effect.index, self.bits32(value, effect.value.dtype, self.scalars))
            elif effect.kind == "scc":
                self.write_scc(value)
            elif effect.kind == "mask":
                self._write_mask(effect.index, value)
            elif effect.kind in ("v", "raw"):
                assert effect.value is not None
                self._write_lanes(effect, value, mask)
            elif effect.kind == "scratch":
                pointer = self.row("%scratch", effect.index)
                self.body.append(f"  store {VECTOR} {value}, ptr {pointer}, align 64")
            else:
                assert effect.access is not None
                stores.append(effect.access)
        if stores:
            self._stores(stores)

    def _value_of(self, effect: Effect) -> tuple[str, str]:
        if effect.value is None:
            return "", ""
        if effect.kind in ("s", "scc"):
            return self.uniform(effect.value), ""
        value = self.lane(effect.value)
        return value, "" if effect.mask is None else self.lane(_masked(effect.mask, self.kernel))

    def _write_mask(self, index: int, value: str) -> None:
        self.mval[index] = value
        bits = self.lane_op(f"bitcast {FLAGS} {value} to i{WIDTH}")
        start = self.lane_op(f"getelementptr i32, ptr %sg, i64 {index}")
        place = self.lane_op(f"getelementptr i{WIDTH}, ptr {start}, i64 %c@")
        self.body.append(f"  store i{WIDTH} {bits}, ptr {place}")

    def _write_lanes(self, effect: Effect, value: str, mask: str) -> None:
        assert effect.value is not None
        new = self.bits32(value, effect.value.dtype, self.vectors)
        if effect.kind == "v" and mask != "splat (i1 true)":
            old = self.read_v(effect.index)
            new = self.lane_op(f"select {FLAGS} {mask}, {VECTOR} {new}, {VECTOR} {old}")
        self.write_v(effect.index, new)

    # -- what concerns the whole wave -------------------------------------------------------------
    def _lay_down(self, nodes: list[Symbol]) -> None:
        """Rows that lanes read from other lanes further away than sixteen, in memory."""
        moved = [n for n in nodes if n.op == "gather" or _is_far(n)]
        if moved and self.reads_rows:
            # The loop reads rows that this instruction would overwrite in an earlier turn of it.
            self.close()
        for number, node in enumerate(moved):
            offset = _ROWS + 4 * self.lanes * number
            self.rows[id(node)] = offset
            source = node.args[0]
            value = self.bits32(self.lane(source), source.dtype, self.vectors)
            pointer = self.temporary_row(offset)
            self.body.append(f"  store {VECTOR} {value}, ptr {pointer}, align 64")
        if moved:
            self.close()

    def _place(self, access: Access, number: int, *, running: bool) -> None:
        """Addresses and masks of an access, in the temporary area."""
        assert access.mask is not None
        base = _ADDRESSES + 512 * number
        value = self.vectors.cast(self.lane(access.address), access.address.dtype, np.int64)
        start = self.lane_op(f"getelementptr i8, ptr %tmp, i64 {base}")
        pointer = self.lane_op(f"getelementptr i64, ptr {start}, i64 %o@")
        self.body.append(f"  store <{WIDTH} x i64> {value}, ptr {pointer}, align 64")
        masks = [_masked(access.mask, self.kernel)]
        if running:
            masks.append(Symbol("mask", (), np.bool_, (1, self.lanes), EXEC))
        self.alive += masks
        for place, mask in enumerate(masks):
            bits = self.lane_op(f"bitcast {FLAGS} {self.lane(mask)} to i{WIDTH}")
            offset = _MASKS + 16 * number + 8 * place
            start = self.lane_op(f"getelementptr i8, ptr %tmp, i64 {offset}")
            pointer = self.lane_op(f"getelementptr i{WIDTH}, ptr {start}, i64 %c@")
            self.body.append(f"  store i{WIDTH} {bits}, ptr {pointer}")

    def _mask_word(self, number: int, place: int) -> str:
        offset = _MASKS + 16 * number + 8 * place
        pointer = self.op(f"getelementptr i8, ptr %tmp, i64 {offset}")
        value = self.op(f"load i{self.lanes}, ptr {pointer}")
        return value if self.lanes == 64 else self.op(f"zext i32 {value} to i64")

    def _slot(self) -> str:
        return self.op(f"getelementptr i8, ptr %slots, i64 {SLOT * self.owner.slot()}")

    def _loads(self, accesses: list[Access], effects: list[Effect]) -> bool:
        """Loads of a wave; whether they went straight to the registers they are for."""
        direct = _straight(accesses, effects)
        for number, access in enumerate(accesses):
            self._place(access, number, running=True)
        self.close()
        self.faulty = True
        for number, access in enumerate(accesses):
            name = f"{access.space}_load_{access.size}"
            self.owner.helpers.add(name)
            if direct is not None:
                out = self.op(f"getelementptr i32, ptr %vg, i64 {direct[number] * self.lanes}")
            else:
                offset = _DATA + 2048 * number
                self.rows[id(access)] = offset
                out = self.op(f"getelementptr i8, ptr %tmp, i64 {offset}")
            at = self.op(f"getelementptr i8, ptr %tmp, i64 {_ADDRESSES + 512 * number}")
            wanted, running = (self._mask_word(number, place) for place in (0, 1))
            self.put(
                f"call void @{name}(ptr %ctx, ptr %lds, ptr {self._slot()}, ptr {at}, "
                f"i64 {wanted}, i64 {running}, ptr {out})"
            )
        return direct is not None

    def _stores(self, accesses: list[Access]) -> None:
        for number, access in enumerate(accesses):
            self._place(access, number, running=False)
            for word, value in enumerate(access.values):
                raw = self.bits32(self.lane(value), value.dtype, self.vectors)
                offset = _DATA + 2048 * number + 4 * self.lanes * word
                pointer = self.temporary_row(offset)
                self.body.append(f"  store {VECTOR} {raw}, ptr {pointer}, align 64")
        self.close()
        self.faulty = True
        for number, access in enumerate(accesses):
            name = f"{access.space}_store_{access.size}"
            self.owner.helpers.add(name)
            at = self.op(f"getelementptr i8, ptr %tmp, i64 {_ADDRESSES + 512 * number}")
            rows = self.op(f"getelementptr i8, ptr %tmp, i64 {_DATA + 2048 * number}")
            wanted = self._mask_word(number, 0)
            self.put(
                f"call void @{name}(ptr %ctx, ptr %lds, ptr {self._slot()}, ptr {at}, "
                f"i64 {wanted}, ptr {rows})"
            )

    def _scalar_load(self, access: Access) -> None:
        name, words = f"scalar_load_{access.size}", access.words
        self.owner.helpers.add(name)
        at = self.scalars.cast(self.uniform(access.address), access.address.dtype, np.int64)
        kind = f"<{words} x i32>"
        value = self.op(f"call {kind} @{name}(ptr %ctx, ptr {self._slot()}, i64 {at})")
        self.faulty = True
        self.loaded[id(access)] = [
            self.op(f"extractelement {kind} {value}, i64 {word}") for word in range(words)
        ]

    def _matrix(self, traced: Traced) -> None:
        assert traced.matrix is not None
        name, text = product_of(traced.ins, traced.matrix, self.owner.target)
        self.owner.products[name] = text
        places = [
            f"@{name}_0"
            if register is None
            else self.op(f"getelementptr i32, ptr %vg, i64 {register * self.lanes}")
            for register in traced.matrix.registers
        ]
        given = ", ".join(f"ptr {place}" for place in places)
        self.put(f"call void @{name}({given})")
        if not self.kernel.whole:
            self.note_lanes_off()

    def note_lanes_off(self) -> None:
        """Keeps whether any lane is off, for all that the launch has run."""
        place = self.op(field("lanes_off"))
        noted = self.op(f"load i64, ptr {place}")
        for word in range(self.lanes // 32):
            on = self.read_s(EXEC + word)
            off = self.op(f"zext i32 {self.op(f'xor i32 {on}, -1')} to i64")
            noted = self.op(f"or i64 {noted}, {off}")
        self.put(f"store i64 {noted}, ptr {place}")


# -- small questions ------------------------------------------------------------------------------
def _is_far(node: Symbol) -> bool:
    return node.op == "permute" and within(node.attr) is None


def _scalar_writes(effects: Iterable[Effect]) -> set[int]:
    return {e.index for e in effects if e.kind == "s"}


def _masked(mask: Symbol, kernel: Module) -> Symbol:
    """The mask without EXEC, where every lane always runs."""
    if not kernel.whole or mask.op != "bitwise_and":
        return mask
    for one, other in (mask.args, mask.args[::-1]):
        if plain(one).op == "mask" and plain(one).attr == EXEC:
            return other
    return mask


def _straight(accesses: list[Access], effects: list[Effect]) -> list[int] | None:
    """The registers that the words of each load go to unchanged and in their order."""
    found = {id(access): [-1] * access.words for access in accesses}
    for effect in effects:
        value, mask = effect.value, effect.mask
        if effect.kind != "v" or value is None or mask is None or mask.op != "mask":
            return None
        value = plain(value)
        if value.op != "loaded" or mask.attr != EXEC:
            return None
        access, word = value.attr
        found[id(access)][word] = effect.index
    starts = []
    for access in accesses:
        registers = found[id(access)]
        if registers != list(range(registers[0], registers[0] + access.words)) or registers[0] < 0:
            return None
        starts.append(registers[0])
    return starts
