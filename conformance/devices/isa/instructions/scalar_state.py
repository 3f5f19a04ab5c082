"""Scalar instructions about the wave itself: EXEC, MODE, loads; and those that do nothing here.

Sources: as :mod:`.scalar`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...assembly import Instruction
from ..memory import OutOfBoundsError
from ..mode import DENORM_BITS, DX10_CLAMP, IEEE, ROUND_BITS, SETTABLE
from ..state import EXEC, Lanes, State
from ..target import IsaTarget, UnknownError
from .access import AccessError, checked_scalar, described
from .alu import Build, Built, Function, effect
from .operands import Reader, scalar_reader, scalar_writer

U32, U64 = np.uint32, np.uint64


def _save_exec(function: Function) -> Build:
    """D = EXEC; EXEC = function(S, old EXEC); SCC = EXEC != 0."""

    def build(ins: Instruction, _target: IsaTarget) -> Built:
        wide = ins.mnemonic.endswith("b64")
        kind = "u64" if wide else "u32"
        read = scalar_reader(ins.operands[1], kind)
        put = scalar_writer(ins.operands[0], kind)

        def step(m: State) -> None:
            old = m.s64(EXEC) if wide else m.s(EXEC).copy()
            value = function(read(m), old)
            put(m, old)
            m.set_s(EXEC, value.astype(U32))
            if wide:
                m.set_s(EXEC + 1, (value >> U64(32)).astype(U32))
            m.scc[m.sel] = value != 0

        return effect(step)

    return build


def _hardware_register(text: str) -> tuple[str, int, int]:
    """Name, first bit and number of bits of ``hwreg(...)``."""
    words = [word.strip() for word in text.removeprefix("hwreg(").removesuffix(")").split(",")]
    offset, width = (int(words[1], 0), int(words[2], 0)) if len(words) > 1 else (0, 32)
    return words[0], offset, width


def _is_mode(name: str) -> bool:
    return name in ("HW_REG_MODE", "HW_REG_WAVE_MODE", "1")


# What changes when instructions are issued, and nothing that they compute.
_TIMING = ("HW_REG_WAVE_SCHED_MODE",)
# CDNA5's MODE says here whether accesses may be replayed after a page fault.
_REPLAY = 1 << 25


def _setreg(ins: Instruction, target: IsaTarget) -> Built:
    """Only MODE can be set, and of MODE what changes a result."""
    name, offset, width = _hardware_register(ins.operands[0].text)
    if name in _TIMING:
        return effect(lambda _m: None)
    if not _is_mode(name):
        raise UnknownError(f"s_setreg of {name}")
    mask = ((1 << width) - 1) << offset
    if target.family.name == "CDNA5":
        mask &= ~_REPLAY
    known = SETTABLE & ~(DX10_CLAMP | IEEE) if target.family.isa == "gfx12" else SETTABLE
    if mask & ~known:
        raise UnknownError(f"MODE bits {mask & ~known:#x}")
    return _sets_mode(mask, scalar_reader(ins.operands[1], "u32"), offset)


def _sets_mode(mask: int, read: Reader, offset: int) -> Built:
    def step(m: State) -> None:
        value = np.broadcast_to(read(m), (m.n,)).astype(np.int64) << offset
        m.set_mode((m.mode & ~mask) | (value & mask))

    return effect(step)


def _mode_part(mask: int, offset: int) -> Build:
    """``s_round_mode`` and ``s_denorm_mode``: four bits of MODE from a constant."""
    return lambda ins, _target: _sets_mode(mask, scalar_reader(ins.operands[0], "u32"), offset)


def _getreg(ins: Instruction, _target: IsaTarget) -> Built:
    """Only MODE can be read."""
    name, offset, width = _hardware_register(ins.operands[1].text)
    if not _is_mode(name):
        raise UnknownError(f"s_getreg of {name}")
    put = scalar_writer(ins.operands[0], "u32")
    ones = (1 << width) - 1
    return effect(lambda m: put(m, np.full(m.n, m.mode >> offset & ones, dtype=U32)))


def _load(words: int) -> Build:
    """Loads of whole words, whose two low address bits do not count."""

    def build(ins: Instruction, _target: IsaTarget) -> Built:
        address, first = _address(ins, 4 * words), ins.operands[0].index

        def step(m: State) -> None:
            places = address(m) & ~np.int64(3)
            loaded = checked_scalar(lambda: m.memory.load(places, words))
            for word in range(words):
                m.set_s(first + word, loaded[word])

        return effect(step)

    return build


def _load_small(size: int, is_signed: bool) -> Build:
    """Loads of 1 or 2 bytes, extended to a word (gfx12)."""
    unused = np.int32(32 - 8 * size)

    def build(ins: Instruction, _target: IsaTarget) -> Built:
        address, into = _address(ins, size), ins.operands[0].index

        def step(m: State) -> None:
            places = address(m)
            loaded = checked_scalar(lambda: m.memory.load_small(places, size))
            if is_signed:
                loaded = (loaded.view(np.int32) << unused >> unused).view(U32)
            m.set_s(into, loaded)

        return effect(step)

    return build


def _buffer_load(words: int) -> Build:
    """Loads of whole words through a descriptor; what lies past its end reads as 0."""

    def build(ins: Instruction, target: IsaTarget) -> Built:
        base, first = ins.operands[1].index, ins.operands[0].index
        place = scalar_reader(ins.operands[2], "u32")
        more = ins.number("offset")

        def step(m: State) -> None:
            if target.family.address_bits == 48:
                stride = (m.s(base + 1) >> U32(16)) & U32(0x3FFF)
            else:
                stride = (m.s(base + 3) >> U32(12)) & U32(0xFFFF)
            if stride.any():
                raise UnknownError("a scalar load through a descriptor with a stride")
            start, limit = described(m, base, target)
            offset = (np.broadcast_to(place(m), (m.n,)).astype(np.int64) + more) & ~np.int64(3)
            loaded = np.zeros((words, m.n), dtype=U32)
            for word in range(words):
                inside = np.flatnonzero(offset + 4 * word + 4 <= limit)
                places = (start + offset)[inside] + 4 * word
                loaded[word, inside] = _words_of(m, inside, places)
            for word in range(words):
                m.set_s(first + word, loaded[word])

        return effect(step)

    return build


def _words_of(m: State, waves: npt.NDArray[np.intp], places: npt.NDArray[np.int64]) -> Lanes:
    """A word for each of some waves of the group."""
    try:
        return m.memory.load(places, 1)[0]
    except OutOfBoundsError as error:
        raise AccessError(int(waves[error.where]), None, str(error)) from None


def _address(ins: Instruction, size: int) -> Callable[[State], npt.NDArray[np.int64]]:
    """A pair of registers, plus a register where there is one, plus a number.

    A register's offset is unsigned, and with ``scale_offset`` (gfx1250) it counts accesses of this
    size; a number has a sign.
    """
    base, more = ins.operands[1].index, ins.number("offset")
    offset, scale = None, size if "scale_offset" in ins.modifiers else 1
    if len(ins.operands) > 2:
        given = ins.operands[2]
        if isinstance(given.value, int):
            more += given.value
        else:
            offset = scalar_reader(given, "u32")

    def read(m: State) -> npt.NDArray[np.int64]:
        address = m.s64(base).view(np.int64) + more
        return address if offset is None else address + offset(m).astype(np.int64) * scale

    return read


def _ignored(_ins: Instruction, _target: IsaTarget) -> Built:
    return effect(lambda _m: None)


# Instructions that order or time things, which an emulator that runs in order need not.
NO_EFFECT = [
    "s_nop",
    "s_waitcnt",
    "s_waitcnt_vscnt",
    "s_waitcnt_vmcnt",
    "s_waitcnt_expcnt",
    "s_waitcnt_lgkmcnt",
    "s_waitcnt_depctr",
    "s_delay_alu",
    "s_clause",
    "s_wait_loadcnt",
    "s_wait_storecnt",
    "s_wait_dscnt",
    "s_wait_kmcnt",
    "s_wait_loadcnt_dscnt",
    "s_wait_storecnt_dscnt",
    "s_wait_samplecnt",
    "s_wait_bvhcnt",
    "s_wait_expcnt",
    "s_wait_alu",
    "s_wait_event",
    "s_wait_idle",
    "s_wait_xcnt",
    "s_wait_asynccnt",
    "s_sleep",
    "s_setprio",
    "s_sethalt",
    "s_sendmsg",
    "s_icache_inv",
    "s_set_inst_prefetch_distance",
    "s_inst_prefetch",
    "s_code_end",
    "s_dcache_wb",
    "s_dcache_inv",
    "s_gl1_inv",
    "buffer_gl0_inv",
    "buffer_gl1_inv",
    "buffer_inv",
    "buffer_wbl2",
    "buffer_wbinvl1",
    "buffer_wbinvl1_vol",
    "global_inv",
    "global_wb",
    "global_wbinv",
    "global_prefetch_b8",
    "s_set_vgpr_msb",
    "s_prefetch_inst",
    "s_prefetch_inst_pc_rel",
    "s_prefetch_data",
    "sched_barrier",
    "s_ttracedata",
    "s_version",
    "v_nop",
]

SCALAR_STATE: dict[str, Build] = {
    **{
        f"s_{name}_saveexec_b{bits}": _save_exec(function)
        for bits in (32, 64)
        for name, function in {
            "and": lambda s, e: s & e,
            "or": lambda s, e: s | e,
            "xor": lambda s, e: s ^ e,
            "andn2": lambda s, e: s & ~e,
            "and_not1": lambda s, e: s & ~e,
            "and_not0": lambda s, e: ~s & e,
            "andn1": lambda s, e: ~s & e,
            "nand": lambda s, e: ~(s & e),
        }.items()
    },
    "s_setreg_imm32_b32": _setreg,
    "s_setreg_b32": _setreg,
    "s_getreg_b32": _getreg,
    "s_round_mode": _mode_part(ROUND_BITS, 0),
    "s_denorm_mode": _mode_part(DENORM_BITS, 4),
    **{
        name: _load(words)
        for count, words in {"": 1, "x2": 2, "x3": 3, "x4": 4, "x8": 8, "x16": 16}.items()
        for name in (f"s_load_dword{count}", f"s_load_b{32 * words}")
    },
    **{
        name: _buffer_load(words)
        for count, words in {"": 1, "x2": 2, "x3": 3, "x4": 4, "x8": 8, "x16": 16}.items()
        for name in (f"s_buffer_load_dword{count}", f"s_buffer_load_b{32 * words}")
    },
    **{
        f"s_load_{letter}{8 * size}": _load_small(size, letter == "i")
        for letter in "iu"
        for size in (1, 2)
    },
    **dict.fromkeys(NO_EFFECT, _ignored),
}
