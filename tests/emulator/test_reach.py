"""How far every access reaches: its first place and its last, one step past either; and what looks
for races is told of it.

One lane runs. Outside of what may be accessed nothing changes, and the run stops; but what a
buffer's descriptor rules out reads as 0 and is not written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from conformance.devices.isa.instructions.access import AccessError
from conformance.devices.isa.instructions.table import TABLE
from conformance.devices.isa.state import EXEC, M0
from tests.emulator import test_lds, test_memory
from tests.emulator.isa_memory import (
    ADDRESS,
    ATOMIC,
    COMPARING,
    DATA,
    LANES,
    LDS_BYTES,
    OLD,
    RESULT,
    SCRATCH_BYTES,
    SIZE,
    WORDS,
    Bench,
    Told,
    access_of,
    v,
)

RUNS = 5  # the lane
LIMIT = SIZE - 200  # bytes that the descriptor of a buffer lets through
DESCRIPTOR = 20
PAIR, PLACE = f"v[{ADDRESS}:{ADDRESS + 1}]", f"v{ADDRESS}"


@dataclass(frozen=True)
class Access:
    """An access as it is written, its place in v4 (or v[4:5]) left to be filled in.

    ``size``: bytes from the place on. ``told``: what looks for races is told, in turn: what
    happens, how many bytes after the place, and to how many bytes. ``fixed``: the place stands in
    the text.
    """

    text: str
    space: str
    size: int
    told: tuple[tuple[str, int, int], ...] = ()
    fixed: bool = False

    @property
    def end(self) -> int:
        """Where the last byte that may be accessed is."""
        return {"buffer": LIMIT, "lds": LDS_BYTES, "scratch": SCRATCH_BYTES}.get(self.space, SIZE)

    @property
    def step(self) -> int:
        """By how much an access can miss its place: in scratch words are aligned."""
        return min(self.size, 4) if self.space == "scratch" else 1


def in_memory(name: str, size: int, what: str, data: str, into: str) -> Access:
    """A load, a store or an atomic operation by its space's way of writing an address."""
    space, told = name.partition("_")[0], ((f"global_{what}", 0, size),)
    if space == "buffer":
        place = f"{PLACE}, s[{DESCRIPTOR}:{DESCRIPTOR + 3}], 0 offen"
        text = f"{name} {', '.join(filter(None, (into or data, place)))}"
    else:
        off = ["off"] if space == "global" else []
        text = f"{name} {', '.join(filter(None, [into, PAIR, data, *off]))}"
    return Access(text + (" sc0" if what == "atomic" else ""), space, size, told)


