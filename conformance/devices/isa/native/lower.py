"""An operation of numpy as LLVM IR, on one value or on a vector of lanes.

Names are numpy's. What LLVM leaves undefined where numpy does not (a shift by too much, a
saturating conversion) is spelled out; NaN payloads alone are left to LLVM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .symbols import Symbol, UntraceableError, plain

# Lanes in one vector: the rows in which lanes are permuted; LLVM splits it for narrower machines.
WIDTH = 16
_TYPES = {
    "b1": "i1",
    "u1": "i8",
    "i1": "i8",
    "u2": "i16",
    "i2": "i16",
    "u4": "i32",
    "i4": "i32",
    "u8": "i64",
    "i8": "i64",
    "f2": "half",
    "f4": "float",
    "f8": "double",
}
_SUFFIX = {"float": "f32", "double": "f64", "half": "f16"}
_INTEGER = {"half": "i16", "float": "i32", "double": "i64"}


class Sink(Protocol):
    """Where instructions go."""

    def op(self, text: str) -> str:
        """Appends ``%n = text``; the name."""

    def declare(self, text: str) -> None:
        """A function that the text calls."""


def type_of(dtype: Any) -> str:
    return _TYPES[np.dtype(dtype).kind + str(np.dtype(dtype).itemsize)]


def literal(dtype: Any, value: Any) -> str:
    kind = type_of(dtype)
    if kind == "i1":
        return "true" if value else "false"
    if kind == "half":
        return f"0xH{int(np.float16(value).view(np.uint16)):04X}"
    if kind == "float":
        # A float is written as the double that equals it: a NaN's payload, too, is moved up.
        bits = int(np.float32(value).view(np.uint32))
        if np.isnan(value):
            wide = (bits >> 31 << 63) | (0x7FF << 52) | (bits & 0x7FFFFF) << 29
            return f"0x{wide:016X}"
    if kind in ("float", "double"):
        return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
    return str(int(value))


class Lowering:
    """One operation's instructions; ``vector`` says whether on :data:`WIDTH` lanes."""

    def __init__(self, sink: Sink, vector: bool) -> None:
        self.sink, self.vector = sink, vector

    # -- spelling -----------------------------------------------------------------------------
    def wide(self, kind: str) -> str:
        return f"<{WIDTH} x {kind}>" if self.vector else kind

    def type(self, dtype: Any) -> str:
        return self.wide(type_of(dtype))

    def const(self, dtype: Any, value: Any) -> str:
        text = literal(dtype, value)
        return f"splat ({type_of(dtype)} {text})" if self.vector else text

    def call(self, name: str, kind: str, *args: str, more: str = "") -> str:
        """An intrinsic on values of one type."""
        suffix = (f"v{WIDTH}" if self.vector else "") + _SUFFIX.get(kind, kind)
        full, wide = f"llvm.{name}.{suffix}", self.wide(kind)
        extra = f", {more.split(maxsplit=1)[0]}" if more else ""
        self.sink.declare(f"declare {wide} @{full}({', '.join([wide] * len(args))}{extra})")
        given = ", ".join(f"{wide} {arg}" for arg in args) + (f", {more}" if more else "")
        return self.sink.op(f"call {wide} @{full}({given})")

    def select(self, flag: str, kind: str, one: str, two: str) -> str:
        wide = self.wide(kind)
        return self.sink.op(f"select {self.wide('i1')} {flag}, {wide} {one}, {wide} {two}")

    def bits(self, value: str, source: str, goal: str) -> str:
        if source == goal:
            return value
        return self.sink.op(f"bitcast {self.wide(source)} {value} to {self.wide(goal)}")

    # -- operations ---------------------------------------------------------------------------
    def lower(self, node: Symbol, args: list[str]) -> str:
        """The value of a node, given those of its arguments."""
        method: Callable[[Symbol, list[str]], str] = getattr(self, f"_{node.op}", self._binary)
        return method(node, args)

    def _binary(self, node: Symbol, args: list[str]) -> str:
        integer, real = _BINARY[node.op]
        word = real if node.dtype.kind == "f" else integer
        return self.sink.op(f"{word} {self.type(node.dtype)} {args[0]}, {args[1]}")

    def _same(self, _node: Symbol, args: list[str]) -> str:
        return args[0]

    _chosen = _same

    def _bits(self, node: Symbol, args: list[str]) -> str:
        return self.bits(args[0], type_of(node.args[0].dtype), type_of(node.dtype))

    def _where(self, node: Symbol, args: list[str]) -> str:
        return self.select(args[0], type_of(node.dtype), args[1], args[2])

    def _invert(self, node: Symbol, args: list[str]) -> str:
        ones = self.const(node.dtype, True if node.dtype.kind == "b" else -1)
        return self.sink.op(f"xor {self.type(node.dtype)} {args[0]}, {ones}")

    _logical_not = _invert

    def _negative(self, node: Symbol, args: list[str]) -> str:
        kind = self.type(node.dtype)
        if node.dtype.kind == "f":
            return self.sink.op(f"fneg {kind} {args[0]}")
        return self.sink.op(f"sub {kind} {self.const(node.dtype, 0)}, {args[0]}")

    def _absolute(self, node: Symbol, args: list[str]) -> str:
        kind = type_of(node.dtype)
        if node.dtype.kind == "f":
            return self.call("fabs", kind, args[0])
        if node.dtype.kind == "u":
            return args[0]
        return self.call("abs", kind, args[0], more="i1 false")

    def _left_shift(self, node: Symbol, args: list[str]) -> str:
        return self._shift(node, args, "shl")

    def _right_shift(self, node: Symbol, args: list[str]) -> str:
        return self._shift(node, args, "ashr" if node.dtype.kind == "i" else "lshr")

    def _shift(self, node: Symbol, args: list[str], word: str) -> str:
        kind, bits = self.type(node.dtype), 8 * node.itemsize
        if _below(node.args[1], bits):
            return self.sink.op(f"{word} {kind} {args[0]}, {args[1]}")
        fits = self.sink.op(f"icmp ult {kind} {args[1]}, {self.const(node.dtype, bits)}")
        last = bits - 1 if word == "ashr" else 0
        count = self.select(fits, type_of(node.dtype), args[1], self.const(node.dtype, last))
        shifted = self.sink.op(f"{word} {kind} {args[0]}, {count}")
        if word == "ashr":
            return shifted
        return self.select(fits, type_of(node.dtype), shifted, self.const(node.dtype, 0))

    def _compare(self, node: Symbol, args: list[str]) -> str:
        source, word = node.args[0].dtype, _COMPARE[node.op]
        if source.kind == "f":
            order = "u" if word == "ne" else "o"
            return self.sink.op(f"fcmp {order}{word} {self.type(source)} {args[0]}, {args[1]}")
        sign = "" if word in ("eq", "ne") else "s" if source.kind == "i" else "u"
        return self.sink.op(f"icmp {sign}{word} {self.type(source)} {args[0]}, {args[1]}")

    _less = _less_equal = _greater = _greater_equal = _equal = _not_equal = _compare

    def _isnan(self, node: Symbol, args: list[str]) -> str:
        return self.sink.op(f"fcmp uno {self.type(node.args[0].dtype)} {args[0]}, {args[0]}")

    def _against_infinity(self, node: Symbol, args: list[str], word: str) -> str:
        source = node.args[0].dtype
        size = self.call("fabs", type_of(source), args[0])
        return self.sink.op(f"fcmp {word} {self.type(source)} {size}, {self.const(source, np.inf)}")

    def _isinf(self, node: Symbol, args: list[str]) -> str:
        return self._against_infinity(node, args, "oeq")

    def _isfinite(self, node: Symbol, args: list[str]) -> str:
        return self._against_infinity(node, args, "one")

    def _signbit(self, node: Symbol, args: list[str]) -> str:
        source = type_of(node.args[0].dtype)
        raw = self.bits(args[0], source, _INTEGER[source])
        zero = "zeroinitializer" if self.vector else "0"
        return self.sink.op(f"icmp slt {self.wide(_INTEGER[source])} {raw}, {zero}")

    def _extreme(self, node: Symbol, args: list[str]) -> str:
        """fmax and fmin prefer a number, maximum and minimum a NaN; of equals the first."""
        kind, largest = type_of(node.dtype), node.op in ("fmax", "maximum")
        if node.dtype.kind != "f":
            sign = "s" if node.dtype.kind == "i" else "u"
            return self.call(f"{sign}{'max' if largest else 'min'}", kind, *args)
        wide = self.wide(kind)
        first = self.sink.op(f"fcmp {'oge' if largest else 'ole'} {wide} {args[0]}, {args[1]}")
        tested = args[1] if node.op.startswith("f") else args[0]
        nan = self.sink.op(f"fcmp uno {wide} {tested}, {tested}")
        either = self.sink.op(f"or {self.wide('i1')} {first}, {nan}")
        return self.select(either, kind, args[0], args[1])

    _fmax = _fmin = _maximum = _minimum = _extreme

    def _clipped(self, node: Symbol, args: list[str]) -> str:
        kind, low = type_of(node.dtype), node.op == "clip_low"
        if node.dtype.kind != "f":
            sign = "s" if node.dtype.kind == "i" else "u"
            return self.call(f"{sign}{'max' if low else 'min'}", kind, *args)
        word = "olt" if low else "ogt"
        past = self.sink.op(f"fcmp {word} {self.wide(kind)} {args[0]}, {args[1]}")
        return self.select(past, kind, args[1], args[0])

    _clip_low = _clip_high = _clipped

    def _intrinsic(self, node: Symbol, args: list[str]) -> str:
        return self.call(node.op, type_of(node.dtype), *args)

    _rint = _trunc = _floor = _ceil = _sqrt = _copysign = _fma = _intrinsic

    def _bitwise_count(self, node: Symbol, args: list[str]) -> str:
        source = node.args[0].dtype
        count = self.call("ctpop", type_of(source), args[0])
        return self.cast(count, source, node.dtype)

    def _frexp0(self, node: Symbol, args: list[str]) -> str:
        """The fraction, in float64 where every float32 is normal."""
        wide, _, plain_number = self._taken_apart(node, args)
        raw = self.bits(wide, "double", "i64")
        masked = self.sink.op(f"and {self.wide('i64')} {raw}, {self._i64(~(0x7FF << 52))}")
        placed = self.sink.op(f"or {self.wide('i64')} {masked}, {self._i64(1022 << 52)}")
        value = self.bits(placed, "i64", "double")
        chosen = self.select(plain_number, "double", value, wide)
        return self.cast(chosen, np.float64, node.dtype)

    def _frexp1(self, node: Symbol, args: list[str]) -> str:
        _, power, plain_number = self._taken_apart(node, args)
        value = self.sink.op(f"sub {self.wide('i64')} {power}, {self._i64(1022)}")
        chosen = self.select(plain_number, "i64", value, self._i64(0))
        return self.cast(chosen, np.int64, node.dtype)

    def _taken_apart(self, node: Symbol, args: list[str]) -> tuple[str, str, str]:
        """As float64: the value, its biased exponent, and whether it is finite and not zero."""
        wide = self.cast(args[0], node.args[0].dtype, np.float64)
        raw = self.bits(wide, "double", "i64")
        shifted = self.sink.op(f"lshr {self.wide('i64')} {raw}, {self._i64(52)}")
        power = self.sink.op(f"and {self.wide('i64')} {shifted}, {self._i64(0x7FF)}")
        less = self.sink.op(f"sub {self.wide('i64')} {power}, {self._i64(1)}")
        number = self.sink.op(f"icmp ult {self.wide('i64')} {less}, {self._i64(0x7FE)}")
        return wide, power, number

    def _i64(self, value: int) -> str:
        return self.const(np.int64, value)

    def _ldexp(self, node: Symbol, args: list[str]) -> str:
        """Exact in float64, then rounded once; past 2**400 every float32 overflows or vanishes."""
        kind, wide = type_of(node.args[1].dtype), self.wide("i64")
        power = (
            args[1]
            if kind == "i64"
            else self.sink.op(f"sext {self.wide(kind)} {args[1]} to {wide}")
        )
        power = self.call("smin", "i64", power, self._i64(400))
        power = self.call("smax", "i64", power, self._i64(-400))
        biased = self.sink.op(f"add {wide} {power}, {self._i64(1023)}")
        raw = self.sink.op(f"shl {wide} {biased}, {self._i64(52)}")
        factor = self.bits(raw, "i64", "double")
        value = self.cast(args[0], node.args[0].dtype, np.float64)
        product = self.sink.op(f"fmul {self.wide('double')} {value}, {factor}")
        return self.cast(product, np.float64, node.dtype)

    def _to_half(self, node: Symbol, args: list[str]) -> str:
        half = self.cast(args[0], node.args[0].dtype, np.float16)
        raw = self.bits(half, "half", "i16")
        return self.sink.op(f"zext {self.wide('i16')} {raw} to {self.wide('i32')}")

    # -- conversions ----------------------------------------------------------------------------
    def _cast(self, node: Symbol, args: list[str]) -> str:
        return self.cast(args[0], node.args[0].dtype, node.dtype)

    def cast(self, value: str, source: Any, goal: Any) -> str:
        source, goal = np.dtype(source), np.dtype(goal)
        one, two = self.type(source), self.type(goal)
        if (one == two and source.kind in "iu" and goal.kind in "iu") or source == goal:
            return value
        if goal.kind == "b":
            zero = self.const(source, 0)
            if source.kind == "f":
                return self.sink.op(f"fcmp une {one} {value}, {zero}")
            return self.sink.op(f"icmp ne {one} {value}, {zero}")
        if source.kind == "f" and goal.kind == "f":
            if source.itemsize == 8 and goal.itemsize == 2:
                return self.cast(self._rounded_to_odd(value), np.float32, goal)
            word = "fpext" if goal.itemsize > source.itemsize else "fptrunc"
        elif source.kind == "f":
            word = "fptosi" if goal.kind == "i" else "fptoui"
        elif goal.kind == "f":
            word = "sitofp" if source.kind == "i" else "uitofp"
        elif goal.itemsize < source.itemsize:
            word = "trunc"
        else:
            word = "sext" if source.kind == "i" else "zext"
        return self.sink.op(f"{word} {one} {value} to {two}")

    def _rounded_to_odd(self, value: str) -> str:
        """float64 to float32 so that rounding again, to fewer bits, rounds as if once.

        Towards zero, with the last bit set where anything was lost.
        """
        near = self.sink.op(f"fptrunc {self.wide('double')} {value} to {self.wide('float')}")
        back = self.sink.op(f"fpext {self.wide('float')} {near} to {self.wide('double')}")
        exact = self.sink.op(f"fcmp ueq {self.wide('double')} {back}, {value}")
        sizes = [self.call("fabs", "double", one) for one in (back, value)]
        past = self.sink.op(f"fcmp ogt {self.wide('double')} {sizes[0]}, {sizes[1]}")
        raw = self.bits(near, "float", "i32")
        less = self.sink.op(f"sub {self.wide('i32')} {raw}, {self.const(np.uint32, 1)}")
        inward = self.select(past, "i32", less, raw)
        odd = self.sink.op(f"or {self.wide('i32')} {inward}, {self.const(np.uint32, 1)}")
        return self.bits(self.select(exact, "i32", raw, odd), "i32", "float")


