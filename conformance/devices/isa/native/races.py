"""Races in native code: what the waves of a workgroup did to each byte since their last barrier.

Native code runs a workgroup's waves one after another, each to its next barrier: a round. Two
accesses are unordered if they fall into one round, so that a byte need not know when a wave
accessed it, only which did in this round. Found is whatever :class:`..races.Races` would find in
any order of the waves, and now and then more: then the launch is undone, and interpreted with that
record, which says what it is, or that it is nothing. What a wave accesses between the two parts of
a barrier is left to it, and so is a buffer that is both read and stored to.

The word of a byte in LDS: a number of the round in bits 25 to 31; bit 24, that its value changed
twice; and 6 bits each for who read, changed, stored and atomically changed it: 0 nobody, a wave's
number plus 1, or several. That of a byte in global memory: the workgroup's number in the launch
plus 1 in bits 40 to 63, the round in 16 to 39, bit 8 that it changed twice, 7 that it changed, 6
that several waves of the round stored it, and the wave's number plus 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..instructions.access import AccessError, Places
from ..state import Lanes, State
from .context import field

READ, CHANGED, STORED, ATOMIC = 0, 6, 12, 18
SEVERAL, TWICE, ROUND = 63, 24, 25
ROUNDS = 1 << 32 - ROUND
MOST_WAVES = SEVERAL - 1
_MASK = (1 << ROUND) - 1

Words = npt.NDArray[np.uint32]


# -- as LLVM IR -----------------------------------------------------------------------------------
class _Text:
    """Instructions on vectors of ``size`` elements, named one after another."""

    def __init__(self, size: int, bits: int) -> None:
        self.size, self.kind = size, f"<{size} x i{bits}>"
        self.flags = f"<{size} x i1>"
        self.lines: list[str] = []

    def op(self, text: str) -> str:
        name = f"%t{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def two(self, name: str, one: str, other: str | int) -> str:
        return self.op(f"{name} {self.kind} {one}, {self.value(other)}")

    def value(self, one: str | int) -> str:
        return one if isinstance(one, str) else f"splat (i{self.kind.split('i')[1][:-1]} {one})"

    def test(self, name: str, one: str, other: str | int) -> str:
        return self.op(f"icmp {name} {self.kind} {one}, {self.value(other)}")

    def both(self, name: str, one: str, other: str) -> str:
        return self.op(f"{name} {self.flags} {one}, {other}")

    def select(self, flag: str, one: str | int, other: str | int) -> str:
        return self.op(
            f"select {self.flags} {flag}, {self.kind} {self.value(one)}, "
            f"{self.kind} {self.value(other)}"
        )

    def field(self, word: str, place: int, mask: int = SEVERAL) -> str:
        return self.two("and", self.two("lshr", word, place) if place else word, mask)

    def splat(self, name: str) -> str:
        """A scalar in every element."""
        kind = self.kind.split(" x ")[1][:-1]
        first = self.op(f"insertelement {self.kind} poison, {kind} {name}, i64 0")
        zeros = f"<{self.size} x i32> zeroinitializer"
        return self.op(f"shufflevector {self.kind} {first}, {self.kind} poison, {zeros}")

    def foreign(self, who: str, mine: str) -> str:
        """Whether anyone but this wave did something."""
        return self.both("and", self.test("ne", who, 0), self.test("ne", who, mine))

    def joined(self, word: str, place: int, who: str, mine: str, only: str | None = None) -> str:
        """The word with this wave among those in a field, where ``only`` says so."""
        alone = self.op(f"xor {self.flags} {self.foreign(who, mine)}, splat (i1 true)")
        new = self.select(alone, mine, SEVERAL)
        if only is not None:
            new = self.select(only, new, who)
        cleared = self.two("and", word, ~(SEVERAL << place) & 0xFFFFFFFF)
        return self.two("or", cleared, self.two("shl", new, place) if place else new)

    def any(self, flags: str) -> str:
        return self.op(f"call i1 @llvm.vector.reduce.or.v{self.size}i1({self.flags} {flags})")


def _lanes(name: str, arguments: str, before: str, body: str, bad: str, size: int) -> str:
    """A function that does ``body`` for each lane of %ok; %a is its address."""
    return f"""
