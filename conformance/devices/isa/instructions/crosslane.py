"""Instructions that move values between lanes, and between lanes and scalar registers.

Sources: as :mod:`.vector_integer`; ``ds_bpermute_b32``, ``ds_permute_b32`` and
``ds_swizzle_b32`` are described among the LDS instructions, whose hardware they use without
touching memory.
"""

from __future__ import annotations

import numpy as np

from ...assembly import Instruction
from ..state import Bools, Lanes, State
from ..target import IsaTarget, UnknownError
from .alu import Build, Built, effect
from .operands import raw_reader, register, scalar_reader

U32 = np.uint32


def _read_first_lane(ins: Instruction, target: IsaTarget) -> Built:
    """The value of the first lane that runs; of lane 0 if none does."""
    read, out = raw_reader(ins.operands[1], target), ins.operands[0].index

    def step(m: State) -> None:
        value = np.broadcast_to(read(m), (m.n, m.lanes))
        if m.exec is None:
            m.set_s(out, value[:, 0].copy())
        else:
            m.set_s(out, value[np.arange(m.n), np.argmax(m.exec, axis=1)])

    return effect(step)


def _read_lane(ins: Instruction, target: IsaTarget) -> Built:
    read, out = raw_reader(ins.operands[1], target), ins.operands[0].index
    lane = scalar_reader(ins.operands[2], "u32")

    def step(m: State) -> None:
        value = np.broadcast_to(read(m), (m.n, m.lanes))
        m.set_s(out, value[np.arange(m.n), lane(m) % m.lanes])

    return effect(step)


def _write_lane(ins: Instruction, target: IsaTarget) -> Built:
    """One lane, whether or not it runs."""
    out = register(ins.operands[0], target)
    read, lane = scalar_reader(ins.operands[1], "u32"), scalar_reader(ins.operands[2], "u32")

    def step(m: State) -> None:
        rows = m.v(out).copy()
        rows[np.arange(m.n), lane(m) % m.lanes] = read(m)
        m.vector[out][m.sel] = rows

    return effect(step)


