"""What gfx1250 has of its own: columns from LDS, scaled offsets, wide descriptors, registers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction, parse_program
from conformance.devices.isa.instructions.access import AccessError
from conformance.devices.isa.instructions.table import base_name, build_step
from conformance.devices.isa.target import UnknownError
from tests.emulator.isa_cases import GFX1201, GFX1250, buffer, run, state
from tests.emulator.isa_memory import Told

LANES = range(32)
ASYNC = {f"global_load_async_to_lds_b{32 * words}": words for words in (1, 2, 4)}
TRANSPOSED = {"ds_load_tr16_b128", "ds_load_tr8_b64"}
TESTED = {*TRANSPOSED, *ASYNC}


def source(bits: int, lane: int, place: int) -> tuple[int, int]:
    """The lane whose element, and which of its eight, a lane gets at a place."""
    if bits == 16:
        return lane // 8 * 8 + place, lane % 8
    readers = [*range(4), *range(8, 12)] if lane % 16 < 8 else [*range(4, 8), *range(12, 16)]
    return lane // 16 * 16 + readers[place], lane % 8


@pytest.mark.parametrize(("name", "bits"), [("ds_load_tr16_b128", 16), ("ds_load_tr8_b64", 8)])
def test_lanes_get_columns(name: str, bits: int) -> None:
    """Each lane reads where it likes; here eight elements that say whose and which they are."""
    m, size = state(GFX1250), bits
    m.lds = np.zeros(32 * size + 16, dtype=np.uint8)
    object.__setattr__(m.shape, "lds_bytes", m.lds.size)
    order = [(5 * lane + 3) % 32 for lane in LANES]
    for lane in LANES:
        held = [lane * 8 + place for place in range(8)]
        data = b"".join(value.to_bytes(bits // 8, "little") for value in held)
        at = 16 + size * order[lane]
        m.lds[at : at + size] = list(data)
    words = size // 4
    m = run(
        f"{name} v[4:{3 + words}], v2 offset:16",
        GFX1250,
        v={2: [size * order[lane] for lane in LANES]},
        on=m,
    )
    for lane in LANES:
        data = b"".join(int(m.vector[4 + w, 0, lane]).to_bytes(4, "little") for w in range(words))
        for place in range(8):
            got = int.from_bytes(data[place * bits // 8 : (place + 1) * bits // 8], "little")
            whose, which = source(bits, lane, place)
            assert got == (whose * 8 + which) & ((1 << bits) - 1), (lane, place)


@pytest.mark.parametrize("name", sorted(TRANSPOSED))
def test_columns_take_every_lane(name: str) -> None:
    with pytest.raises(UnknownError, match="with lanes off"):
        run(f"{name} v[4:7], v2", GFX1250, exec_mask=0xFFFF)


WORDS = np.arange(256, dtype=np.uint32) * 3


@pytest.mark.parametrize(
    ("name", "register", "size"),
    [("global_load_b32", "v4", 4), ("global_load_b64", "v[4:5]", 8),
     ("global_load_u16", "v4", 2), ("global_load_b128", "v[4:7]", 16)],
)  # fmt: skip
@pytest.mark.parametrize("scaled", [True, False])
def test_an_offset_in_a_register_has_a_sign_and_may_count_accesses(
    name: str, register: str, size: int, scaled: bool
) -> None:
    array, memory = buffer("words", WORDS.copy())
    start = memory.start + 512
    counts = [lane % 7 - 3 for lane in LANES]
    step = 1 if scaled else size
    m = run(
        f"{name} {register}, v2, s[6:7] offset:16{' scale_offset' * scaled}",
        GFX1250,
        v={2: [count * step & 0xFFFFFFFF for count in counts]},
        s={6: start, 7: start >> 32},
        on=state(GFX1250, memory),
    )
    data = array.tobytes()
    for lane, count in enumerate(counts):
        at = 512 + 16 + size * count
        wanted = int.from_bytes(data[at : at + min(size, 4)], "little")
        assert int(m.vector[4, 0, lane]) == wanted, lane


def test_a_store_and_an_atomic_operation_count_accesses_too() -> None:
    array, memory = buffer("words", WORDS.copy())
    start = {6: memory.start, 7: memory.start >> 32}
    for name, wanted in (("global_store_b32", 1000), ("global_atomic_add_u32", 2000)):
        run(
            f"{name} v2, v3, s[6:7] scale_offset",
            GFX1250,
            v={2: list(LANES), 3: 1000},
            s=start,
            on=state(GFX1250, memory),
        )
        assert array[:33].tolist() == [wanted] * 32 + [96]


@pytest.mark.parametrize("name", ASYNC)
def test_each_lane_says_where_in_lds_its_words_go(name: str) -> None:
    """Of the lanes that run; nothing else of LDS changes."""
    words = ASYNC[name]
    _, memory = buffer("words", np.arange(512, dtype=np.uint32) * 5)
    m = state(GFX1250, memory)
    m.lds = np.full(1024, 9, dtype=np.uint8)
    object.__setattr__(m.shape, "lds_bytes", 1024)
    order = [(7 * lane + 1) % 32 for lane in LANES]
    run(
        f"{name} v2, v3, s[6:7] scale_offset",
        GFX1250,
        v={2: [16 * place for place in order], 3: list(LANES)},
        s={6: memory.start, 7: memory.start >> 32},
        exec_mask=0x0FFFFFF5,
        on=m,
    )
    wanted = np.full(256, 0x09090909, dtype=np.uint32)
    for lane in LANES:
        if 0x0FFFFFF5 >> lane & 1:
            first = 4 * order[lane]
            wanted[first : first + words] = 5 * np.arange(words * lane, words * lane + words)
    assert m.lds.view(np.uint32).tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ASYNC)
def test_races_are_told_of_what_goes_to_lds(name: str) -> None:
    size = 4 * ASYNC[name]
    _, memory = buffer("words", np.arange(16, dtype=np.uint32))
    m, told = state(GFX1250, memory), Told()
    m.races = cast(Any, told)
    run(
        f"{name} v2, v3, s[6:7] scale_offset",
        GFX1250,
        v={2: 64, 3: 2},
        s={6: memory.start, 7: memory.start >> 32},
        exec_mask=1 << 5,
        on=m,
    )
    assert told.of == [
        ("global_load", [5], [memory.start + 2 * size], size),
        ("lds_store", [5], [64], size),
    ]


def test_a_lane_that_triton_masks_loads_nothing() -> None:
    """Its address may be anything; a place that is out of range otherwise is a violation."""
    _, memory = buffer("words", WORDS.copy())
    places = [4 * lane if lane % 2 else 0x7FFFFFFF for lane in LANES]
    counts = [lane if lane % 2 else 1 << 20 for lane in LANES]
    start = {6: memory.start, 7: memory.start >> 32}
    text = "global_load_async_to_lds_b32 v2, v3, s[6:7] scale_offset"
    m = state(GFX1250, memory)
    m.lds[:] = 0
    run(text, GFX1250, v={2: places, 3: counts}, s=start, on=m)
    assert m.lds.view(np.uint32)[:32].tolist() == [3 * n if n % 2 else 0 for n in LANES]
    for place in (0x7FFFFFFE, 0xFFFFFFFE):
        places[1] = place
        with pytest.raises(AccessError, match=f"LDS byte {place}"):
            run(text, GFX1250, v={2: places, 3: counts}, s=start, on=state(GFX1250, memory))


@pytest.mark.parametrize("name", ["ds_store_b32", "ds_store_b16"])
def test_a_lane_that_triton_masks_stores_nothing(name: str) -> None:
    """A place that is out of range otherwise is a violation, and so it is on gfx1201."""
    places = [4 * lane if lane % 2 else 0x7FFFFFFF for lane in LANES]
    m = state(GFX1250)
    m.lds[:] = 0
    run(f"{name} v2, v3", GFX1250, v={2: places, 3: [lane + 1 for lane in LANES]}, on=m)
    assert m.lds.view(np.uint32)[:32].tolist() == [n + 1 if n % 2 else 0 for n in LANES]
    with pytest.raises(AccessError, match="LDS byte 2147483647"):
        run(f"{name} v2, v3", GFX1201, v={2: places, 3: 0})
    places[1] = 0x7FFFFFFE
    with pytest.raises(AccessError, match="LDS byte 2147483646"):
        run(f"{name} v2, v3", GFX1250, v={2: places, 3: 0})


def test_an_offset_of_an_asynchronous_load_is_refused() -> None:
    """Whether it counts in LDS too is in no manual."""
    with pytest.raises(UnknownError, match="an offset of global_load_async_to_lds_b32"):
        run("global_load_async_to_lds_b32 v2, v[4:5], off offset:16", GFX1250)


def test_an_offset_without_a_sign_on_gfx1201() -> None:
    _, memory = buffer("words", WORDS.copy())
    with pytest.raises(AccessError, match="past the end"):
        run(
            "global_load_b32 v4, v2, s[6:7]",
            GFX1201,
            v={2: 0xFFFFFFFC},
            s={6: memory.start, 7: memory.start >> 32},
            on=state(GFX1201, memory),
        )


@pytest.mark.parametrize(("words", "register"), [(1, "s8"), (2, "s[8:9]"), (4, "s[8:11]")])
def test_a_scalar_offset_may_count_accesses(words: int, register: str) -> None:
    _, memory = buffer("words", WORDS.copy())
    for scaled, number in ((" scale_offset", 5), ("", 5 * 4 * words)):
        m = run(
            f"s_load_b{32 * words} {register}, s[6:7], s4 offset:0x10{scaled}",
            GFX1250,
            s={6: memory.start, 7: memory.start >> 32, 4: number},
            on=state(GFX1250, memory),
        )
        at = 4 + 5 * words
        assert m.scalar[8 : 8 + words, 0].tolist() == WORDS[at : at + words].tolist()


def test_a_count_of_accesses_may_reach_past_32_bits() -> None:
    """Bytes are counted in 64: a base that lies as far before the words leads to them."""
    _, memory = buffer("words", WORDS.copy())
    base = memory.start - (0x30000000 << 4)
    start, held = {6: base & 0xFFFFFFFF, 7: base >> 32 & 0xFFFFFFFF, 4: 0x30000001}, {2: 0x30000001}
    text = "global_load_b128 v[4:7], v2, s[6:7] scale_offset"
    m = run(text, GFX1250, v=held, s=start, on=state(GFX1250, memory))
    assert m.vector[4:8, 0, 9].tolist() == WORDS[4:8].tolist()
    text = "s_load_b128 s[8:11], s[6:7], s4 scale_offset"
    m = run(text, GFX1250, s=start, on=state(GFX1250, memory))
    assert m.scalar[8:12, 0].tolist() == WORDS[4:8].tolist()


def test_a_scaled_offset_elsewhere_is_refused() -> None:
    with pytest.raises(UnknownError, match="a scaled offset of scratch_load_b32"):
        build_step(parse_instruction("scratch_load_b32 v0, v1, off scale_offset"), GFX1250)(
            state(GFX1250)
        )


@pytest.mark.parametrize("limit", [0, 100, 200, *(1 << bit for bit in range(45))])
def test_a_descriptor_has_a_size_of_45_bits_behind_57_of_address(limit: int) -> None:
    _, memory = buffer("words", WORDS.copy())
    whole = memory.start | limit << 57
    m = run(
        "buffer_load_b32 v4, v2, s[8:11], null offen offset:4",
        GFX1250,
        v={2: [8 * lane for lane in LANES], 4: 77},
        s={8 + word: whole >> 32 * word for word in range(4)},
        on=state(GFX1250, memory),
    )
    wanted = [3 * (2 * lane + 1) if 8 * lane + 8 <= limit else 0 for lane in LANES]
    assert m.vector[4, 0].tolist() == wanted
    m = run(
        "s_buffer_load_b64 s[4:5], s[8:11], 0x60",
        GFX1250,
        s={8 + word: whole >> 32 * word for word in range(4)},
        on=state(GFX1250, memory),
    )
    assert m.scalar[4:6, 0].tolist() == [72 if limit >= 100 else 0, 75 if limit >= 104 else 0]


def test_the_largest_size_lets_everything_through() -> None:
    """Triton's: the base's upper bits are all set, as those of the size's low end."""
    _, memory = buffer("words", WORDS.copy())
    m = run(
        "buffer_load_b32 v4, v2, s[8:11], null offen",
        GFX1250,
        v={2: [4 * lane if lane < 30 else 1 << 31 for lane in LANES], 4: 77},
        s={8: memory.start, 9: memory.start >> 32 | 0xFC000000, 10: 0xFFFFFF, 11: 0},
        on=state(GFX1250, memory),
    )
    assert m.vector[4, 0].tolist() == [3 * lane for lane in range(30)] + [0, 0]


