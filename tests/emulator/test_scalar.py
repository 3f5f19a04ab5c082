"""Every scalar instruction of the table against a model in plain Python, at edges, a wave each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.access import AccessError
from conformance.devices.isa.instructions.scalar_state import NO_EFFECT
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.memory import Memory, raw_buffer
from conformance.devices.isa.mode import PLAIN
from conformance.devices.isa.state import EXEC, Shape, State
from conformance.devices.isa.target import IsaTarget, UnknownError
from tests.emulator.isa_cases import GFX942, GFX1100, GFX1201
from tests.emulator.isa_memory import access_of
from tests.emulator.isa_model import SCALAR
from tests.emulator.isa_model.bits import agree, encode, inputs, read, width, write
from tests.emulator.isa_model.scalars import SAVE_EXEC, ScalarRow

WAVES = 192
OLD = 0x5A5AA5A5
TARGETS = {t.name: t for t in (GFX942, GFX1100)}


def waves(target: IsaTarget, *buffers: object) -> State:
    """Waves whose scalar registers hold garbage, but for EXEC."""
    m = State(Shape(WAVES, target.lanes, 1, 0, 1, 0, 0), Memory(buffers), None)  # type: ignore[arg-type] # buffers
    m.scalar[:EXEC] = OLD
    m.select(np.arange(WAVES))
    return m


def step(m: State, text: str, target: IsaTarget) -> None:
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text), target)(m)


def text_of(name: str, row: ScalarRow, constant: tuple[int, str] | None = None) -> str:
    """The destination s0 or s[0:1], sources from s2 on; ``constant``: one source by its place."""
    kinds = [row.result or "u32", *row.sources.split()]
    shown = [f"s[{2 * i}:{2 * i + 1}]" if width(k) > 32 else f"s{2 * i}"
             for i, k in enumerate(kinds)]  # fmt: skip
    if constant is not None:
        shown[1 + constant[0]] = constant[1]
    usual = range(len(kinds)) if row.result else range(1, len(kinds))
    form = row.form or ", ".join(f"{{{i}}}" for i in usual)
    return f"{name} {form.format(*shown)}"


def kinds_of(row: ScalarRow) -> list[str]:
    more = [row.result] if row.accumulates else []
    return [*row.sources.split(), *more]


def prepared(row: ScalarRow, target: IsaTarget, given: list[tuple[int, ...]]) -> State:
    """Waves whose registers hold the sources' bits, a row a wave; SCC is set in every other one."""
    m = waves(target)
    m.scc[:] = [wave % 2 for wave in range(WAVES)]
    for place, kind in enumerate(kinds_of(row), 1):
        at = 0 if place > len(row.sources.split()) else 2 * place
        column = [bits[place - 1] for bits in given]
        m.scalar[at] = [bits & 0xFFFFFFFF for bits in column]
        if width(kind) > 32:
            m.scalar[at + 1] = [bits >> 32 for bits in column]
    return m


@pytest.mark.parametrize("name", SCALAR)
def test_as_the_model(name: str) -> None:
    row = SCALAR[name]
    target, kinds = TARGETS[row.target], kinds_of(row)
    given: list[tuple[int, ...]] = [()] * WAVES
    if kinds:
        given = inputs(kinds, WAVES, row.sources)
    m = prepared(row, target, given)
    before = m.scalar.copy()
    step(m, text_of(name, row), target)
    for wave, bits in enumerate(given):
        values = [read(kind, b) for kind, b in zip(kinds, bits, strict=True)]
        made = row.function(*values, *([wave % 2] if row.reads else []))
        wanted, scc = _results(row, made, bool(wave % 2))
        size = 2 if row.result and width(row.result) > 32 else int(bool(row.result))
        got = sum(int(m.scalar[word, wave]) << 32 * word for word in range(size))
        what = f"{text_of(name, row)}: {[hex(b) for b in bits]} gives {got:#x}, {m.scc[wave]}"
        assert not row.result or agree(row.result, got, wanted, row), f"{what}: {wanted:#x}"
        assert bool(m.scc[wave]) == scc, f"{what}: SCC {scc}"
        assert np.array_equal(m.scalar[size:, wave], before[size:, wave]), "other registers"


