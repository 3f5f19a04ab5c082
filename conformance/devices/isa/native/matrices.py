"""Matrix products as LLVM IR, made from the table's own maps of places.

``rows_of`` and ``spread`` of the instruction are applied to numbers of places instead of values:
that tells where each element of A and B lies and where each of D goes. Sixteen columns of one row
are one vector; the sums run over k as the table's do. A step is fused where a fused one comes to
the same.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ...assembly import Instruction
from ..instructions.matrix import AT_ONCE, MatrixBuilt
from ..target import IsaTarget, fp8_codec
from .lower import WIDTH, literal
from .symbols import UntraceableError

_PER_REGISTER = {"f32": 1, "xf32": 1, "f16": 2, "bf16": 2, "fp8": 4, "bf8": 4}
# Products of two of these have no more bits than a float32, nor a larger exponent.
EXACT = {"f16", "fp8", "bf8"}
VECTOR, REAL = f"<{WIDTH} x i32>", f"<{WIDTH} x float>"


_MADE: dict[tuple[object, ...], tuple[str, str]] = {}


def product_of(ins: Instruction, built: MatrixBuilt, target: IsaTarget) -> tuple[str, str]:
    """The name and the text of the function that computes a matrix instruction.

    Raises:
        UntraceableError: sixteen columns do not lie in sixteen lanes.
    """
    mnemonic, modifiers = ins.mnemonic, tuple(sorted(ins.modifiers.items()))
    key = (target.name, target.lanes, mnemonic, modifiers, built.held)
    if key not in _MADE:
        product = Product(built, target)
        _MADE[key] = product.name, product.text()
    return _MADE[key]


class Product:
    """One kind of matrix instruction as a function of pointers to D, A, B and C."""

    def __init__(self, built: MatrixBuilt, target: IsaTarget) -> None:
        self.built, self.target, self.lanes = built, target, target.lanes
        held = built.held
        numbers = np.arange(self.lanes * held, dtype=np.int64).reshape(1, self.lanes, held)
        self.places = np.asarray(built.rows_of(numbers))[0]
        self.size, self.depth = self.places.shape
        cells = np.arange(self.size**2, dtype=np.int64).reshape(1, self.size, self.size)
        self.out = np.asarray(built.spread(cells))[:, 0]
        self.lines: list[str] = []
        self.globals: dict[str, str] = {}
        self._n = 0

    @property
    def name(self) -> str:
        """The same for the same layout and types."""
        shape = f"{self.size}x{self.depth}_{'_'.join(self.built.kinds)}_{self.target.family.fp8}"
        layout = hashlib.sha256(self.places.tobytes() + self.out.tobytes()).hexdigest()[:8]
        return f"matrix_{shape}_{layout}"

    def op(self, text: str) -> str:
        self._n += 1
        self.lines.append(f"  %n{self._n} = {text}")
        return f"%n{self._n}"

    def text(self) -> str:
        """The function; UntraceableError where sixteen columns do not lie in sixteen lanes."""
        space = self.op(f"alloca [{self.depth * self.size} x float], align 64")
        columns = [self._elements("b", k, self.built.kinds[1]) for k in range(self.depth)]
        for k in range(self.depth):
            for part, value in enumerate(self._elements("a", k, self.built.kinds[0])):
                place = self.op(
                    f"getelementptr float, ptr {space}, i64 {k * self.size + WIDTH * part}"
                )
                self.lines.append(f"  store {REAL} {value}, ptr {place}, align 64")
        for part in range(self.size // WIDTH):
            self._results(space, part, [column[part] for column in columns])
        body = "\n".join(self.lines)
        return (
            "\n".join(self.globals.values())
            + f"\n@{self.name}_0 = internal constant "
            + f"[{self.out.size} x float] zeroinitializer, align 64"
            + f"\ndefine internal void @{self.name}(ptr %d, ptr %a, ptr %b, ptr %c) #1 {{\n"
            + f"{body}\n  ret void\n}}\n"
            + f"declare {REAL} @llvm.fma.v{WIDTH}f32({REAL}, {REAL}, {REAL})\n"
        )

    def _elements(self, source: str, k: int, kind: str) -> list[str]:
        """Elements k of every row, sixteen to a vector."""
        found, per = [], _PER_REGISTER[kind]
        for first in range(0, self.size, WIDTH):
            lane, element = np.divmod(self.places[first : first + WIDTH, k], self.built.held)
            if (lane != lane[0] + np.arange(WIDTH)).any() or (element != element[0]).any():
                raise UntraceableError("a matrix whose rows are not in consecutive lanes")
            word, inside = divmod(int(element[0]), per)
            at = word * self.lanes + int(lane[0])
            pointer = self.op(f"getelementptr i32, ptr %{source}, i64 {at}")
            raw = self.op(f"load {VECTOR}, ptr {pointer}, align 64")
            found.append(self._decoded(raw, inside, kind))
        return found

    def _decoded(self, raw: str, inside: int, kind: str) -> str:
        if kind in ("f32", "xf32"):
            return self.op(f"bitcast {VECTOR} {raw} to {REAL}")
        if kind == "bf16":
            if inside:
                bits = self.op(f"and {VECTOR} {raw}, splat (i32 {0xFFFF0000})")
            else:
                bits = self.op(f"shl {VECTOR} {raw}, splat (i32 16)")
            return self.op(f"bitcast {VECTOR} {bits} to {REAL}")
        shift = (16 if kind == "f16" else 8) * inside
        moved = self.op(f"lshr {VECTOR} {raw}, splat (i32 {shift})") if shift else raw
        if kind == "f16":
            narrow = self.op(f"trunc {VECTOR} {moved} to <{WIDTH} x i16>")
            half = self.op(f"bitcast <{WIDTH} x i16> {narrow} to <{WIDTH} x half>")
            return self.op(f"fpext <{WIDTH} x half> {half} to {REAL}")
        return self._looked_up(moved, kind)

    def _looked_up(self, moved: str, kind: str) -> str:
        """An 8-bit float by the table of its values."""
        values = fp8_codec(kind, self.target).values
        name = f"@{self.name}_{kind}"
        items = ", ".join(f"float {literal(np.float32, value)}" for value in values)
        self.globals[name] = f"{name} = internal constant [256 x float] [{items}]"
        code = self.op(f"and {VECTOR} {moved}, splat (i32 255)")
        result = "poison"
        for lane in range(WIDTH):
            one = self.op(f"extractelement {VECTOR} {code}, i64 {lane}")
            pointer = self.op(f"getelementptr float, ptr {name}, i32 {one}")
            value = self.op(f"load float, ptr {pointer}")
            result = self.op(f"insertelement {REAL} {result}, float {value}, i64 {lane}")
        return result

    def _results(self, space: str, part: int, columns: list[str]) -> None:
        """Every row of sixteen columns: they stay in registers."""
        for number in range(self.out.shape[0]):
            for first in range(0, self.lanes, WIDTH):
                row, column = np.divmod(self.out[number, first : first + WIDTH], self.size)
                if (row != row[0]).any() or (column != column[0] + np.arange(WIDTH)).any():
                    raise UntraceableError("a matrix result across rows")
                if int(column[0]) == WIDTH * part:
                    self._result(space, int(row[0]), columns, number * self.lanes + first)

    def _added(self, before: str, total: str) -> str:
        return self.op(f"fadd {REAL} {before}, {total}") if before else total

    def _multiplied_and_added(self, one: str, two: str, total: str) -> str:
        if set(self.built.kinds) <= EXACT:
            values = f"{REAL} {one}, {REAL} {two}, {REAL} {total}"
            return self.op(f"call {REAL} @llvm.fma.v{WIDTH}f32({values})")
        product = self.op(f"fmul {REAL} {one}, {two}")
        return self.op(f"fadd {REAL} {total}, {product}")

    def _result(self, space: str, row: int, columns: list[str], at: int) -> None:
        total, before = "zeroinitializer", ""
        for k, column in enumerate(columns):
            if k % AT_ONCE == 0:
                before = self._added(before, total) if k else ""
                total = "zeroinitializer"
            pointer = self.op(f"getelementptr float, ptr {space}, i64 {k * self.size + row}")
            one = self.op(f"load float, ptr {pointer}")
            first = self.op(f"insertelement {REAL} poison, float {one}, i64 0")
            factor = self.op(
                f"shufflevector {REAL} {first}, {REAL} poison, <{WIDTH} x i32> zeroinitializer"
            )
            total = self._multiplied_and_added(factor, column, total)
        total = self._added(before, total)
        source = self.op(f"getelementptr float, ptr %c, i64 {at}")
        added = self.op(f"load {REAL}, ptr {source}, align 64")
        total = self.op(f"fadd {REAL} {total}, {added}")
        goal = self.op(f"getelementptr float, ptr %d, i64 {at}")
        self.lines.append(f"  store {REAL} {total}, ptr {goal}, align 64")
