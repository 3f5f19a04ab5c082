"""How a row is run, by the kind of its instruction: what its registers hold, what comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.mode import DX10_CLAMP, FP16_OVFL, PLAIN
from conformance.devices.isa.state import EXEC, VCC, State
from conformance.devices.isa.target import IsaTarget
from conformance.devices.targets import target_facts
from tests.emulator.isa_cases import state

from .rows import Row

U32 = np.uint32
# What a result's register holds before; conversions to 8 bits leave the half they do not write.
BEFORE = 0xDEADBEEF
# The lanes of the corpus' exchanges hold these numbers, and their results the complements before.
_FIRST, _STEP, _UNTOUCHED = 0x9E370013, 33, 0xC001D00D
_SOURCES = ("v0", "v2", "v3")


def target_of(row: Row) -> IsaTarget:
    facts = target_facts(row.target)
    # clang's kernels have DX10_CLAMP at 0; gfx12 has no such bit, and clamps NaN.
    mode = PLAIN | (DX10_CLAMP if facts.family.isa == "gfx12" else 0)
    if "FP16_OVFL" in row.instruction:
        mode |= FP16_OVFL
    return replace(IsaTarget(facts, facts.wave_size, 128), mode=mode)


def _step(text: str, target: IsaTarget, m: State) -> None:
    m.select(np.array([0]))
    with np.errstate(all="ignore"):
        build_step(parse_instruction(text), target)(m)


# -- arithmetic -----------------------------------------------------------------------------------
def arithmetic_text(row: Row) -> str:
    """The instruction on v0, v2 and v3, or on scalar registers where the row says so."""
    if "v4," in row.instruction:
        return row.instruction
    name, *more = row.instruction.split()
    sources = [("s" + s[1:] if "sgpr" in more else s) for s in _SOURCES[: len(row.inputs)]]
    # One scalar register is what gfx9 lets an instruction read.
    if "sgpr" in more:
        sources = [sources[0], *_SOURCES[1 : len(row.inputs)]]
    if name.startswith("v_cvt_pk_") and name.endswith(("fp8_f32", "bf8_f32", "bf16_f32")):
        sources = ["v0", "v2"]
    if "-v" in more:
        sources = ["-v0"]
    out = "v[4:5]" if _is_pair(row) else "v4"
    if name.startswith("v_cmp"):
        out = "vcc_lo" if target_facts(row.target).wave_size == 32 else "vcc"
    kept = " ".join(word for word in more if word.startswith("byte_sel"))
    if kept:
        name += "_e64"
    return f"{name} {out}, {', '.join(sources)} {kept}".rstrip()


def _is_pair(row: Row) -> bool:
    return row.name.startswith(("v_cvt_f64", "v_cvt_pk_f32"))


def arithmetic(some: list[Row]) -> list[int]:
    """The results of rows of one instruction and target, a lane each."""
    target, text = target_of(some[0]), arithmetic_text(some[0])
    found: list[int] = []
    for start in range(0, len(some), target.lanes):
        now = some[start : start + target.lanes]
        m = state(target)
        m.vector[4:6] = U32(BEFORE)
        for place, register in enumerate((0, 2, 3)[: len(now[0].inputs)]):
            given = np.array([row.inputs[place] for row in now], dtype=np.uint32)
            m.vector[register, 0, : len(now)] = given
        if "sgpr" not in text and " s" not in text:
            _step(text, target, m)
            found += [_result(m, row, lane) for lane, row in enumerate(now)]
            continue
        for lane, row in enumerate(now):
            m.scalar[0] = U32(row.inputs[0])
            _step(text, target, m)
            found.append(_result(m, row, lane))
    return found


def _result(m: State, row: Row, lane: int) -> int:
    if row.name.startswith("v_cmp"):
        return int(m.scalar[VCC + lane // 32, 0] >> U32(lane % 32) & U32(1))
    low, high = (int(m.vector[register, 0, lane]) for register in (4, 5))
    if row.name.startswith("v_cvt_f64"):
        return high << 32 | low
    # The corpus looks at the second of two floats, whose byte the inputs hold.
    if row.name.startswith("v_cvt_pk_f32"):
        return high
    halves = row.name.startswith(("v_cvt_f16", "v_cvt_pk_bf16"))
    return low & 0xFFFF if halves else low


# -- LDS ------------------------------------------------------------------------------------------
def atomic(row: Row) -> list[int]:
    """What comes back, and what is left in LDS: the inputs are the operand and what LDS held."""
    target = target_of(row)
    m = state(target)
    operand, held = row.inputs
    m.lds.view(U32)[4] = held
    m.vector[1, 0], m.vector[0, 0] = U32(16), U32(operand)
    m.scalar[EXEC], m.scalar[EXEC + 1] = U32(1), U32(0)
    _step(f"{row.name} v4, v1, v0", target, m)
    return [int(m.vector[4, 0, 0]), int(m.lds.view(U32)[4])]


def _exchanged(row: Row, text: str, by: Callable[[Any, int], Any] | None = None) -> list[int]:
    """A lane exchange: v2 holds what each lane gives, v1 the place that ``by`` gives it."""
    target = target_of(row)
    m = state(target)
    lane = np.arange(target.lanes)
    m.vector[2, 0] = (_FIRST + _STEP * lane).astype(np.uint64).astype(U32)
    m.vector[4, 0] = ~m.vector[2, 0]
    if by is not None:
        m.vector[1, 0] = (4 * by(lane, target.lanes)).astype(U32)
    if "inactive" in row.instruction:
        m.vector[4, 0] = U32(_UNTOUCHED)
        m.scalar[EXEC], m.scalar[EXEC + 1] = U32(0x55555555), U32(0x55555555)
    if "permlane16" in text or "permlanex16" in text:
        m.scalar[8], m.scalar[9] = (U32(one) for one in row.inputs)
    _step(text, target, m)
    return [int(one) for one in m.vector[4, 0]]


def exchange(row: Row) -> list[int]:
    name, rest = row.name, row.instruction.partition(" ")[2]
    if name == "ds_swizzle_b32":
        return _exchanged(row, f"ds_swizzle_b32 v4, v2 {rest}")
    if name == "dpp8":
        (code,) = row.inputs
        order = [code >> 3 * place & 7 for place in range(8)]
        return _exchanged(row, f"v_mov_b32_dpp v4, v2 dpp8:[{_commas(order)}]")
    if name == "v_mov_b32_dpp":
        order = [row.inputs[0] >> 2 * place & 3 for place in range(4)]
        rows = f"0x{row.inputs[1]:x}" if len(row.inputs) > 1 else "0xf"
        moved = f"quad_perm:[{_commas(order)}] row_mask:{rows} bank_mask:0xf"
        return _exchanged(row, f"v_mov_b32_dpp v4, v2 {moved}")
    if name.startswith("v_permlane"):
        return _exchanged(row, f"{name} v4, v2, s8, s9")
    return _exchanged(row, f"{name} v4, v1, v2", _TURNED[rest])


_TURNED: dict[str, Callable[[Any, int], Any]] = {
    "rotate": lambda lane, count: (lane + 1) % count,
    "half": lambda lane, count: (lane + count // 2) % count,
    "inactive": lambda lane, _: lane ^ 1,
}


def _commas(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def unchanged(row: Row) -> list[int]:
    """``v_permlane64_b32`` does nothing in waves of 32 lanes: the result is as it was before."""
    target = target_of(row)
    m = state(target)
    m.vector[2, 0] = np.arange(32)
    m.vector[4, 0] = np.array(row.expected, dtype=np.uint32)
    _step("v_permlane64_b32 v4, v2", target, m)
    return [int(one) for one in m.vector[4, 0]]


def columns(row: Row) -> list[int]:
    """A transposing read of 8 bytes a lane; LDS holds 3, 10, 17, ... in 16 bits."""
    target = target_of(row)
    m = state(target)
    object.__setattr__(m.shape, "lds_bytes", 512)
    m.lds = (7 * np.arange(256) + 3).astype(np.uint16).view(np.uint8)
    m.vector[2, 0] = 8 * np.arange(target.lanes)
    _step(f"{row.name} v[4:5], v2", target, m)
    return [int(m.vector[4 + word, 0, lane]) for lane in range(target.lanes) for word in range(2)]


# -- tinygrad's tests that are one instruction -----------------------------------------------------
def single(row: Row) -> list[int]:
    """What an instruction gives for the row's constants as its operands, in their order.

    Raises:
        UnknownError, ValueError: the constants are not those of one instruction.
    """
    target = target_of(row)
    m = state(target)
    given = [_bits(one) for one in row.inputs]
    if row.name.startswith("v_wmma"):
        m.vector[16:32] = U32(given[0])
        for place in range(8):
            m.vector[32 + place] = U32(given[1] if len(given) == 2 else given[1 + place])
        _step(f"{row.name} v[40:47], v[16:23], v[24:31], v[32:39]", target, m)
        return sorted({int(one) for one in m.vector[40:48, 0].reshape(-1)})
    kind = row.name[:2]
    if kind not in ("v_", "s_"):
        raise ValueError("an instruction that needs memory")
    held = m.vector if kind == "v_" else m.scalar
    sources = [f"{kind[0]}{place}" for place in (0, 2, 3, 5)[: len(given)]]
    for place, value in zip((0, 2, 3, 5), given, strict=False):
        held[place, 0] = U32(value)
    out = f"{kind[0]}4"
    if row.name.startswith("v_cmp"):
        out = "s10" if row.name.endswith("e64") else "vcc_lo"
    _step(f"{row.name} {out}, {', '.join(sources)}", target, m)
    if out in ("s10", "vcc_lo"):
        mask = int(m.scalar[10 if out == "s10" else VCC, 0])
        return [mask, mask & 1]
    result = int(held[4, 0]) if kind == "s_" else int(held[4, 0, 0])
    return [result, result & 0xFFFF]


def _bits(value: float) -> int:
    if isinstance(value, int):
        return value & 0xFFFFFFFF
    return int(np.float32(value).view(np.uint32))


# -- comparisons ----------------------------------------------------------------------------------
def equal(row: Row, found: Any) -> bool:
    """Whether a result is what the row expects; any NaN is as good as another."""
    wanted = row.expected
    if found == wanted:
        return True
    floats = isinstance(row.measure, int) or re.search(r"_f32|f32_", row.name) is not None
    if row.name.startswith("v_cmp") or not floats:
        return False
    if _is_nan(found) or _is_nan(wanted):
        return _is_nan(found) and _is_nan(wanted)
    units = row.measure if isinstance(row.measure, int) else 0
    return abs(_ordered(found) - _ordered(wanted)) <= units


def near(row: Row, found: list[int]) -> bool:
    """Whether one of a single instruction's results is what tinygrad's row expects."""
    if isinstance(row.expected, int):
        return row.measure == "Equal" and row.expected in found
    if not isinstance(row.expected, float):
        return False
    values = [np.array(one, np.uint32).view(np.float32) for one in found]
    values += [np.array(one & 0xFFFF, np.uint16).view(np.float16) for one in found]
    # Its tests compare floats to five places or to half a percent, as their types allow.
    room = 1e-3 * max(1.0, abs(row.expected))
    return any(abs(float(value) - row.expected) <= room for value in values)


def _ordered(bits: int) -> int:
    """Floats' bits in the order of their values: neighbours differ by one."""
    return bits if bits < 1 << 31 else (1 << 31) - bits


def _is_nan(bits: int) -> bool:
    return bits & 0x7FFFFFFF > 0x7F800000


def grouped(some: Iterable[Row]) -> list[list[Row]]:
    """Rows of one instruction and target together."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in some:
        found.setdefault((row.instruction, row.target, len(row.inputs)), []).append(row)
    return list(found.values())