def _results(row: ScalarRow, made: object, scc: bool) -> tuple[int, bool]:
    """The result's bits, and SCC."""
    if row.scc == "only":
        return 0, bool(made)
    if row.scc == "both":
        assert isinstance(made, tuple)
        return write(row.result, made[0]), bool(made[1])
    bits = write(row.result, made)
    return bits, bits != 0 if row.scc == "nonzero" else scc


def constants(kind: str) -> Iterator[tuple[str, int]]:
    """Constants as they are written, and their bits as a source of a type."""
    bits = width(kind)
    # As floats negative numbers are NaNs, whose payloads nobody promises.
    for number in (0, 1, 64, *((-16, -1) if kind[0] != "f" else ())):
        yield str(number), number & (1 << bits) - 1
    for value in (0.5, -4.0):
        yield str(value), encode(value, f"f{bits}")
    if bits == 32:
        yield "0xdeadbeef", 0xDEADBEEF


# Of these the source has 16 bits, and so has a constant.
OF_HALVES = ("s_sext_i32_i16", "s_cvt_f32_f16")


@pytest.mark.parametrize(
    "name",
    [n for n in SCALAR if SCALAR[n].sources and not SCALAR[n].form and n not in OF_HALVES],
)
def test_a_constant_is_what_a_register_holds(name: str) -> None:
    """So is the condition code, as a number."""
    row = SCALAR[name]
    target, kinds = TARGETS[row.target], row.sources.split()
    given = inputs(kinds_of(row), WAVES, row.sources)
    code = [wave % 2 for wave in range(WAVES)]
    for place, kind in enumerate(kinds):
        if width(kind) not in (32, 64):
            continue
        cases = [(shown, [bits] * WAVES) for shown, bits in constants(kind)]
        if width(kind) == 32:
            cases.append(("src_scc", code))
        for shown, held in cases:
            m, same = prepared(row, target, given), prepared(row, target, [
                (*bits[:place], one, *bits[place + 1 :])
                for bits, one in zip(given, held, strict=True)
            ])  # fmt: skip
            step(m, text := text_of(name, row, (place, shown)), target)
            step(same, text_of(name, row), target)
            assert np.array_equal(m.scc, same.scc), text
            assert np.array_equal(m.scalar[:2], same.scalar[:2]), text


@pytest.mark.parametrize("name", SAVE_EXEC)
@pytest.mark.parametrize("size", [32, 64])
def test_save_exec(name: str, size: int) -> None:
    target = GFX942 if size == 64 else GFX1100
    m, words, every = waves(target), size // 32, (1 << size) - 1
    ends = [*itertools.product((0, every), repeat=2)]
    given = [*ends, *inputs([f"u{size}", f"u{size}"], WAVES, name)][:WAVES]
    for word in range(words):
        m.scalar[2 + word] = [source >> 32 * word & 0xFFFFFFFF for source, _ in given]
        m.scalar[EXEC + word] = [old >> 32 * word & 0xFFFFFFFF for _, old in given]
    m.scalar[EXEC + words : EXEC + 2] = OLD
    m.select(np.arange(WAVES))
    before = m.scalar.copy()
    registers = ("s[0:1]", "s[2:3]") if size == 64 else ("s0", "s2")
    step(m, f"s_{name}_saveexec_b{size} {', '.join(registers)}", target)
    for wave, (source, old) in enumerate(given):
        value = SAVE_EXEC[name](source, old) & every
        held = [sum(int(m.scalar[first + w, wave]) << 32 * w for w in range(words))
                for first in (0, EXEC)]  # fmt: skip
        assert held == [old, value] and bool(m.scc[wave]) == (value != 0)
        changed = np.flatnonzero(m.scalar[:, wave] != before[:, wave])
        assert {*changed} <= {*range(words), *range(EXEC, EXEC + words)}
        lanes = m.exec
        bits = [value >> lane & 1 for lane in range(size)]
        assert (lanes is None and all(bits)) or (
            lanes is not None and lanes[wave].tolist() == [b == 1 for b in bits]
        )