def _permlane16(other_row: bool) -> Build:
    """Every lane reads the lane of its row (or its row's neighbour) that two scalars name."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        out, read = register(ins.operands[0], target), raw_reader(ins.operands[1], target)
        low, high = (scalar_reader(o, "u32") for o in ins.operands[2:4])
        inactive, zero = ins.bits("op_sel", (0, 0))[:2]
        lane = np.arange(target.lanes)
        row = (lane // 16 ^ (1 if other_row else 0)) * 16
        shift = (lane % 8 * 4).astype(U32)

        def step(m: State) -> None:
            words = np.where(lane % 16 < 8, low(m)[:, None], high(m)[:, None])
            source = np.broadcast_to(row + ((words >> shift) & U32(15)), (m.n, m.lanes))
            _from_lanes(m, out, read(m), source, inactive=bool(inactive), zero=bool(zero))

        return effect(step)

    return build


def _permlane16_var(other_row: bool) -> Build:
    """Every lane reads the lane of its row (or its row's neighbour) that its own register names."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        out, read = register(ins.operands[0], target), raw_reader(ins.operands[1], target)
        select = raw_reader(ins.operands[2], target)
        inactive, zero = ins.bits("op_sel", (0, 0))[:2]
        row = (np.arange(target.lanes) // 16 ^ (1 if other_row else 0)) * 16

        def step(m: State) -> None:
            source = np.broadcast_to(row + (select(m) & U32(15)), (m.n, m.lanes))
            _from_lanes(m, out, read(m), source, inactive=bool(inactive), zero=bool(zero))

        return effect(step)

    return build


def _from_lanes(
    m: State, out: int, value: Lanes, source: Lanes, *, inactive: bool, zero: bool
) -> None:
    """Every lane reads the lane ``source`` names; one that does not run only if ``inactive``, and
    else gives 0 if ``zero``, or nothing."""
    value = np.take_along_axis(np.broadcast_to(value, (m.n, m.lanes)), source, axis=1)
    valid: Bools | None = None
    if m.exec is not None and not inactive:
        valid = np.take_along_axis(m.exec, source, axis=1)
        value = np.where(valid, value, U32(0)) if zero else value
    m.set_v(out, value, None if zero else valid)


def _permlane64(ins: Instruction, target: IsaTarget) -> Built:
    """Both halves of a wave change places; a wave of 32 lanes has one, and nothing happens."""
    out, read = register(ins.operands[0], target), raw_reader(ins.operands[1], target)

    def step(m: State) -> None:
        if m.lanes == 64:
            value = np.broadcast_to(read(m), (m.n, m.lanes))
            m.set_v(out, np.roll(value, 32, axis=1))

    return effect(step)


def _swap_rows(size: int) -> Build:
    """Odd groups of ``size`` lanes of one register change places with even ones of the other."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        first, second = (register(o, target) for o in ins.operands[:2])
        odd = np.arange(target.lanes) // size % 2 == 1

        def step(m: State) -> None:
            one, two = m.v(first).copy(), m.v(second).copy()
            m.set_v(first, np.where(odd, np.roll(two, size, axis=1), one))
            m.set_v(second, np.where(odd, two, np.roll(one, -size, axis=1)))

        return effect(step)

    return build


def _swap(ins: Instruction, target: IsaTarget) -> Built:
    first, second = (register(o, target) for o in ins.operands[:2])

    def step(m: State) -> None:
        one, two = m.v(first).copy(), m.v(second).copy()
        m.set_v(first, two)
        m.set_v(second, one)

    return effect(step)


def _backward_permute(ins: Instruction, target: IsaTarget) -> Built:
    """Each lane reads the lane that its address (in bytes) names; one that does not run gives 0."""
    out = register(ins.operands[0], target)
    place, read = (raw_reader(o, target) for o in ins.operands[1:3])
    offset = ins.number("offset")

    def step(m: State) -> None:
        source = np.broadcast_to((place(m) + U32(offset)) // U32(4) % U32(m.lanes), (m.n, m.lanes))
        data = np.broadcast_to(read(m), (m.n, m.lanes))
        if m.exec is not None:
            data = np.where(m.exec, data, U32(0))
        m.set_v(out, np.take_along_axis(data, source.astype(np.int64), axis=1))

    return effect(step)


def _forward_permute(ins: Instruction, target: IsaTarget) -> Built:
    """Each lane that runs writes to the lane its address names; the highest writer wins."""
    out = register(ins.operands[0], target)
    place, read = (raw_reader(o, target) for o in ins.operands[1:3])
    offset = ins.number("offset")

    def step(m: State) -> None:
        goal = np.broadcast_to((place(m) + U32(offset)) // U32(4) % U32(m.lanes), (m.n, m.lanes))
        data = np.broadcast_to(read(m), (m.n, m.lanes))
        result = np.zeros((m.n, m.lanes), dtype=U32)
        rows, lanes = np.nonzero(np.ones_like(goal) if m.exec is None else m.exec)
        result[rows, goal[rows, lanes]] = data[rows, lanes]
        m.set_v(out, result)

    return effect(step)


def _swizzle(ins: Instruction, target: IsaTarget) -> Built:
    out, read = register(ins.operands[0], target), raw_reader(ins.operands[1], target)
    source = swizzle_pattern(ins.modifiers.get("offset", "0"), target.lanes)

    def step(m: State) -> None:
        data = np.broadcast_to(read(m), (m.n, m.lanes))
        if m.exec is not None:
            data = np.where(m.exec, data, U32(0))
        m.set_v(out, data[:, source])

    return effect(step)


def swizzle_pattern(text: str, lanes: int) -> Lanes:  # noqa: PLR0911 - one a form
    """The lane each lane reads from, of ``ds_swizzle_b32``'s offset: a number or swizzle(...)."""
    lane = np.arange(lanes)
    group, at = lane // 32 * 32, lane % 32
    if not text.startswith("swizzle("):
        number = int(text, 0)
        if number & 0x8000:
            quad = np.array([number >> 2 * i & 3 for i in range(4)])
            return lane // 4 * 4 + quad[lane % 4]
        return group + (((at & (number & 31)) | (number >> 5 & 31)) ^ (number >> 10 & 31))
    words = [word.strip() for word in text[8:-1].split(",")]
    if words[0] == "QUAD_PERM":
        return lane // 4 * 4 + np.array([int(w) for w in words[1:]])[lane % 4]
    if words[0] == "SWAP":
        return lane ^ int(words[1])
    if words[0] == "REVERSE":
        return lane ^ (int(words[1]) - 1)
    if words[0] == "BROADCAST":
        return lane // int(words[1]) * int(words[1]) + int(words[2])
    if words[0] == "BITMASK_PERM":
        source = at.copy()
        for place, letter in enumerate(reversed(words[1].strip('"'))):
            bit = 1 << place
            source = {"0": source & ~bit, "1": source | bit, "p": source, "i": source ^ bit}[letter]
        return group + source
    raise UnknownError(f"offset:{text}")


def _mask_count(first: int) -> Build:
    """How many of the mask's bits stand for lanes below this one, plus the second source."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        out = register(ins.operands[0], target)
        mask, add = (raw_reader(o, target) for o in ins.operands[1:3])
        lane = np.arange(target.lanes) - first
        below = np.where(lane >= 32, 0xFFFFFFFF, (1 << np.clip(lane, 0, 31)) - 1).astype(U32)

        def step(m: State) -> None:
            m.set_v(out, np.bitwise_count(mask(m) & below) + add(m))

        return effect(step)

    return build


CROSSLANE: dict[str, Build] = {
    "v_readfirstlane_b32": _read_first_lane,
    "v_readlane_b32": _read_lane,
    "v_writelane_b32": _write_lane,
    "v_permlane16_b32": _permlane16(other_row=False),
    "v_permlanex16_b32": _permlane16(other_row=True),
    "v_permlane16_var_b32": _permlane16_var(other_row=False),
    "v_permlanex16_var_b32": _permlane16_var(other_row=True),
    "v_permlane64_b32": _permlane64,
    "v_permlane16_swap_b32": _swap_rows(16),
    "v_permlane32_swap_b32": _swap_rows(32),
    "v_swap_b32": _swap,
    "ds_bpermute_b32": _backward_permute,
    "ds_permute_b32": _forward_permute,
    "ds_swizzle_b32": _swizzle,
    "v_mbcnt_lo_u32_b32": _mask_count(0),
    "v_mbcnt_hi_u32_b32": _mask_count(32),
}
