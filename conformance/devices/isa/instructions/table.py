"""Every instruction the emulator knows, by mnemonic."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ...assembly import Instruction
from ..mode import PLAIN
from ..state import State
from ..target import IsaTarget, UnknownError
from .alu import Build, Built, Step
from .crosslane import CROSSLANE
from .division import DIVISION
from .eight_bit import EIGHT_BIT
from .global_memory import GLOBAL
from .heeded import Heeded, refuse_others
from .indexed import INDEXED, PREFIX, indexed
from .lds import LDS
from .matrix_variants import matrix_variant
from .packed import PACKED
from .scalar import SCALAR
from .scalar_state import NO_EFFECT, SCALAR_STATE
from .scratch import SCRATCH
from .vector_double import DOUBLES
from .vector_float import FLOATS
from .vector_half import HALVES
from .vector_integer import INTEGERS
from .vector_sums import SUMS

TABLE: dict[str, Build] = {
    **SCALAR,
    **SCALAR_STATE,
    **FLOATS,
    **DIVISION,
    **DOUBLES,
    **HALVES,
    **INTEGERS,
    **SUMS,
    **PACKED,
    **EIGHT_BIT,
    **CROSSLANE,
    **INDEXED,
    **GLOBAL,
    **LDS,
    **SCRATCH,
}

# Instructions that move the program counter or end a wave: the machine runs them itself.
CONTROL = frozenset(
    [
        "s_branch",
        "s_cbranch_scc0",
        "s_cbranch_scc1",
        "s_cbranch_vccz",
        "s_cbranch_vccnz",
        "s_cbranch_execz",
        "s_cbranch_execnz",
        "s_endpgm",
        "s_barrier",
        "s_barrier_signal",
        "s_barrier_wait",
        "s_getpc_b64",
        "s_setpc_b64",
        "s_trap",
    ]
)
SILENT = frozenset(NO_EFFECT)
# Whose offset in a register may count accesses instead of bytes.
_SCALED = ("global_", "s_load_")
# What gfx1250 calls instructions that move the program counter.
_RENAMED = {"s_get_pc_i64": "s_getpc_b64", "s_set_pc_i64": "s_setpc_b64"}
# Instructions after which others can mean something else.
SETS_MODE = frozenset(["s_setreg_b32", "s_setreg_imm32_b32", "s_round_mode", "s_denorm_mode"])
# Encodings of one instruction: the same operation in 32 or 64 bits, or with a modifier.
_ENCODING = re.compile(r"(_e32|_e64|_dpp8|_dpp|_sdwa|_e64_dpp)+$")


@lru_cache(maxsize=1 << 14)
def base_name(mnemonic: str) -> str:
    """A mnemonic without its encoding, and without RDNA3's word for one of a pair."""
    name = _ENCODING.sub("", mnemonic)
    name = _RENAMED.get(name, name)
    return "v_" + name.removeprefix("v_dual_") if name.startswith("v_dual_") else name


def is_known(mnemonic: str) -> bool:
    name = base_name(mnemonic)
    return name in TABLE or name in CONTROL or matrix_variant(name) is not None


def build(ins: Instruction, target: IsaTarget) -> Built:
    """The function of one instruction; UnknownError if it, or anything about it, is not known."""
    if ins.mnemonic.startswith(PREFIX):
        return indexed(ins, target, build_step)
    name = base_name(ins.mnemonic)
    if "scale_offset" in ins.modifiers and not name.startswith(_SCALED):
        raise UnknownError(f"a scaled offset of {ins.mnemonic}")
    maker = TABLE.get(name) or matrix_variant(name)
    if maker is None:
        raise UnknownError(f"instruction {ins.mnemonic}")
    if name in SILENT:
        return maker(ins, target)
    heeded = Heeded(ins.modifiers)
    made = maker(replace(ins, modifiers=heeded), target)
    refuse_others(ins, heeded)
    return made


def build_step(ins: Instruction, target: IsaTarget) -> Step:
    """A step that runs one instruction, or a pair: both halves read before either writes.

    Where the target says no mode the step goes by the waves' own.
    """
    if target.mode is not None:
        return _fixed_step(ins, target)
    made = {PLAIN: _fixed_step(ins, target)}

    def step(m: State) -> None:
        if m.mode not in made:
            made[m.mode] = _fixed_step(ins, replace(target, mode=m.mode))
        made[m.mode](m)

    return step


def _fixed_step(ins: Instruction, target: IsaTarget) -> Step:
    if ins.second is None:
        return build(ins, target).step()
    one, two = build(ins, target), build(ins.second, target)
    if one.alone or two.alone:
        raise UnknownError(f"{ins.mnemonic} and {ins.second.mnemonic} as a pair")

    def step(m: State) -> None:
        # A move gives a view of the register it reads: the first write must not change it.
        first, second = one.compute(m), np.array(two.compute(m))
        one.write(m, first)
        two.write(m, second)

    return step
