"""One wave before memory: what tests of memory instructions share, and a model of atomics."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import TABLE, build_step
from conformance.devices.isa.memory import Memory, raw_buffer
from conformance.devices.isa.state import EXEC, Shape, State
from tests.emulator.isa_cases import GFX942, GFX950
from tests.emulator.isa_model.bits import decode, encode, signed
from tests.emulator.isa_model.floats import greater, lesser

LANES, OLD = 64, 0xA5C3E1F7
SIZE, MARGIN = 1280, 64  # bytes that may be accessed, and those around them that may not
LDS_BYTES, SCRATCH_BYTES = 2048, 64
RUNNING = 0xDEADBEEFCAFEF00D
ON = [lane for lane in range(LANES) if RUNNING >> lane & 1]
WORDS = {"dword": 1, "dwordx2": 2, "dwordx3": 3, "dwordx4": 4,
         "b32": 1, "b64": 2, "b96": 3, "b128": 4}  # fmt: skip
SMALL = {"ubyte": 1, "sbyte": -1, "ushort": 2, "sshort": -2, "u8": 1, "i8": -1, "u16": 2,
         "i16": -2, "short": 2, "b16": 2, "byte": 1, "b8": 1}  # fmt: skip
DATA, ADDRESS, RESULT = 8, 4, 20


@dataclass(frozen=True)
class Access:
    """What a name says: bytes, whether a load extends the sign, which half of a register."""

    size: int
    signed: bool = False
    half: str = ""

    def load(self, memory: bytes, at: int, old: list[int]) -> list[int]:
        """The registers after a load."""
        if self.size >= 4:
            return [int.from_bytes(memory[at + i : at + i + 4], "little")
                    for i in range(0, self.size, 4)]  # fmt: skip
        value = int.from_bytes(memory[at : at + self.size], "little", signed=self.signed)
        if self.half == "low":
            return [old[0] & 0xFFFF0000 | value & 0xFFFF]
        if self.half == "high":
            return [old[0] & 0xFFFF | (value & 0xFFFF) << 16]
        return [value & 0xFFFFFFFF]

    def stored(self, registers: list[int]) -> bytes:
        whole = b"".join(r.to_bytes(4, "little") for r in registers)
        return whole[2 : 2 + self.size] if self.half == "high" else whole[: self.size]


def access_of(kind: str) -> Access:
    """From the part of a name that says what is accessed: dwordx2, short_d16_hi, d16_u8."""
    if kind in WORDS:
        return Access(4 * WORDS[kind])
    half = "high" if "_hi" in kind else "low" if "d16" in kind else ""
    plain = re.sub(r"_?d16(_hi)?_?", "", kind)
    return Access(abs(SMALL[plain]), SMALL[plain] < 0, half)


def names(pattern: str) -> list[str]:
    return [name for name in TABLE if re.fullmatch(pattern, name)]


class Bench:
    """One wave, a buffer of global memory, and registers whose contents are known."""

    def __init__(self, name: str) -> None:
        self.draw = random.Random(name)
        self.target = GFX950 if "_tr_" in name else GFX942
        self.data = np.frombuffer(self.draw.randbytes(SIZE), dtype=np.uint8).copy()
        around = np.zeros(SIZE + 2 * MARGIN, dtype=np.uint8)
        around[MARGIN : MARGIN + SIZE] = self.data
        self.data = around[MARGIN : MARGIN + SIZE]
        self.start = int(self.data.ctypes.data)
        memory = Memory([raw_buffer("data", self.start, SIZE)])
        self.m = State(Shape(1, LANES, 128, 64, 1, LDS_BYTES, SCRATCH_BYTES), memory, None)
        self.m.vector[:] = OLD
        self.m.scalar[EXEC], self.m.scalar[EXEC + 1] = RUNNING & 0xFFFFFFFF, RUNNING >> 32
        for register in range(DATA, DATA + 8):
            self.m.vector[register, 0] = [self.draw.getrandbits(32) for _ in range(LANES)]
        self.m.select(np.array([0]))

    def pair(self, register: int, values: list[int]) -> None:
        self.m.vector[register, 0] = [v & 0xFFFFFFFF for v in values]
        self.m.vector[register + 1, 0] = [v >> 32 for v in values]

    def scalar(self, register: int, value: int, words: int = 2) -> None:
        for word in range(words):
            self.m.scalar[register + word] = value >> 32 * word & 0xFFFFFFFF

    def places(self, size: int, unit: int) -> list[int]:
        """A byte number a lane, both ends among them; off lanes far outside."""
        most = (SIZE - size) // unit
        found = [unit * self.draw.randrange(most + 1) for _ in range(LANES)]
        found[ON[0]], found[ON[1]] = 0, unit * most
        return [at if lane in ON else 1 << 20 for lane, at in enumerate(found)]

    def apart(self, size: int) -> list[int]:
        """Byte numbers of stores that do not overlap."""
        order = self.draw.sample(range((SIZE - 8) // size), LANES)
        return [8 + size * at if lane in ON else 1 << 20 for lane, at in enumerate(order)]

    def registers(self, first: int, lane: int, words: int) -> list[int]:
        return [int(self.m.vector[first + w, 0, lane]) for w in range(words)]

    def run(self, text: str) -> State:
        with np.errstate(all="ignore"):
            build_step(parse_instruction(text), self.target)(self.m)
        return self.m


class Told:
    """Stands for what looks for races, and notes what it is told."""

    def __init__(self) -> None:
        self.of: list[tuple[str, list[int], list[int], int]] = []

    def __getattr__(self, what: str) -> Any:
        def note(_m: object, wanted: Any, places: Any, *rest: Any) -> None:
            self.of.append((what, wanted.tolist(), places.tolist(), rest[-1]))

        return note


def v(first: int, words: int) -> str:
    return f"v[{first}:{first + words - 1}]" if words > 1 else f"v{first}"


def joined(words: list[int]) -> int:
    return sum(word << 32 * place for place, word in enumerate(words))


# -- atomics --------------------------------------------------------------------------------------
Change = Callable[[int, int], int]


def in_float(kind: str, function: Callable[[float, float], float]) -> Change:
    return lambda a, b: encode(function(decode(a, kind), decode(b, kind)), kind)


def in_pairs(kind: str) -> Change:
    def one(a: int, b: int) -> int:
        return encode(decode(a & 0xFFFF, kind) + decode(b & 0xFFFF, kind), kind)

    return lambda a, b: one(a, b) | one(a >> 16, b >> 16) << 16


def whole_numbers(bits: int) -> dict[str, Change]:
    """Operations on integers by the names that RDNA3 gave them."""

    def with_sign(function: Callable[..., int]) -> Change:
        return lambda a, b: function(a, b, key=lambda x: signed(x, bits))

    return {
        f"add_u{bits}": lambda a, b: a + b,
        f"sub_u{bits}": lambda a, b: a - b,
        f"rsub_u{bits}": lambda a, b: b - a,
        f"swap_b{bits}": lambda _, b: b,
        f"and_b{bits}": lambda a, b: a & b,
        f"or_b{bits}": lambda a, b: a | b,
        f"xor_b{bits}": lambda a, b: a ^ b,
        f"max_u{bits}": max,
        f"min_u{bits}": min,
        f"max_i{bits}": with_sign(max),
        f"min_i{bits}": with_sign(min),
        f"inc_u{bits}": lambda a, b: 0 if a >= b else a + 1,
        f"dec_u{bits}": lambda a, b: b if a == 0 or a > b else a - 1,
    }


_OLD_NAMES = {"umax": "max_u", "umin": "min_u", "smax": "max_i", "smin": "min_i", "swap": "swap_b",
              "and": "and_b", "or": "or_b", "xor": "xor_b"}  # fmt: skip


def _older() -> dict[str, tuple[int, Change]]:
    """add is add_u32, add_x2 is add_u64."""
    table = {}
    for bits, end in ((32, ""), (64, "_x2")):
        numbers = whole_numbers(bits)
        for old in ("add", "sub", "inc", "dec", *_OLD_NAMES):
            new = f"{_OLD_NAMES.get(old, f'{old}_u')}{bits}"
            table[old + end] = (bits // 8, numbers[new])
    return table


# Bytes, and what becomes of the old value.
ATOMIC: dict[str, tuple[int, Change]] = {
    **{name: (4, change) for name, change in whole_numbers(32).items()},
    **{name: (8, change) for name, change in whole_numbers(64).items()},
    **_older(),
    **dict.fromkeys(("csub", "csub_u32", "sub_clamp_u32"), (4, lambda a, b: max(a - b, 0))),
    "add_f32": (4, in_float("f32", lambda a, b: a + b)),
    "add_f64": (8, in_float("f64", lambda a, b: a + b)),
    **dict.fromkeys(("max_f32", "fmax", "max_num_f32"), (4, in_float("f32", greater))),
    **dict.fromkeys(("min_f32", "fmin", "min_num_f32"), (4, in_float("f32", lesser))),
    **dict.fromkeys(("max_f64", "max_num_f64"), (8, in_float("f64", greater))),
    **dict.fromkeys(("min_f64", "min_num_f64"), (8, in_float("f64", lesser))),
    "pk_add_f16": (4, in_pairs("f16")),
    "pk_add_bf16": (4, in_pairs("bf16")),
    **{f"{name}_b{bits}": (bits // 8, lambda _, b: b)
       for name in ("wrxchg", "storexchg") for bits in (32, 64)},
}  # fmt: skip
# Bytes of those that compare: the new value is stored where the old one is another given one.
COMPARING = {"cmpswap": 4, "cmpswap_b32": 4, "cmpswap_x2": 8, "cmpswap_b64": 8,
             "cmpst_b32": 4, "cmpst_b64": 8, "cmpstore_b32": 4, "cmpstore_b64": 8}  # fmt: skip


def close_to(bench: Bench, register: int, lane: int, words: int, before: int) -> None:
    """Gives every third lane what memory holds, or one more or less: where operations turn."""
    if lane % 3 == 0:
        value = before + bench.draw.choice((-1, 0, 0, 1)) & (1 << 32 * words) - 1
        for word in range(words):
            bench.m.vector[register + word, 0, lane] = value >> 32 * word & 0xFFFFFFFF


def tame(bench: Bench) -> None:
    """Memory and data of numbers that are no NaN as a float or as halves."""
    for at in range(0, SIZE, 4):
        bench.data[at : at + 4] = list(struct.pack("<ee", bench.draw.uniform(-9, 9), 1.5))
    for register in range(DATA, DATA + 4):
        values = [struct.pack("<ee", bench.draw.uniform(-9, 9), 2.5) for _ in range(LANES)]
        bench.m.vector[register, 0] = [int.from_bytes(b, "little") for b in values]