LOADS = {"": 1, "x2": 2, "x3": 3, "x4": 4, "x8": 8, "x16": 16}
LOAD_NAMES = {
    **{f"s_load_dword{suffix}": words for suffix, words in LOADS.items()},
    **{f"s_load_b{32 * words}": words for words in LOADS.values()},
}


@pytest.mark.parametrize("name", LOAD_NAMES)
def test_scalar_loads(name: str) -> None:
    """The address is a pair, plus a register, plus a number; its two low bits do not count."""
    words = LOAD_NAMES[name]
    data = np.arange(7, 7 + 64, dtype=np.uint32) * np.uint32(0x01010101)
    place = int(data.ctypes.data)
    m = waves(GFX942, raw_buffer("data", place, data.nbytes))
    m.scalar[40], m.scalar[41] = place & 0xFFFFFFFF, place >> 32
    m.scalar[42] = [4 * (wave % 16) + wave % 4 for wave in range(WAVES)]
    last = f"s[0:{words - 1}]" if words > 1 else "s0"
    step(m, f"{name} {last}, s[40:41], s42 offset:0x20", GFX942)
    for wave in range(WAVES):
        first = 8 + wave % 16
        assert m.scalar[:words, wave].tolist() == data[first : first + words].tolist()
        assert int(m.scalar[words, wave]) == OLD
    m.scalar[42, 3] = data.nbytes - 0x20
    with pytest.raises(AccessError, match=f"{4 * words} bytes past the end of data") as caught:
        step(m, f"{name} {last}, s[40:41], s42 offset:0x20", GFX942)
    assert (caught.value.wave, caught.value.lane) == (3, None)


BUFFER_LOADS = {name.replace("s_load", "s_buffer_load"): n for name, n in LOAD_NAMES.items()}


@pytest.mark.parametrize("name", BUFFER_LOADS)
def test_scalar_loads_through_a_descriptor(name: str) -> None:
    """What its limit leaves out reads as 0, word by word."""
    words = BUFFER_LOADS[name]
    data = np.arange(7, 7 + 64, dtype=np.uint32) * np.uint32(0x01010101)
    place, limit = int(data.ctypes.data), 4 * 20
    m = waves(GFX942, raw_buffer("data", place, data.nbytes))
    m.scalar[40], m.scalar[41], m.scalar[42] = place & 0xFFFFFFFF, place >> 32, limit
    m.scalar[44] = [4 * (wave % 20) + wave % 4 for wave in range(WAVES)]
    m.scalar[44, 5] = 0xFFFFFFF4  # 2**32 + 4, which is not 4
    last = f"s[0:{words - 1}]" if words > 1 else "s0"
    step(m, f"{name} {last}, s[40:43], s44 offset:0x10", GFX942)
    for wave in range(WAVES):
        first = 4 + wave % 20
        held = [int(data[n]) if n < 20 else 0 for n in range(first, first + words)]
        held = held if wave != 5 else [0] * words
        assert m.scalar[:words, wave].tolist() == held
        assert int(m.scalar[words, wave]) == OLD
    m.scalar[42, 9] = 1 << 20
    m.scalar[44, 9] = data.nbytes - 0x10
    with pytest.raises(AccessError, match="past the end of data") as caught:
        step(m, f"{name} {last}, s[40:43], s44 offset:0x10", GFX942)
    assert (caught.value.wave, caught.value.lane) == (9, None)
    for bit in range(14):
        m.scalar[41] = place >> 32 | 1 << 16 + bit
        with pytest.raises(UnknownError, match="stride"):
            step(m, f"{name} {last}, s[40:43], s44", GFX942)
    m.scalar[41] = place >> 32 | 3 << 30
    with pytest.raises(AccessError, match="past the end of data"):
        step(m, f"{name} {last}, s[40:43], s44 offset:0x10", GFX942)


