"""Every instruction on memory against bytes in plain Python: addresses, sizes, signs, lanes off.

Lanes that are off hold addresses that nothing may be read from or written to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from conformance.devices.isa.state import EXEC, M0
from tests.emulator.isa_memory import (
    ADDRESS,
    ATOMIC,
    COMPARING,
    DATA,
    LANES,
    MARGIN,
    OLD,
    ON,
    RESULT,
    SIZE,
    WORDS,
    Bench,
    access_of,
    close_to,
    joined,
    names,
    tame,
    v,
)


def forms(bench: Bench, space: str, places: list[int]) -> Iterator[str]:
    """Operands that say an address, one form after another; the registers hold what they need."""
    if space == "buffer":
        bench.scalar(20, bench.start | 1 << 62, 2)  # a bit that is none of the address
        bench.scalar(22, SIZE - 200, 1)  # the descriptor lets no more than this through
        bench.scalar(24, 0, 1)
        bench.m.vector[ADDRESS, 0] = [(at - 8) & 0xFFFFFFFF for at in places]
        yield f"v{ADDRESS}, s[20:23], s24 offen offset:8"
        return
    bench.pair(ADDRESS, [bench.start + at - 16 for at in places])
    yield f"v[{ADDRESS}:{ADDRESS + 1}]" + (", off" if space == "global" else "") + " offset:16"
    if space == "global":
        bench.scalar(20, bench.start + 16)
        bench.m.vector[ADDRESS, 0] = places
        yield f"v{ADDRESS}, s[20:21] offset:-16"


LOADS = names(r"(buffer|global|flat)_load_(?!lds_|async_).*")
STORES = names(r"(buffer|global|flat)_store_.*")


def let_through(space: str, at: int, size: int) -> bool:
    return space != "buffer" or at + size <= SIZE - 200


@pytest.mark.parametrize("name", LOADS)
def test_loads(name: str) -> None:
    space, _, kind = name.split("_", 2)
    access, bench = access_of(kind), Bench(name)
    words = max(access.size // 4, 1)
    # A buffer's offset may not be negative: lanes 0 to 7 of the form's 8 are added by the text.
    places = [max(at, 8) for at in bench.places(access.size, min(access.size, 4))]
    for form in forms(bench, space, places):
        bench.m.vector[RESULT : RESULT + 4] = OLD
        bench.run(f"{name} {v(RESULT, words)}, {form}")
        for lane in range(LANES):
            wanted = [OLD] * words
            if lane in ON and let_through(space, places[lane], access.size):
                wanted = access.load(bench.data.tobytes(), places[lane], wanted)
            elif lane in ON:
                wanted = access.load(bytes(16), 0, wanted)
            assert bench.registers(RESULT, lane, words) == wanted, (lane, places[lane], form)


@pytest.mark.parametrize("name", STORES)
def test_stores(name: str) -> None:
    space, _, kind = name.split("_", 2)
    access, bench = access_of(kind), Bench(name)
    words = max(access.size // 4, 1)
    places = bench.apart(max(access.size, 8) if access.size < 12 else access.size)
    for form in forms(bench, space, places):
        wanted = bytearray(bench.data.tobytes())
        for lane in ON:
            if let_through(space, places[lane], access.size):
                at, made = places[lane], access.stored(bench.registers(DATA, lane, words))
                wanted[at : at + access.size] = made
        data = v(DATA, words)
        address, comma, rest = form.partition(", ")
        bench.run(
            f"{name} {data}, {form}"
            if space == "buffer"
            else f"{name} {address}, {data}{comma}{rest}"
            if comma
            else f"{name} {address.split()[0]}, {data} {address.split()[1]}"
        )
        assert bench.data.tobytes() == bytes(wanted), form
    around = bench.data.base
    assert isinstance(around, np.ndarray) and not around[:MARGIN].any()


TO_LDS = names(r"(buffer|global|flat)_load_lds_.*")


@pytest.mark.parametrize("name", TO_LDS)
def test_loads_straight_to_lds(name: str) -> None:
    """Lane l's words go to M0 + offset + l * size."""
    space, words, bench = (
        name.split("_", maxsplit=1)[0],
        WORDS[name.rsplit("_", maxsplit=1)[-1]],
        Bench(name),
    )
    on = [0, 2, 3, 63]
    bench.scalar(EXEC, sum(1 << lane for lane in on))
    bench.m.select(np.array([0]))
    bench.m.lds[:] = 0xEE
    bench.scalar(M0, 4, 1)
    places = [4 * lane + 8 if lane in on else 1 << 20 for lane in range(LANES)]
    form = next(forms(bench, space, places))
    offset = 8 if space == "buffer" else 16
    bench.run(f"{name} {form}")
    wanted = bytearray(b"\xee" * len(bench.m.lds))
    for lane in on:
        data = bench.data.tobytes()[places[lane] : places[lane] + 4 * words]
        at = 4 + offset + lane * 4 * words
        wanted[at : at + 4 * words] = data
    assert bench.m.lds.tobytes() == bytes(wanted)


# -- atomics ---------------------------------------------------------------------------------------
ATOMICS = names(r"(buffer|global|flat)_atomic_.*")


@pytest.mark.parametrize("name", ATOMICS)
def test_atomics(name: str) -> None:
    """In the order of lanes, several of them at one place; the old value comes back."""
    space, _, kind = name.split("_", 2)
    bench, compares = Bench(name), kind in COMPARING
    size = COMPARING[kind] if compares else ATOMIC[kind][0]
    words = size // 4
    tame(bench)
    whole = not compares and "f" not in kind.rpartition("_")[2]
    if whole:
        bench.data[8 : 8 + size] = 0
    places = [8 + size * (lane % 5) if lane in ON else 1 << 20 for lane in range(LANES)]
    if compares:
        # Half of the lanes compare with what is there at first.
        for lane in range(0, LANES, 2):
            for word in range(words):
                held = bench.data[8 + size * (lane % 5) + 4 * word :][:4].tobytes()
                bench.m.vector[DATA + words + word, 0, lane] = int.from_bytes(held, "little")
    for form in forms(bench, space, places):
        wanted, old = bytearray(bench.data.tobytes()), {}
        for lane in ON:
            at = places[lane]
            before = int.from_bytes(wanted[at : at + size], "little")
            if whole:
                close_to(bench, DATA, lane, words, before)
            new, compared = (joined(bench.registers(DATA + n * words, lane, words)) for n in (0, 1))
            if compares:
                after = new if before == compared else before
            else:
                after = ATOMIC[kind][1](before, new) & (1 << 8 * size) - 1
            wanted[at : at + size] = after.to_bytes(size, "little")
            old[lane] = before
        result = DATA if space == "buffer" else RESULT
        bench.m.vector[RESULT : RESULT + 2] = OLD
        given = [joined(bench.registers(result, lane, words)) for lane in range(LANES)]
        data = v(DATA, 2 * words if compares else words)
        address, comma, rest = form.partition(", ")
        if space == "buffer":
            text = f"{name} {data}, {form} sc0"
        elif comma:
            text = f"{name} {v(RESULT, words)}, {address}, {data}, {rest} sc0"
        else:
            place, offset = address.split()
            text = f"{name} {v(RESULT, words)}, {place}, {data} {offset} sc0"
        bench.run(text)
        assert bench.data.tobytes() == bytes(wanted), text
        got = [joined(bench.registers(result, lane, words)) for lane in range(LANES)]
        assert got == [old.get(lane, given[lane]) for lane in range(LANES)], text


TESTED = {*LOADS, *STORES, *TO_LDS, *ATOMICS}