_COMPARE = {
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
}
_BINARY = {
    "add": ("add", "fadd"),
    "subtract": ("sub", "fsub"),
    "multiply": ("mul", "fmul"),
    "divide": ("", "fdiv"),
    "floor_divide": ("udiv", ""),
    "remainder": ("urem", ""),
    "bitwise_and": ("and", ""),
    "bitwise_or": ("or", ""),
    "bitwise_xor": ("xor", ""),
    "logical_and": ("and", ""),
    "logical_or": ("or", ""),
}
_SOURCES = frozenset(
    (
        *("const", "table", "lanes", "s", "scc", "v", "mask", "loaded", "scratch"),
        *("readlane", "first", "gather", "permute", "lookup"),
    )
)


def check(node: Symbol) -> None:
    """UntraceableError if there is no native form of the node."""
    name, kind = node.op, node.dtype.kind
    if name in _SOURCES:
        return
    if name in _BINARY:
        word = _BINARY[name][kind == "f"]
        if not word or (kind == "b" and word not in ("and", "or", "xor")) or node.dtype == "f2":
            raise UntraceableError(f"{name} of {node.dtype}")
        if word in ("udiv", "urem"):
            _check_division(node)
        return
    if not hasattr(Lowering, f"_{name}") or name in ("compare", "intrinsic", "shift"):
        raise UntraceableError(name)
    if node.dtype == "f2" and name not in ("bits", "cast", "same"):
        raise UntraceableError(f"{name} of {node.dtype}")
    if name == "ldexp" and node.dtype != "f4":
        raise UntraceableError(f"ldexp of {node.dtype}")
    if name == "to_half" and node.args[0].dtype.kind != "f":
        raise UntraceableError(f"half a {node.args[0].dtype}")


def _check_division(node: Symbol) -> None:
    divisor = node.args[1]
    if node.dtype.kind != "u" or divisor.op != "const" or int(divisor.attr) == 0:
        raise UntraceableError(f"{node.op} of {node.dtype} by what is not known")


def _below(count: Symbol, bits: int) -> bool:
    """Whether a shift's count is known to be in range."""
    count = plain(count)
    while count.op == "cast" and count.args[0].dtype.kind in "iu":
        count = plain(count.args[0])
    if count.op == "const":
        return 0 <= int(count.attr) < bits
    if count.op == "bitwise_and":
        return any(a.op == "const" and 0 <= int(a.attr) < bits for a in map(plain, count.args))
    return False
