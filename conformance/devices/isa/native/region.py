"""A region: scalar code, then one loop over the lanes, and the values that both compute with."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..state import EXEC
from .lower import WIDTH, Lowering, literal, type_of
from .symbols import Symbol, UntraceableError, plain

VECTOR = f"<{WIDTH} x i32>"
FLAGS = f"<{WIDTH} x i1>"


class Module(Protocol):
    """What a region asks of the kernel that it belongs to."""

    lanes: int
    whole: bool
    out: list[str]
    declares: set[str]

    def name(self) -> str: ...
    def table(self, node: Symbol) -> str: ...


class _Uniform:
    """Instructions on values of the wave, before a region's loop."""

    def __init__(self, block: Region) -> None:
        self.block = block

    def op(self, text: str) -> str:
        return self.block.op(text)

    def declare(self, text: str) -> None:
        self.block.kernel.declares.add(text)


class _Lane:
    """Instructions in a region's loop."""

    def __init__(self, block: Region) -> None:
        self.block = block

    def op(self, text: str) -> str:
        name = f"%{self.block.kernel.name()}"
        self.block.body.append(f"  {name} = {text}")
        return name

    def declare(self, text: str) -> None:
        self.block.kernel.declares.add(text)


class Region:
    """Text goes before the loop, or into its body, until the region is closed."""

    def __init__(self, kernel: Module) -> None:
        self.kernel, self.lanes = kernel, kernel.lanes
        self.scalars = Lowering(_Uniform(self), vector=False)
        self.vectors = Lowering(_Lane(self), vector=True)
        self.sval: dict[int, str] = {}
        self.scc: str | None = None
        self.pairs: dict[tuple[str, str], str] = {}
        self.useen: dict[int, str] = {}
        self.loaded: dict[int, list[str]] = {}
        self.rows: dict[int, int] = {}
        # Symbols are known by their identity: they must live as long as the text is made.
        self.alive: list[Any] = []
        self.open()

    # -- text -------------------------------------------------------------------------------------
    def put(self, text: str) -> None:
        self.kernel.out.append("  " + text)

    def op(self, text: str) -> str:
        name = f"%{self.kernel.name()}"
        self.put(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        self.kernel.out.append(f"{name}:")

    # -- scalar registers -------------------------------------------------------------------------
    def read_s(self, index: int) -> str:
        if index not in self.sval:
            place = self.op(f"getelementptr i32, ptr %sg, i64 {index}")
            self.sval[index] = self.op(f"load i32, ptr {place}")
        return self.sval[index]

    def write_s(self, index: int, value: str) -> None:
        self.sval[index] = value
        place = self.op(f"getelementptr i32, ptr %sg, i64 {index}")
        self.put(f"store i32 {value}, ptr {place}")

    def read_scc(self) -> str:
        if self.scc is None:
            raw = self.op("load i8, ptr %sccp")
            self.scc = self.op(f"icmp ne i8 {raw}, 0")
        return self.scc

    def write_scc(self, value: str) -> None:
        self.scc = value
        self.put(f"store i8 {self.op(f'zext i1 {value} to i8')}, ptr %sccp")

    def mask_number(self, index: int) -> str:
        """A lane mask as an integer of as many bits."""
        low = self.read_s(index)
        if self.lanes == 32:
            return low
        key = (low, self.read_s(index + 1))
        if key not in self.pairs:
            one, two = (self.op(f"zext i32 {half} to i64") for half in key)
            high = self.op(f"shl i64 {two}, 32")
            self.pairs[key] = self.op(f"or i64 {one}, {high}")
        return self.pairs[key]

    # -- regions ----------------------------------------------------------------------------------
    def open(self) -> None:
        self.body: list[str] = []
        self.vval: dict[int, str] = {}
        self.mval: dict[int, str] = {}
        self.stored: dict[int, int] = {}
        self.seen: dict[int, str] = {}
        self.chunks: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        self.reads_rows = False

    def close(self) -> None:
        """Ends the region: the loop over lanes, if there is anything in it."""
        if self.body:
            name, count = self.kernel.name(), self.lanes // WIDTH
            self.put(f"br label %p{name}")
            self.label(f"p{name}")
            self.put(f"br label %l{name}")
            self.label(f"l{name}")
            self.put(f"%c{name} = phi i64 [0, %p{name}], [%d{name}, %l{name}]")
            self.put(f"%o{name} = shl i64 %c{name}, 4")
            text = "\n".join(line for line in self.body if line)
            self.kernel.out.append(text.replace("%c@", f"%c{name}").replace("%o@", f"%o{name}"))
            self.put(f"%d{name} = add i64 %c{name}, 1")
            done = self.op(f"icmp eq i64 %d{name}, {count}")
            self.put(f"br i1 {done}, label %e{name}, label %l{name}, !llvm.loop !0")
            self.label(f"e{name}")
        for index in self.mval:
            for word in range(self.lanes // 32):
                self.sval.pop(index + word, None)
        self.open()

    def lane_op(self, text: str) -> str:
        return self.vectors.sink.op(text)

    def row(self, base: str, index: int) -> str:
        """The pointer to the loop's lanes of a row of 32-bit values."""
        if base not in self.bases:
            self.bases[base] = self.lane_op(f"getelementptr i32, ptr {base}, i64 %o@")
        return self.lane_op(f"getelementptr i32, ptr {self.bases[base]}, i64 {index * self.lanes}")

    def temporary_row(self, offset: int) -> str:
        """The same, of a row that begins ``offset`` bytes into the temporary area."""
        return self.row("%tmp", offset // (4 * self.lanes))

    def read_v(self, index: int) -> str:
        if index not in self.vval:
            pointer = self.row("%vg", index)
            self.vval[index] = self.lane_op(f"load {VECTOR}, ptr {pointer}, align 64")
        return self.vval[index]

    def write_v(self, index: int, value: str) -> None:
        self.vval[index] = value
        if index in self.stored:
            self.body[self.stored[index]] = ""
        pointer = self.row("%vg", index)
        self.stored[index] = len(self.body)
        self.body.append(f"  store {VECTOR} {value}, ptr {pointer}, align 64")

    # -- values -----------------------------------------------------------------------------------
    def uniform(self, node: Symbol) -> str:
        """A value of the wave."""
        if node.op == "const":
            return literal(node.dtype, node.attr)
        known = self.useen.get(id(node))
        if known is None:
            known = self.useen[id(node)] = self._uniform(node)
        return known

    def _uniform(self, node: Symbol) -> str:  # noqa: PLR0911 - one a source
        if node.op == "s":
            return self.read_s(node.attr)
        if node.op == "scc":
            return self.read_scc()
        if node.op == "loaded":
            access, word = node.attr
            return self.loaded[id(access)][word]
        if node.op == "first":
            return self._first(node)
        if node.op == "readlane":
            row = self.op(
                f"getelementptr i32, ptr %vg, i64 {plain(node.args[0]).attr * self.lanes}"
            )
            lane = self.uniform(node.args[1])
            kind = type_of(node.args[1].dtype)
            place = self.op(f"getelementptr i32, ptr {row}, {kind} {lane}")
            return self.op(f"load i32, ptr {place}")
        if node.op == "lookup":
            code = self.uniform(node.args[0])
            kind = type_of(node.args[0].dtype)
            place = self.op(f"getelementptr float, ptr {self.kernel.table(node)}, {kind} {code}")
            return self.op(f"load float, ptr {place}")
        return self.scalars.lower(node, [self.uniform(arg) for arg in node.args])

    def _first(self, node: Symbol) -> str:
        """The first lane of a mask; 0 where there is none."""
        if self.kernel.whole and node.args[0].attr == EXEC:
            return "0"
        bits, kind = self.mask_number(node.args[0].attr), f"i{self.lanes}"
        self.kernel.declares.add(f"declare {kind} @llvm.cttz.{kind}({kind}, i1)")
        first = self.op(f"call {kind} @llvm.cttz.{kind}({kind} {bits}, i1 false)")
        none = self.op(f"icmp eq {kind} {bits}, 0")
        lane = self.op(f"select i1 {none}, {kind} 0, {kind} {first}")
        return lane if kind == "i64" else self.op(f"zext i32 {lane} to i64")

    def lane(self, node: Symbol) -> str:
        """Values of the loop's sixteen lanes."""
        if node.op == "const":
            return self.vectors.const(node.dtype, node.attr)
        known = self.seen.get(id(node))
        if known is None:
            known = self.seen[id(node)] = self._lane(node)
        return known

    def _lane(self, node: Symbol) -> str:  # noqa: PLR0911 - one a source
        if not node.is_lane:
            return self._spread(self.uniform(node), type_of(node.dtype))
        if node.op == "v":
            return self.read_v(node.attr)
        if node.op == "mask":
            return self.read_mask(node.attr)
        if node.op in ("table", "lanes"):
            return self._table(node)
        if node.op == "loaded":
            access, word = node.attr
            return self._data(self.rows[id(access)] + 4 * word * self.lanes)
        if node.op == "scratch":
            pointer = self.row("%scratch", node.attr)
            return self.lane_op(f"load {VECTOR}, ptr {pointer}, align 64")
        if node.op == "permute":
            return self._permute(node)
        if node.op == "gather":
            index = node.args[1]
            raw = self._gathered(self.rows[id(node)], self.lane(index), index.dtype)
            return self._from_row(raw, node.dtype)
        if node.op == "lookup":
            code = self.lane(node.args[0])
            return self._looked_up(self.kernel.table(node), "float", code, node.args[0].dtype)
        return self.vectors.lower(node, [self.lane(arg) for arg in node.args])

    def _spread(self, value: str, kind: str) -> str:
        first = self.op(f"insertelement <{WIDTH} x {kind}> poison, {kind} {value}, i64 0")
        return self.op(
            f"shufflevector <{WIDTH} x {kind}> {first}, <{WIDTH} x {kind}> poison, "
            f"<{WIDTH} x i32> zeroinitializer"
        )

    def read_mask(self, index: int) -> str:
        if index in self.mval:
            return self.mval[index]
        if self.kernel.whole and index == EXEC:
            return "splat (i1 true)"
        number = self.mask_number(index)
        if number not in self.chunks:
            kind = f"i{self.lanes}"
            offset = "%o@" if self.lanes == 64 else self.lane_op("trunc i64 %o@ to i32")
            moved = self.lane_op(f"lshr {kind} {number}, {offset}")
            bits = self.lane_op(f"trunc {kind} {moved} to i{WIDTH}")
            self.chunks[number] = self.lane_op(f"bitcast i{WIDTH} {bits} to {FLAGS}")
        return self.chunks[number]

    def _table(self, node: Symbol) -> str:
        kind = np.dtype(np.uint8) if node.dtype.kind == "b" else node.dtype
        one = type_of(kind)
        name = self.kernel.table(node)
        pointer = self.lane_op(f"getelementptr {one}, ptr {name}, i64 %o@")
        value = self.lane_op(f"load <{WIDTH} x {one}>, ptr {pointer}")
        return value if node.dtype.kind != "b" else self.vectors.cast(value, kind, np.bool_)

    def _data(self, offset: int) -> str:
        pointer = self.temporary_row(offset)
        return self.lane_op(f"load {VECTOR}, ptr {pointer}, align 64")

    def _permute(self, node: Symbol) -> str:
        kind = type_of(node.dtype)
        order = within(node.attr)
        if order is not None:
            value = self.lane(node.args[0])
            picks = ", ".join(f"i32 {lane}" for lane in order)
            wide = f"<{WIDTH} x {kind}>"
            return self.lane_op(
                f"shufflevector {wide} {value}, {wide} poison, <{WIDTH} x i32> <{picks}>"
            )
        index = Symbol("table", (), np.int64, node.shape, np.array(node.attr, np.int64).tobytes())
        self.alive.append(index)
        raw = self._gathered(self.rows[id(node)], self.lane(index), np.int64)
        return self._from_row(raw, node.dtype)

    def _from_row(self, raw: str, dtype: Any) -> str:
        """A value of a type of at most 32 bits, from the row it was laid down in."""
        kind = type_of(dtype)
        if kind == "float":
            return self.vectors.bits(raw, "i32", kind)
        return self.vectors.cast(raw, np.uint32, dtype)

    def _gathered(self, offset: int, index: str, dtype: Any) -> str:
        self.reads_rows = True
        base = self.lane_op(f"getelementptr i8, ptr %tmp, i64 {offset}")
        return self._looked_up(base, "i32", index, dtype)

    def _looked_up(self, base: str, kind: str, index: str, dtype: Any) -> str:
        """A value from memory for each lane, by its own number."""
        number, result = type_of(dtype), "poison"
        for lane in range(WIDTH):
            one = self.lane_op(f"extractelement <{WIDTH} x {number}> {index}, i64 {lane}")
            pointer = self.lane_op(f"getelementptr {kind}, ptr {base}, {number} {one}")
            value = self.lane_op(f"load {kind}, ptr {pointer}")
            result = self.lane_op(
                f"insertelement <{WIDTH} x {kind}> {result}, {kind} {value}, i64 {lane}"
            )
        return result

    def bits32(self, value: str, dtype: Any, how: Lowering) -> str:
        kind = type_of(dtype)
        if kind in ("i32", "float"):
            return how.bits(value, kind, "i32")
        if kind == "i64":
            return how.sink.op(f"trunc {how.wide(kind)} {value} to {how.wide('i32')}")
        if kind == "double":
            raise UntraceableError("a float64 in one register")
        return how.sink.op(f"zext {how.wide(kind)} {value} to {how.wide('i32')}")


def within(order: tuple[int, ...]) -> list[int] | None:
    """The order inside sixteen lanes, where every sixteen have the same; else None."""
    first = order[:WIDTH]
    for start in range(0, len(order), WIDTH):
        if [lane - start for lane in order[start : start + WIDTH]] != list(first):
            return None
    return list(first) if all(0 <= lane < WIDTH for lane in first) else None