def of_memory(name: str) -> Access:
    kind = name.split("_", 2)[2]
    if name in test_memory.ATOMICS:
        compares = kind in COMPARING
        size = COMPARING[kind] if compares else ATOMIC[kind][0]
        words = size // 4
        data, into = v(DATA, words * (1 + compares)), v(RESULT, words)
        return in_memory(name, size, "atomic", data, "" if name.startswith("buffer") else into)
    if name in test_memory.TO_LDS:
        words = WORDS[kind.removeprefix("lds_")]
        plain = in_memory(name, 4 * words, "load", "", "")
        to_lds = ("lds_store", 0, 4 * words)
        return Access(plain.text, plain.space, plain.size, (*plain.told, to_lds))
    size = access_of(kind).size
    registers = max(size // 4, 1)
    if name in test_memory.LOADS:
        return in_memory(name, size, "load", "", v(RESULT, registers))
    return in_memory(name, size, "store", v(DATA, registers), "")


def of_lds(name: str) -> list[Access]:
    """Of two places at once each in turn is the farther one."""
    if name in test_lds.ATOMICS:
        kind = test_lds.operation_of(name)
        compares = kind in COMPARING
        size = COMPARING[kind] if compares else ATOMIC[kind][0]
        words = size // 4
        data = [v(DATA + n * words, words) for n in range(1 + compares)]
        into = [v(RESULT, words)] if "_rtn_" in name else []
        text = f"{name} {', '.join([*into, PLACE, *data])}"
        return [Access(text, "lds", size, (("lds_atomic", 0, size),))]
    size = access_of(test_lds.kind_of(name)).size if name not in PAIRS else PAIRS[name]
    words = max(size // 4, 1)
    what = "load" if name in (*test_lds.LOADS, *test_lds.TWO_LOADS) else "store"
    if name not in PAIRS:
        operands = [v(RESULT, words), PLACE] if what == "load" else [PLACE, v(DATA, words)]
        text = f"{name} {', '.join(operands)}"
        return [Access(text, "lds", size, ((f"lds_{what}", 0, size),))]
    unit = size * (64 if "st64" in name or "stride64" in name else 1)
    data = [v(DATA, words), v(DATA + words, words)] if what == "store" else []
    into = [] if what == "store" and name in test_lds.TWO_STORES else [v(RESULT, 2 * words)]
    what = "atomic" if name in test_lds.TWO_EXCHANGES else what
    text = f"{name} {', '.join([*into, PLACE, *data])}"
    return [
        Access(
            f"{text} offset0:{one} offset1:{two}",
            "lds",
            unit + size,
            tuple((f"lds_{what}", unit * n, size) for n in (one, two)),
        )
        for one, two in ((0, 1), (1, 0))
    ]


PAIRS = {
    name: int(name.rpartition("b")[2]) // 8
    for name in (*test_lds.TWO_LOADS, *test_lds.TWO_STORES, *test_lds.TWO_EXCHANGES)
}


def of_scratch(name: str) -> Iterator[Access]:
    """Its place in a register, or in the text."""
    size = access_of(test_lds.kind_of(name)).size
    words = max(size // 4, 1)
    for place, fixed in ((PLACE, False), ("off", True)):
        order = [v(RESULT, words), place] if "_load_" in name else [place, v(DATA, words)]
        yield Access(f"{name} {', '.join([*order, 'off'])}", "scratch", size, fixed=fixed)


MEMORY = (*test_memory.LOADS, *test_memory.STORES, *test_memory.ATOMICS, *test_memory.TO_LDS)
LDS = (*test_lds.LOADS, *test_lds.STORES, *PAIRS, *test_lds.ATOMICS)
ACCESSES: dict[str, list[Access]] = {
    **{name: [of_memory(name)] for name in MEMORY},
    **{name: of_lds(name) for name in LDS},
    **{name: [*of_scratch(name)] for name in test_lds.SCRATCH},
}


def ready(name: str, access: Access, at: int) -> Bench:
    """A wave one lane of which is to access the place ``at``."""
    bench = Bench(name)
    bench.m.lds[:] = list(bench.draw.randbytes(LDS_BYTES))
    bench.m.scratch[:] = bench.draw.getrandbits(32)
    bench.scalar(DESCRIPTOR, bench.start, 2)
    bench.scalar(DESCRIPTOR + 2, LIMIT, 1)
    bench.scalar(DESCRIPTOR + 3, 0, 1)
    bench.scalar(M0, 64, 1)
    bench.scalar(EXEC, 1 << RUNS)
    bench.m.select(np.array([0]))
    whole = access.space in ("global", "flat")
    bench.pair(ADDRESS, [at + bench.start if whole else at & 0xFFFFFFFF] * LANES)
    return bench


def run(bench: Bench, access: Access, at: int) -> None:
    bench.run(f"{access.text} offset:{at}" if access.fixed else access.text)


def left(bench: Bench) -> list[bytes]:
    """All that an access may change."""
    m = bench.m
    return [part.tobytes() for part in (bench.data, m.lds, m.scratch, m.vector)]


def is_stopped(name: str, access: Access, at: int) -> None:
    bench = ready(name, access, at)
    before = left(bench)
    with pytest.raises(AccessError) as caught:
        run(bench, access, at)
    # Of two places the first may have been written.
    assert left(bench) == before or name in PAIRS, "nothing changes before the run stops"
    assert caught.value.lane == (None if access.fixed else RUNS)


def is_ruled_out(name: str, access: Access, at: int) -> None:
    """By a buffer's descriptor."""
    bench = ready(name, access, at)
    data, lds, _, _ = left(bench)
    run(bench, access, at)
    assert bench.data.tobytes() == data
    size, words = access.size, max(access.size // 4, 1)
    if name in test_memory.TO_LDS:
        place = 64 + RUNS * size
        assert bench.m.lds.tobytes() == lds[:place] + bytes(size) + lds[place + size :]
    elif name in test_memory.LOADS:
        loaded = access_of(name.split("_", 2)[2]).load(bytes(16), 0, [OLD] * words)
        assert bench.registers(RESULT, RUNS, words) == loaded
    elif name in test_memory.ATOMICS:
        assert bench.registers(DATA, RUNS, words) == [0] * words


@pytest.mark.parametrize("name", ACCESSES)
def test_first_and_last_place(name: str) -> None:
    for access in ACCESSES[name]:
        last = access.end - access.size
        for at in (0, last):
            run(ready(name, access, at), access, at)
        past = is_ruled_out if access.space == "buffer" else is_stopped
        for at in (-access.step, last + access.step, access.end):
            past(name, access, at)


MEMORIES = {"global": 0, "flat": 0, "buffer": 0, "lds": 1, "scratch": 2}  # as in left()


@pytest.mark.parametrize("name", ACCESSES)
def test_what_an_access_leaves_alone(name: str) -> None:
    """A load changes its result alone; a store, or an atomic operation that returns nothing, no
    register, and no memory but the one that it names."""
    for access in ACCESSES[name]:
        bench = ready(name, access, 16)
        vector, *was = bench.m.vector.copy(), *left(bench)
        run(bench, access, 16)
        may = {1} if name in test_memory.TO_LDS else {MEMORIES[access.space]}
        if re.search("_load_|_read", name) and name not in test_memory.TO_LDS:
            may = set()
        now = left(bench)
        assert all(was[n] == now[n] for n in {0, 1, 2} - may), access.text
        returns = re.search(rf"v\[?{RESULT}\b", access.text) is not None
        results = range(RESULT, RESULT + 8) if returns else range(0)
        if access.space == "buffer" and name in test_memory.ATOMICS:
            results = range(DATA, DATA + 2)
        kept = [n for n in range(len(vector)) if n not in results]
        assert np.array_equal(bench.m.vector[kept], vector[kept]), access.text


@pytest.mark.parametrize("name", [n for n in test_lds.SCRATCH if ACCESSES[n][0].size > 1])
def test_a_word_of_scratch_is_aligned(name: str) -> None:
    for access in ACCESSES[name]:
        for at in {1, access.step - 1}:
            is_stopped(name, access, at)


@pytest.mark.parametrize("name", test_lds.SCRATCH)
def test_a_scalar_register_has_no_sign(name: str) -> None:
    """A lane's own has one: 8 and 2**32 - 4 are too far, 2**32 - 4 and 8 are 4."""
    access = ACCESSES[name][0]
    text = access.text.removesuffix("off") + "s30"
    for own, scalar, far in ((8, -4, True), (-4, 8, False)):
        bench = ready(name, access, own)
        bench.scalar(30, scalar, 1)
        if far:
            with pytest.raises(AccessError, match=f"scratch byte {2**32 + 4}"):
                bench.run(text)
        else:
            bench.run(text)


@pytest.mark.parametrize("name", ACCESSES)
def test_races_are_told_of_every_access(name: str) -> None:
    """But for scratch, which each lane has to itself."""
    for access in ACCESSES[name]:
        at = 16
        bench = ready(name, access, at)
        told: Any = Told()
        bench.m.races = told
        run(bench, access, at)
        wanted = []
        for what, after, size in access.told:
            start = bench.start if what.startswith("global") else 0
            place = 64 + RUNS * size if name in test_memory.TO_LDS and not start else at + after
            wanted.append((what, [RUNS], [start + place], size))
        assert told.of == wanted, access.text


def test_every_kind_of_access_is_asked() -> None:
    assert {access.space for some in ACCESSES.values() for access in some} == {
        *("buffer", "global", "flat", "lds", "scratch")
    }
    told = {what for some in ACCESSES.values() for one in some for what, _, _ in one.told}
    assert told == {f"{of}_{what}" for of in ("global", "lds") for what in
                    ("load", "store", "atomic")}  # fmt: skip


def test_an_access_that_is_too_short_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for longer, shorter in (("ds_read_b64", "ds_read_b32"), ("flat_load_dwordx2", "flat_load_b32")):
        monkeypatch.setitem(TABLE, longer, TABLE[shorter])
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            test_first_and_last_place(longer)
        with pytest.raises(AssertionError):
            test_races_are_told_of_every_access(longer)