def test_a_scalar_load_with_a_stride_is_refused() -> None:
    """Its sixteen bits and no others: what lies around them says other things."""
    text = "s_buffer_load_b32 s4, s[8:11], 0"
    for bit in range(6, 32):
        error, words = (UnknownError, "stride") if 12 <= bit < 28 else (AccessError, "no tensor")
        with pytest.raises(error, match=words):
            run(text, GFX1250, s={8: 0, 9: 0, 10: 8, 11: 1 << bit})


def test_registers_past_255_are_read_from_the_comment() -> None:
    text = (
        "k:\n\ts_set_vgpr_msb 0x41\n"
        "\tv_add_nc_u32_e32 v2 /*v258*/, v4, v[6:7] /*v[518:519]*/\n\ts_endpgm\n"
        ".Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    )
    operands = parse_program(text).instructions[1].operands
    assert [(o.index, o.count) for o in operands] == [(258, 1), (4, 1), (518, 2)]


def test_other_words_for_the_program_counter() -> None:
    assert base_name("s_get_pc_i64") == "s_getpc_b64"
    assert base_name("s_set_pc_i64") == "s_setpc_b64"


def test_mode_has_a_bit_that_changes_no_result() -> None:
    m = state(GFX1250)
    before = m.mode
    run("s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE, 25, 1), 1", GFX1250, on=m)
    run("s_setreg_imm32_b32 hwreg(HW_REG_WAVE_SCHED_MODE, 0, 2), 2", GFX1250, on=m)
    assert m.mode == before
    with pytest.raises(UnknownError, match="MODE bits"):
        run("s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE, 25, 1), 1", GFX1201)
