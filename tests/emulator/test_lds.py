"""Every instruction on LDS and scratch against bytes in plain Python, with lanes off."""

from __future__ import annotations

import re

import numpy as np
import pytest

from conformance.devices.isa.instructions.access import AccessError
from conformance.devices.isa.instructions.scratch import PRIVATE_SEGMENT
from conformance.devices.isa.state import EXEC
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_memory import (
    ADDRESS,
    ATOMIC,
    COMPARING,
    DATA,
    LANES,
    LDS_BYTES,
    OLD,
    ON,
    RESULT,
    Bench,
    access_of,
    close_to,
    joined,
    names,
    v,
)

BYTES = LDS_BYTES


def operation_of(name: str) -> str:
    """ds_add_rtn_u32: add_u32."""
    return name.removeprefix("ds_").replace("rtn_", "")


LOADS = names(r"ds_(read|load)_(?!b64_tr|tr)[^2].*")
STORES = names(r"ds_(write|store)_[^2].*")
TWO_LOADS = names(r"ds_(read2|load_2addr).*")
TWO_STORES = names(r"ds_(write2|store_2addr).*")
TWO_EXCHANGES = names(r"ds_(wrxchg2|storexchg_2addr).*")
ATOMICS = [n for n in names(r"ds_.*") if operation_of(n) in {*ATOMIC, *COMPARING}]
TRANSPOSED = names(r"ds_read_b64_tr_.*")
SCRATCH = names(r"scratch_.*")
PRIVATE = names(r"buffer_(load|store)_(dword|[us]?byte|[us]?short).*")


def bench_of(name: str) -> Bench:
    """LDS of known bytes; another workgroup's LDS before and after it."""
    bench = Bench(name)
    bench.m.lds[:] = list(bench.draw.randbytes(BYTES))
    return bench


def kind_of(name: str) -> str:
    """ds_read_u8_d16_hi: what is accessed."""
    return re.sub(
        r"^(ds_(read|write|load|store)|(scratch|buffer)_(load|store))(2addr|2)?_", "", name
    )


def places(bench: Bench, size: int, unit: int) -> list[int]:
    most = (BYTES - size) // unit
    found = [unit * bench.draw.randrange(most + 1) for _ in range(LANES)]
    found[ON[0]], found[ON[1]] = 0, unit * most
    return [at if lane in ON else 1 << 20 for lane, at in enumerate(found)]