SMALL_LOADS = ["s_load_u8", "s_load_i8", "s_load_u16", "s_load_i16"]


@pytest.mark.parametrize("name", SMALL_LOADS)
def test_scalar_loads_of_part_of_a_word(name: str) -> None:
    """Every bit of the address counts, and the last byte may be one that ends the buffer."""
    access = access_of(name.removeprefix("s_load_"))
    data = np.random.default_rng(1).integers(0, 256, 5 + WAVES, dtype=np.uint8)
    data[3:5] = 0x80, 0xFF
    place = int(data.ctypes.data)
    m = waves(GFX1201, raw_buffer("data", place, data.nbytes))
    m.scalar[40], m.scalar[41] = (place - 4) & 0xFFFFFFFF, (place - 4) >> 32
    m.scalar[42] = [wave + 3 for wave in range(WAVES)]
    step(m, f"{name} s0, s[40:41], s42 offset:0x4", GFX1201)
    for wave in range(WAVES):
        assert [int(m.scalar[0, wave])] == access.load(data.tobytes(), wave + 3, [OLD])
        assert int(m.scalar[1, wave]) == OLD
    m.scalar[42, 5] = len(data)
    with pytest.raises(AccessError, match=f"{access.size} bytes past the end of data") as caught:
        step(m, f"{name} s0, s[40:41], s42 offset:0x4", GFX1201)
    assert (caught.value.wave, caught.value.lane) == (5, None)


@pytest.mark.parametrize("name", NO_EFFECT)
def test_what_orders_and_times_changes_nothing(name: str) -> None:
    m = waves(GFX1201)
    scalars, vectors, codes, mode = m.scalar.copy(), m.vector.copy(), m.scc.copy(), m.mode
    step(m, name, GFX1201)
    assert np.array_equal(m.scalar, scalars) and np.array_equal(m.vector, vectors)
    assert np.array_equal(m.scc, codes) and m.mode == mode


@pytest.mark.parametrize("name", ["s_setreg_imm32_b32", "s_setreg_b32"])
def test_setreg_sets_mode(name: str) -> None:
    m = waves(GFX942)
    step(m, f"{name} hwreg(HW_REG_MODE, 23, 1), 1", GFX942)
    assert m.mode == PLAIN | 1 << 23
    step(m, f"{name} hwreg(HW_REG_MODE, 4, 2), 2", GFX942)
    assert m.mode == PLAIN & ~0x10 | 1 << 23
    step(m, f"{name} hwreg(HW_REG_MODE, 23, 1), 0", GFX942)
    assert m.mode == PLAIN & ~0x10


def test_getreg_reads_mode() -> None:
    m = waves(GFX942)
    step(m, "s_getreg_b32 s3, hwreg(HW_REG_MODE, 4, 4)", GFX942)
    assert m.scalar[3].tolist() == [PLAIN >> 4] * WAVES


def test_rounding_and_denormals_have_instructions_of_their_own() -> None:
    m = waves(GFX1100)
    step(m, "s_round_mode 0x9", GFX1100)
    assert m.mode == PLAIN | 9
    step(m, "s_denorm_mode 5", GFX1100)
    assert m.mode == 0x59


TESTED = {
    *SCALAR,
    *(f"s_{name}_saveexec_b{size}" for name in SAVE_EXEC for size in (32, 64)),
    *LOAD_NAMES,
    *BUFFER_LOADS,
    *SMALL_LOADS,
    *NO_EFFECT,
    "s_setreg_imm32_b32",
    "s_setreg_b32",
    "s_getreg_b32",
    "s_round_mode",
    "s_denorm_mode",
}