declare i1 @llvm.vector.reduce.or.v{size}i1(<{size} x i1>)
declare i64 @llvm.cttz.i64(i64, i1)
define internal void @{name}({arguments}) #1 {{
entry:
{before}  %between_p = {field("race_between")}
  %between = load i64, ptr %between_p
  %parted = icmp ne i64 %between, 0
  br label %head
head:
  %m = phi i64 [%ok, %entry], [%m1, %take]
  %bad = phi i1 [%parted, %entry], [%bad1, %take]
  %over = icmp eq i64 %m, 0
  br i1 %over, label %end, label %take
take:
  %l = call i64 @llvm.cttz.i64(i64 %m, i1 true)
  %m0 = sub i64 %m, 1
  %m1 = and i64 %m, %m0
  %ap = getelementptr i64, ptr %addresses, i64 %l
  %a = load i64, ptr %ap
{body}
  %bad1 = or i1 %bad, {bad}
  br label %head
end:
  br i1 %bad, label %wrong, label %fine
wrong:
  %f = {field("fault")}
  store i64 1, ptr %f
  ret void
fine:
  ret void
}}
"""


def _own(names: dict[str, str]) -> str:
    return "".join(
        f"  %{name}_p = {field(name)}\n  %{name} = load {kind}, ptr %{name}_p\n"
        for name, kind in names.items()
    )


_ARGUMENTS = "ptr noalias %ctx, ptr noalias %lds, ptr noalias %addresses, i64 %ok"
_LDS = {"race_shadow": "ptr", "race_mine": "i32", "race_round": "i32"}


def _of_round(text: _Text) -> tuple[str, str]:
    """The words of a lane's bytes as of this round, and this wave's number."""
    mine, now = text.splat("%race_mine"), text.splat("%race_round")
    at = text.op("getelementptr i32, ptr %race_shadow, i64 %a")
    assert at == "%t4"
    word = text.op(f"load {text.kind}, ptr %t4, align 4")
    fresh = text.test("eq", text.two("lshr", word, ROUND), now)
    return text.select(fresh, word, text.two("shl", now, ROUND)), mine


def lds_load_check(size: int) -> str:
    """Before a load of ``size`` bytes a lane."""
    text = _Text(size, 32)
    word, mine = _of_round(text)
    changed, atomic = (text.foreign(text.field(word, at), mine) for at in (CHANGED, ATOMIC))
    bad = text.any(text.both("or", changed, atomic))
    new = text.joined(word, READ, text.field(word, READ), mine)
    text.lines.append(f"  store {text.kind} {new}, ptr %t4, align 4")
    body = "\n".join(text.lines)
    return _lanes(f"race_lds_load_{size}", _ARGUMENTS, _own(_LDS), body, bad, size)


def lds_store_check(size: int) -> str:
    """Before a store of ``size`` bytes a lane, in ``rows``."""
    text = _Text(size, 32)
    word, mine = _of_round(text)
    changes = _changes(text, size, "getelementptr i8, ptr %lds, i64 %a")
    read, changed, stored, atomic = (text.field(word, at) for at in (READ, CHANGED, STORED, ATOMIC))
    foreign = {name: text.foreign(who, mine) for name, who in (
        ("read", read), ("changed", changed), ("stored", stored), ("atomic", atomic))}  # fmt: skip
    others = text.both(
        "or", text.both("or", foreign["read"], foreign["changed"]), foreign["stored"]
    )
    twice = text.test("ne", text.two("and", word, 1 << TWICE), 0)
    # In another order of the waves this store might change the byte, or might not find it so.
    again = text.both("and", foreign["changed"], text.both("or", twice, foreign["read"]))
    bad = text.op(f"select {text.flags} {changes}, {text.flags} {others}, {text.flags} {again}")
    bad = text.any(text.both("or", bad, foreign["atomic"]))
    before = text.test("ne", changed, 0)
    more = text.select(text.both("and", changes, before), 1 << TWICE, 0)
    word = text.two("or", word, more)
    word = text.joined(word, STORED, stored, mine)
    word = text.joined(word, CHANGED, changed, mine, changes)
    text.lines.append(f"  store {text.kind} {word}, ptr %t4, align 4")
    arguments = _ARGUMENTS + ", ptr noalias %rows, i64 %lanes"
    body = "\n".join(text.lines)
    return _lanes(f"race_lds_store_{size}", arguments, _own(_LDS), body, bad, size)


def _changes(text: _Text, size: int, place: str) -> str:
    """Whether each byte that a lane stores differs from the one that is there; stores them.

    So that lanes of a wave that store one value change it once.
    """
    given = []
    for word in range(max(size // 4, 1)):
        row = text.op(f"mul i64 %lanes, {word}")
        at = text.op(f"add i64 {row}, %l")
        pointer = text.op(f"getelementptr i32, ptr %rows, i64 {at}")
        given.append(text.op(f"load i32, ptr {pointer}"))
    if size < 4:
        data = text.op(f"trunc i32 {given[0]} to i{8 * size}")
        data = text.op(f"bitcast i{8 * size} {data} to <{size} x i8>")
    else:
        kind = f"<{len(given)} x i32>"
        data = "poison"
        for word, value in enumerate(given):
            data = text.op(f"insertelement {kind} {data}, i32 {value}, i64 {word}")
        data = text.op(f"bitcast {kind} {data} to <{size} x i8>")
    pointer = text.op(place)
    old = text.op(f"load <{size} x i8>, ptr {pointer}, align 1")
    text.lines.append(f"  store <{size} x i8> {data}, ptr {pointer}, align 1")
    return text.op(f"icmp ne <{size} x i8> {old}, {data}")


def global_store_check(size: int) -> str:
    """Before a store of ``size`` bytes a lane to global memory."""
    text = _Text(size, 64)
    number = text.op(f"call i64 @find(ptr %ctx, i64 %a, i64 {size})")
    start_at = text.op(f"getelementptr i64, ptr %starts, i64 {number}")
    start = text.op(f"load i64, ptr {start_at}")
    offset = text.op(f"sub i64 %a, {start}")
    shadow_at = text.op(f"getelementptr ptr, ptr %race_stores, i64 {number}")
    shadow = text.op(f"load ptr, ptr {shadow_at}")
    at = text.op(f"getelementptr i64, ptr {shadow}, i64 {offset}")
    word = text.op(f"load {text.kind}, ptr {at}, align 8")
    changes = _changes(text, size, "inttoptr i64 %a to ptr")
    mine, group, now = (text.splat(name) for name in ("%mine64", "%race_group", "%race_step"))
    who, his = text.field(word, 0), text.field(word, 40, 0xFFFFFF)
    same = text.test("eq", his, group)
    this = text.both("and", same, text.test("eq", text.field(word, 16, 0xFFFFFF), now))
    known = text.test("ne", his, 0)
    once, twice, several = (
        text.test("ne", text.two("and", word, 1 << bit), 0) for bit in (7, 8, 6)
    )
    other = text.both("or", several, text.test("ne", who, mine))
    elsewhere = text.op(f"xor {text.flags} {same}, splat (i1 true)")
    unordered = text.both("or", elsewhere, text.both("and", this, other))
    differs = text.both("or", changes, twice)
    bad = text.any(text.both("and", text.both("and", known, unordered), differs))
    several = text.both("and", this, other)
    more = text.both("or", twice, text.both("and", once, changes))
    once = text.both("or", once, changes)
    word = text.two("or", text.two("shl", group, 40), text.two("shl", now, 16))
    word = text.two("or", word, mine)
    for bit, flag in ((6, several), (7, once), (8, more)):
        word = text.two("or", word, text.select(flag, 1 << bit, 0))
    text.lines.append(f"  store {text.kind} {word}, ptr {at}, align 8")
    names = {
        "starts": "ptr", "race_stores": "ptr", "race_mine": "i32", "race_group": "i64",
        "race_step": "i64",
    }  # fmt: skip
    before = _own(names) + "  %mine64 = zext i32 %race_mine to i64\n"
    arguments = _ARGUMENTS + ", ptr noalias %rows, i64 %lanes"
    body = "\n".join(text.lines)
    return _lanes(f"race_global_store_{size}", arguments, before, body, bad, size)


CHECKS: dict[tuple[str, str], Callable[[int], str]] = {
    ("lds", "load"): lds_load_check,
    ("lds", "store"): lds_store_check,
    ("global", "store"): global_store_check,
}


def check_call(space: str, kind: str, size: int, lanes: int) -> str:
    """The call of an access' check, before it is made; nothing of those that have none."""
    if (space, kind) not in CHECKS:
        return ""
    more = f", ptr %rows, i64 {lanes}" if kind == "store" else ""
    name = f"race_{space}_{kind}_{size}"
    return f"  call void @{name}(ptr %ctx, ptr %lds, ptr %addresses, i64 %ok{more})\n"