@pytest.mark.parametrize("name", LOADS)
def test_loads(name: str) -> None:
    access, bench = access_of(kind_of(name)), bench_of(name)
    words = max(access.size // 4, 1)
    # Addresses of words that are not aligned are allowed.
    where = places(bench, access.size, 1 if access.size != 2 else 2)
    where = [at if at >= 4 or lane not in ON else 4 for lane, at in enumerate(where)]
    bench.m.vector[ADDRESS, 0] = [(at - 4) & 0xFFFFFFFF for at in where]
    bench.run(f"{name} {v(RESULT, words)}, v{ADDRESS} offset:4")
    for lane in range(LANES):
        wanted = [OLD] * words
        if lane in ON:
            wanted = access.load(bench.m.lds.tobytes(), where[lane], wanted)
        assert bench.registers(RESULT, lane, words) == wanted, (lane, where[lane])


def assert_stores(name: str, bench: Bench, where: list[int]) -> None:
    access = access_of(kind_of(name))
    words = max(access.size // 4, 1)
    bench.m.vector[ADDRESS, 0] = where
    wanted = bytearray(bench.m.lds.tobytes())
    for lane in ON:
        wanted[where[lane] : where[lane] + access.size] = access.stored(
            bench.registers(DATA, lane, words)
        )
    bench.run(f"{name} v{ADDRESS}, {v(DATA, words)}")
    assert bench.m.lds.tobytes() == bytes(wanted)


@pytest.mark.parametrize("name", STORES)
def test_stores(name: str) -> None:
    """Where lanes store to one place the later one wins."""
    access, bench = access_of(kind_of(name)), bench_of(name)
    assert_stores(name, bench, places(bench, access.size, access.size))


@pytest.mark.parametrize("name", [name for name in STORES if access_of(kind_of(name)).size >= 4])
def test_stores_that_are_not_aligned(name: str) -> None:
    """Each lane has 32 bytes of its own."""
    bench = bench_of(name)
    where = [32 * lane + bench.draw.randrange(16) for lane in range(LANES)]
    where[ON[0]], where[ON[1]] = 32 * ON[0] + 1, 32 * ON[1] + 14
    assert_stores(name, bench, where)


@pytest.mark.parametrize("name", [*TWO_LOADS, *TWO_STORES])
def test_two_at_once(name: str) -> None:
    """Two offsets, in units of the size or of 64 times as much."""
    size = int(name.rpartition("b")[2]) // 8
    unit = size * 64 if "st64" in name or "stride64" in name else size
    bench, words = bench_of(name), size // 4
    where = [size * (lane % 8) if lane in ON else 1 << 20 for lane in range(LANES)]
    bench.m.vector[ADDRESS, 0] = where
    lds = bytearray(bench.m.lds.tobytes())
    if name in TWO_LOADS:
        bench.run(f"{name} {v(RESULT, 2 * words)}, v{ADDRESS} offset0:2 offset1:1")
        for lane in range(LANES):
            starts = [where[lane] + unit * number for number in (2, 1)]
            wanted = [int.from_bytes(lds[at + 4 * w : at + 4 * w + 4], "little")
                      for at in starts for w in range(words)]  # fmt: skip
            got = bench.registers(RESULT, lane, 2 * words)
            assert got == (wanted if lane in ON else [OLD] * (2 * words)), lane
        return
    for place, number in enumerate((2, 1)):
        for lane in ON:
            at, first = where[lane] + unit * number, DATA + words * place
            made = b"".join(r.to_bytes(4, "little") for r in bench.registers(first, lane, words))
            lds[at : at + size] = made
    data = f"{v(DATA, words)}, {v(DATA + words, words)}"
    bench.run(f"{name} v{ADDRESS}, {data} offset0:2 offset1:1")
    assert bench.m.lds.tobytes() == bytes(lds)


@pytest.mark.parametrize("name", TWO_EXCHANGES)
def test_two_exchanges(name: str) -> None:
    """Lane after lane, several of them at one place; the old values come back, the first first."""
    size = int(name.rpartition("b")[2]) // 8
    unit = size * 64 if "st64" in name or "stride64" in name else size
    bench, words = bench_of(name), size // 4
    where = [8 * size * (lane % 3) if lane in ON else 1 << 20 for lane in range(LANES)]
    bench.m.vector[ADDRESS, 0] = where
    lds, old = bytearray(bench.m.lds.tobytes()), {lane: [OLD] * 2 * words for lane in range(LANES)}
    for place, number in enumerate((2, 1)):
        for lane in ON:
            at, first = where[lane] + unit * number, DATA + words * place
            held = bytes(lds[at : at + size])
            old[lane][words * place : words * (place + 1)] = [
                int.from_bytes(held[4 * w : 4 * w + 4], "little") for w in range(words)
            ]
            made = b"".join(r.to_bytes(4, "little") for r in bench.registers(first, lane, words))
            lds[at : at + size] = made
    data = f"{v(DATA, words)}, {v(DATA + words, words)}"
    into = v(RESULT, 2 * words)
    bench.run(f"{name} {into}, v{ADDRESS}, {data} offset0:2 offset1:1")
    assert bench.m.lds.tobytes() == bytes(lds)
    for lane in range(LANES):
        assert bench.registers(RESULT, lane, 2 * words) == old[lane], lane


@pytest.mark.parametrize("name", ATOMICS)
def test_atomics(name: str) -> None:
    """In the order of lanes, several of them at one place."""
    kind, returns = operation_of(name), "_rtn_" in name
    compares = kind in COMPARING
    size = COMPARING[kind] if compares else ATOMIC[kind][0]
    words, bench = size // 4, bench_of(name)
    where = [size * (lane % 5) + 8 if lane in ON else 1 << 20 for lane in range(LANES)]
    bench.m.vector[ADDRESS, 0] = [at - 8 if lane in ON else at for lane, at in enumerate(where)]
    if "f" in kind.rpartition("_")[2]:
        # No NaN, whose bits are not told: as halves, too.
        bench.m.lds[:] = [0x00, 0x3C] * (BYTES // 2)
        numbers = [bench.draw.choice([0x3FC04200, 0xC010C500, 0x40403E00]) for _ in range(LANES)]
        bench.m.vector[DATA : DATA + 2, 0] = numbers
    else:
        bench.m.lds[8 : 8 + size] = 0
    lds, old = bytearray(bench.m.lds.tobytes()), {}
    first = [int.from_bytes(lds[8 + size * n :][:size], "little") for n in range(5)]
    new, compared = DATA, DATA + words
    if kind.startswith("cmpst_"):
        new, compared = compared, new
    if compares:
        for lane in range(0, LANES, 2):
            for word in range(words):
                bench.m.vector[compared + word, 0, lane] = first[lane % 5] >> 32 * word & 0xFFFFFFFF
    for lane in ON:
        at = where[lane]
        old[lane] = int.from_bytes(lds[at : at + size], "little")
        if not compares and "f" not in kind.rpartition("_")[2]:
            close_to(bench, new, lane, words, old[lane])
        one = joined(bench.registers(new, lane, words))
        if compares:
            same = old[lane] == joined(bench.registers(compared, lane, words))
            after = one if same else old[lane]
        else:
            after = ATOMIC[kind][1](old[lane], one) & (1 << 8 * size) - 1
        lds[at : at + size] = after.to_bytes(size, "little")
    data = v(DATA, words) + (f", {v(DATA + words, words)}" if compares else "")
    into = f"{v(RESULT, words)}, " if returns else ""
    bench.run(f"{name} {into}v{ADDRESS}, {data} offset:8")
    assert bench.m.lds.tobytes() == bytes(lds)
    got = [joined(bench.registers(RESULT, lane, words)) for lane in range(LANES)]
    untouched = joined([OLD] * words)
    assert got == [old.get(lane, untouched) if returns else untouched for lane in range(LANES)]


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposing_loads(name: str) -> None:
    """Of a tile that 16 lanes read, 8 bytes each, lane l gets column l: element l of every row."""
    bits = int(name.rpartition("b")[2])
    size, rows = bits // 8, 64 // bits
    bench = bench_of(name)
    bench.scalar(EXEC, (1 << 64) - 1)
    bench.m.select(np.array([0]))
    bench.m.vector[ADDRESS, 0] = [8 * lane for lane in range(LANES)]
    lds = bench.m.lds.tobytes()
    bench.run(f"{name} v[{RESULT}:{RESULT + 1}], v{ADDRESS} offset:256")
    for lane in range(LANES):
        # Row r of a tile is read by 16 / rows lanes of its 16: 16 elements.
        tile = 256 + 128 * (lane // 16)
        column = b"".join(lds[tile + (16 * row + lane % 16) * size :][:size] for row in range(rows))
        got = b"".join(r.to_bytes(4, "little") for r in bench.registers(RESULT, lane, 2))
        assert got == column, lane
    bench.scalar(EXEC, 1)
    bench.m.select(np.array([0]))
    with pytest.raises(UnknownError, match="lanes off"):
        bench.run(f"{name} v[{RESULT}:{RESULT + 1}], v{ADDRESS}")


@pytest.mark.parametrize("base", ["off", "s20"])
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch(name: str, base: str) -> None:
    """A place is an offset, plus a scalar register, the same for every lane; each has its own."""
    access, bench = access_of(kind_of(name)), Bench(name)
    words = max(access.size // 4, 1)
    before = [[bench.draw.getrandbits(32) for _ in range(LANES)] for _ in range(16)]
    bench.m.scratch[:, 0] = before
    bench.scalar(20, 8, 1)
    at = {1: 15, 2: 10}.get(access.size, 12)
    offset = at - 8 if base == "s20" else at
    if "_load_" in name:
        bench.run(f"{name} {v(RESULT, words)}, off, {base} offset:{offset}")
        for lane in range(LANES):
            wanted = [OLD] * words
            if lane in ON:
                held = b"".join(before[w][lane].to_bytes(4, "little") for w in range(16))
                wanted = access.load(held, at, wanted)
            assert bench.registers(RESULT, lane, words) == wanted
        return
    given = [bench.registers(DATA, lane, words) for lane in range(LANES)]
    bench.run(f"{name} off, {v(DATA, words)}, {base} offset:{offset}")
    for lane in range(LANES):
        memory = bytearray(b"".join(before[w][lane].to_bytes(4, "little") for w in range(16)))
        if lane in ON:
            memory[at : at + access.size] = access.stored(given[lane])
        assert bench.m.scratch[:, 0, lane].tobytes() == bytes(memory), lane


@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_by_lane(name: str) -> None:
    """A lane's own register, which has a sign, a scalar register and an offset, added up."""
    access, bench = access_of(kind_of(name)), Bench(name)
    words, step = max(access.size // 4, 1), min(access.size, 4)
    before = [[bench.draw.getrandbits(32) for _ in range(LANES)] for _ in range(16)]
    bench.m.scratch[:, 0] = before
    bench.scalar(20, 24, 1)
    own = [step * bench.draw.randrange((64 - access.size) // step + 1) for _ in range(LANES)]
    own = [at if lane in ON else 1 << 20 for lane, at in enumerate(own)]
    bench.m.vector[ADDRESS, 0] = [(at - 28) & 0xFFFFFFFF for at in own]
    loads = "_load_" in name
    operands = [v(RESULT, words), f"v{ADDRESS}"] if loads else [f"v{ADDRESS}", v(DATA, words)]
    given = [bench.registers(DATA, lane, words) for lane in range(LANES)]
    bench.run(f"{name} {', '.join(operands)}, s20 offset:4")
    for lane in range(LANES):
        memory = bytearray(b"".join(before[w][lane].to_bytes(4, "little") for w in range(16)))
        wanted = [OLD] * words
        if lane in ON and loads:
            wanted = access.load(bytes(memory), own[lane], wanted)
        elif lane in ON:
            stored = access.stored(given[lane])
            memory[own[lane] : own[lane] + access.size] = stored
        assert bench.registers(RESULT, lane, words) == wanted
        assert bench.m.scratch[:, 0, lane].tobytes() == bytes(memory), lane
    bench.m.vector[ADDRESS, 0] = 64 - 28
    with pytest.raises(AccessError, match="scratch byte 64 of 64") as caught:
        bench.run(f"{name} {', '.join(operands)}, s20 offset:4")
    assert (caught.value.wave, caught.value.lane) == (0, ON[0])


def descriptor(bench: Bench) -> None:
    """The buffer descriptor of scratch in s[24:27]."""
    for word, value in enumerate(PRIVATE_SEGMENT):
        bench.scalar(24 + word, value, 1)


@pytest.mark.parametrize("name", PRIVATE)
def test_scratch_through_its_descriptor(name: str) -> None:
    """On gfx90a a place is a lane's own, a scalar register and an offset; each lane has its own."""
    access, bench = access_of(kind_of(name)), Bench(name)
    words = max(access.size // 4, 1)
    before = [[bench.draw.getrandbits(32) for _ in range(LANES)] for _ in range(16)]
    bench.m.scratch[:, 0] = before
    descriptor(bench)
    bench.scalar(20, 8, 1)
    step = min(access.size, 4)
    own = [step * bench.draw.randrange(12 // step + 1) for _ in range(LANES)]
    own = [at if lane in ON else 1 << 20 for lane, at in enumerate(own)]
    bench.m.vector[ADDRESS, 0] = own
    operands = f"v{ADDRESS}, s[24:27], s20 offen offset:12"
    if "_load_" in name:
        bench.run(f"{name} {v(RESULT, words)}, {operands}")
        for lane in range(LANES):
            wanted = [OLD] * words
            if lane in ON:
                held = b"".join(before[w][lane].to_bytes(4, "little") for w in range(16))
                wanted = access.load(held, own[lane] + 20, wanted)
            assert bench.registers(RESULT, lane, words) == wanted
        return
    given = [bench.registers(DATA, lane, words) for lane in range(LANES)]
    bench.run(f"{name} {v(DATA, words)}, {operands}")
    for lane in range(LANES):
        memory = bytearray(b"".join(before[w][lane].to_bytes(4, "little") for w in range(16)))
        if lane in ON:
            at = own[lane] + 20
            memory[at : at + access.size] = access.stored(given[lane])
        assert bench.m.scratch[:, 0, lane].tobytes() == bytes(memory), lane


def test_scratch_through_its_descriptor_has_an_end() -> None:
    bench = Bench("end")
    descriptor(bench)
    with pytest.raises(AccessError, match="scratch byte 64 of 64") as caught:
        bench.run("buffer_load_dword v0, off, s[24:27], 0 offset:64")
    assert caught.value.lane == ON[0]
    with pytest.raises(AccessError, match="scratch byte 2 of 64"):
        bench.run("buffer_store_dword v0, off, s[24:27], 0 offset:2")


def test_outside_is_refused() -> None:
    bench = bench_of("outside")
    for text in (
        f"ds_read_b32 v0, v{ADDRESS} offset:{BYTES - 2}",
        f"ds_write_b128 v{ADDRESS}, v[8:11] offset:{BYTES - 12}",
    ):
        bench.m.vector[ADDRESS, 0] = 0
        with pytest.raises(AccessError, match="outside the 2048 allocated") as caught:
            bench.run(text)
        assert caught.value.lane == ON[0]
    for text in (
        "load_dword v0, off, off offset:64",
        "load_dwordx2 v[0:1], off, off offset:60",
        "load_dwordx4 v[0:3], off, off offset:52",
        "store_dwordx3 off, v[0:2], off offset:56",
    ):
        at = text.rpartition(":")[2]
        with pytest.raises(AccessError, match=f"scratch byte {at} of 64"):
            bench.run(f"scratch_{text}")


TESTED = {*LOADS, *STORES, *TWO_LOADS, *TWO_STORES, *TWO_EXCHANGES, *ATOMICS, *TRANSPOSED, *SCRATCH}


@pytest.mark.parametrize(("at", "outside"), [(BYTES - 4, 4), (BYTES, 8), (BYTES + 100, 108)])
def test_how_far_outside_is_told(at: int, outside: int) -> None:
    bench = bench_of("ds_read_b64")
    bench.m.vector[ADDRESS, 0] = at
    text = f"8 bytes at LDS byte {at}, {outside} bytes outside the {BYTES} allocated"
    with pytest.raises(AccessError, match=text):
        bench.run(f"ds_read_b64 v[0:1], v{ADDRESS}")