# -- what is interpreted --------------------------------------------------------------------------
class ShadowRaces:
    """The same record for accesses of blocks that are interpreted between native ones.

    ``words``: [workgroups, bytes of LDS]; ``rounds``: of each workgroup. What it finds is never
    told: the launch is undone.
    """

    def __init__(
        self,
        state: State,
        words: Words,
        rounds: npt.NDArray[np.int64],
        loaded: npt.NDArray[np.uint8],
    ) -> None:
        self.number, self._loaded = 0, loaded
        self.signalled = self.waited = np.zeros(0, dtype=np.int64)
        self._words, self._rounds = words.reshape(-1), rounds
        self._size = state.shape.waves // max(state.shape.groups, 1)

    def lds_load(self, m: State, wanted: Places, at: Places, size: int) -> None:
        for mine, places in self._by_wave(m, wanted, at, size):
            word = self._words[places]
            self._judge(word, mine, CHANGED, ATOMIC)
            self._words[places] = _joined(word, READ, mine)

    def lds_store(self, m: State, wanted: Places, at: Places, _: Lanes, size: int) -> None:
        """Any store that others' accesses are unordered with is left to the interpreter."""
        for mine, places in self._by_wave(m, wanted, at, size):
            word = self._words[places]
            self._judge(word, mine, READ, CHANGED, STORED, ATOMIC)
            word = _joined(_joined(word, STORED, mine), CHANGED, mine)
            self._words[places] = word | np.uint32(1 << TWICE)

    def lds_atomic(self, m: State, wanted: Places, at: Places, size: int) -> None:
        for mine, places in self._by_wave(m, wanted, at, size):
            word = self._words[places]
            self._judge(word, mine, READ, CHANGED, STORED)
            self._words[places] = _joined(word, ATOMIC, mine)

    def global_load(self, m: State, _: Places, addresses: Places, size: int) -> None:
        """Which buffers were read is all that is kept."""
        for buffer, _, _ in m.memory.split(addresses, size):
            self._loaded[m.memory.buffers.index(buffer)] = 1

    def global_store(self, *_: object) -> None:
        raise AccessError(0, None, "a store outside of native code")

    def global_atomic(self, *_: object) -> None:
        raise AccessError(0, None, "an atomic operation outside of native code")

    def _by_wave(
        self, m: State, wanted: Places, at: Places, size: int
    ) -> Iterator[tuple[int, Places]]:
        """Wave by wave its number plus 1 and its bytes, whose words are made this round's."""

        numbers = np.arange(m.shape.waves)[m.sel]
        running = wanted // m.lanes
        for one in np.unique(running):
            number = int(numbers[one])
            if self.signalled[number] != self.waited[number]:
                raise AccessError(int(one), None, "between the parts of a barrier")
            chosen = at[running == one]
            places = np.unique(chosen[:, None] + np.arange(size))
            now = np.uint32(self._rounds[int(m.workgroup[number])])
            word = self._words[places]
            self._words[places] = np.where(word >> ROUND == now, word, now << np.uint32(ROUND))
            yield number % self._size + 1, places

    @staticmethod
    def _judge(word: Words, mine: int, *fields: int) -> None:
        for place in fields:
            who = word >> np.uint32(place) & np.uint32(SEVERAL)
            if ((who != 0) & (who != mine)).any():
                raise AccessError(0, None, "a race")


def _joined(word: Words, place: int, mine: int) -> Words:
    who = word >> np.uint32(place) & np.uint32(SEVERAL)
    new = np.where((who == 0) | (who == mine), np.uint32(mine), np.uint32(SEVERAL))
    cleared = word & np.uint32(~(SEVERAL << place) & 0xFFFFFFFF)
    return np.asarray(cleared | new.astype(np.uint32) << np.uint32(place))
