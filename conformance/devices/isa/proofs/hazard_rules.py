"""Which instructions must not follow one another too soon, for each family of targets.

A rule is about two instructions: ``first`` names the places that the earlier one makes unsafe,
``then`` those that the later one touches, and ``states`` how many wait states must pass between
them if a place is among both. A place is a register, or anything else that both name. Hardware
holds back nearly every other instruction until its sources are there; these are the cases in which
it does not.

Sources: the chapters "Manually Inserted Wait States" and "Dependency Resolution: Required
Independent Instructions" of AMD's manuals,
https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs/instruction-set-architectures/amd-instinct-mi300-cdna3-instruction-set-architecture.pdf
https://www.amd.com/content/dam/amd/en/documents/radeon-tech-docs/instruction-set-architectures/rdna3-shader-instruction-set-architecture-feb-2023_0.pdf
https://www.amd.com/content/dam/amd/en/documents/radeon-tech-docs/instruction-set-architectures/rdna4-instruction-set-architecture.pdf
and, where these do not have a number, what LLVM inserts:
https://github.com/ROCm/llvm-project/blob/amd-staging/llvm/lib/Target/AMDGPU/GCNHazardRecognizer.cpp
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..state import M0
from ..target import IsaTarget
from .issued import Issued
from .matrix_hazards import (
    accumulator_read,
    after_dot,
    after_product,
    dot_result,
    factors,
    overwrites_accumulator,
    product,
    touches_product,
)
from .registers import Register

Places = Iterable[Register]
_EXEC: Register = ("exec", 0)
_VCC: Register = ("vcc", 0)


@dataclass(frozen=True)
class Rule:
    """``what`` in words; ``most`` is the largest number of ``states`` it can ask for.

    ``ticks``: how much time passes with an instruction between the two, in wait states if nothing
    else is said; ``over``: whether so much time is enough. ``ends``: instructions after which
    nothing earlier is unsafe. ``unit`` is what time is counted in, in words. ``cut``: a time, given
    ``most``, without what makes no difference, so that it does not grow for ever in a loop.
    """

    what: str
    most: int
    first: Callable[[Issued], Places]
    then: Callable[[Issued], Places]
    states: Callable[[Issued, Issued, Register], int]
    ticks: Callable[[Issued], int] = lambda one: one.states
    over: Callable[[int, int], bool] = lambda time, states: time >= states
    ends: Callable[[Issued], bool] = lambda _: False
    unit: str = "wait states"
    cut: Callable[[int, int], int] = min


def _rule(
    what: str, states: int, first: Callable[[Issued], Places], then: Callable[[Issued], Places]
) -> Rule:
    return Rule(what, states, first, then, lambda *_: states)


def rules_for(target: IsaTarget) -> tuple[Rule, ...]:
    """The rules of a target's family."""
    return _RULES[target.family.name]


# -- the earlier instruction ----------------------------------------------------------------------
def _vector_scalars(one: Issued) -> Places:
    return one.scalar_writes if one.vector else ()


def _vector_vectors(one: Issued) -> Places:
    """But those of matrix products, which have rules of their own."""
    return one.vector_writes if one.vector and not one.mfma else ()


def _not_dot_vectors(one: Issued) -> Places:
    return () if one.dot else _vector_vectors(one)


def _vector_exec(one: Issued) -> Places:
    return (_EXEC,) if one.vector and one.writes_exec else ()


def _vector_vcc(one: Issued) -> Places:
    return (_VCC,) if one.vector and one.writes_vcc else ()


def _trans_vectors(one: Issued) -> Places:
    return one.vector_writes if one.trans else ()


def _sets_hardware(one: Issued) -> Places:
    place = 0 if one.name in ("s_setreg_b32", "s_setreg_imm32_b32") else -1
    return _hardware(one, place)


def _hardware(one: Issued, place: int) -> Places:
    """The hardware register that an operand names, by its name or number."""
    if place < 0 or place >= len(one.ins.operands):
        return ()
    name = re.split(r"[(),\s]+", one.ins.operands[place].text + " ")
    return (("hwreg " + (name[1] if name[0] == "hwreg" else name[0]), 0),)


def _scalar_m0(one: Issued) -> Places:
    return (("s", M0),) if one.scalar and ("s", M0) in one.use.writes else ()


def _wide_store(one: Issued) -> Places:
    """The data of a store of more than 8 bytes: it is read after the instruction was issued.

    A buffer store whose scalar offset is a register is issued in two steps, and late enough.
    """
    if not one.vmem or not ("_store_" in one.name or "_atomic_" in one.name):
        return ()
    operands = one.ins.operands
    if one.name.startswith("buffer_"):
        data = operands[0] if operands else None
        if any(o.file == "s" and o.count == 1 for o in operands[2:]):
            return ()
    else:
        wide = [o for o in operands[1:] if o.file in ("v", "a") and o.count > 2]
        data = wide[0] if wide else None
    if data is None or data.count <= 2:
        return ()
    return one.operand(operands.index(data))


def _partial_result(one: Issued) -> Places:
    """A result that goes to the upper part of its register is forwarded one state later."""
    if not one.vector or not one.ins.operands:
        return ()
    select = one.ins.modifiers.get("dst_sel", "DWORD")
    chosen = one.ins.bits("op_sel", ())
    sources = len(one.ins.operands) - 1
    upper = len(chosen) > sources and any(chosen[sources:])
    packed = one.name.startswith(("v_pk_", "v_fma_mix", "v_mad_mix", "v_dot"))
    return one.vector_writes if select != "DWORD" or (upper and not packed) else ()


# -- the later instruction ------------------------------------------------------------------------
def _vmem_scalars(one: Issued) -> Places:
    return one.scalar_reads if one.vmem else ()


def _lane_select(one: Issued) -> Places:
    return one.operand(2) if one.name in ("v_readlane_b32", "v_writelane_b32") else ()


def _read_lane(one: Issued) -> Places:
    return one.operand(1) if one.name in ("v_readlane_b32", "v_readfirstlane_b32") else ()


def _any_lane_exec(one: Issued) -> Places:
    names = ("v_readlane_b32", "v_readfirstlane_b32", "v_writelane_b32")
    return (_EXEC,) if one.name in names else ()


def _div_fmas(one: Issued) -> Places:
    return (_VCC,) if one.name.startswith("v_div_fmas_") else ()


def _dpp_exec(one: Issued) -> Places:
    return (_EXEC,) if one.dpp else ()


def _dpp_vectors(one: Issued) -> Places:
    return one.vector_reads if one.dpp else ()


def _vector_reads(one: Issued) -> Places:
    return one.vector_reads if one.vector else ()


def _vector_scalar_reads(one: Issued) -> Places:
    return one.scalar_reads if one.vector else ()


def _not_trans_reads(one: Issued) -> Places:
    return one.vector_reads if one.vector and not one.trans else ()


def _vector_touches(one: Issued) -> Places:
    return one.vector_reads | one.vector_writes if one.vector else ()


def _vector_writes(one: Issued) -> Places:
    return one.vector_writes if one.vector else ()


def _uses_hardware(one: Issued) -> Places:
    return _hardware(one, 1) if one.name == "s_getreg_b32" else _sets_hardware(one)


def _reads_m0(one: Issued) -> Places:
    reads = one.to_lds or one.name.startswith("s_sendmsg") or "addtid" in one.name
    return (("s", M0),) if reads else ()


def _mfma_reads(one: Issued) -> Places:
    return one.vector_reads if one.mfma else ()


def _mfma_exec(one: Issued) -> Places:
    return (_EXEC,) if one.mfma else ()


def _permlane_swap(one: Issued) -> Places:
    swap = one.name.startswith("v_permlane") and "_swap_" in one.name
    return one.vector_reads | one.vector_writes if swap else ()


def _permlane_exec(one: Issued) -> Places:
    return (_EXEC,) if one.name.startswith("v_permlane") else ()


# -- RDNA -----------------------------------------------------------------------------------------
def _wmma_result(one: Issued) -> Places:
    return one.vector_writes if one.wmma else ()


def _wmma_factors(one: Issued) -> Places:
    if not one.wmma:
        return ()
    index = one.operand(3) if one.name.startswith("v_swmmac_") else frozenset()
    return factors(one) | index


def _loaded_directly(one: Issued) -> Places:
    """The result of a load from LDS that the vector unit's order does not hold back."""
    direct = one.name.startswith(("lds_direct_load", "ds_direct_load", "lds_param_load",
                                  "ds_param_load"))  # fmt: skip
    return one.operand(0) if direct else ()


def _direct_wait(first: Issued, later: Issued, _place: Register) -> int:
    """It says itself how many vector instructions may not have ended; of a transcendental one no
    number tells that."""
    wait = later.ins.number("wait_vdst")
    return _DIGIT if wait and first.trans else wait


def _all_plain(time: int, states: int) -> bool:
    """So many vector instructions have come since, and none that ends out of their order."""
    return states == 0 or (time >= states and time < _DIGIT)


def _not_a_nop(one: Issued) -> Places:
    return () if one.name == "s_nop" else (("registers", 0),)


def _gives_back(one: Issued) -> Places:
    """The message by which a wave that is about to end gives its vector registers back."""
    message = one.name == "s_sendmsg" and one.ins.operands[:1]
    gives = message and (message[0].value == _DEALLOC or "DEALLOC_VGPRS" in message[0].text)
    return (("registers", 0),) if gives else ()


def _permlane_old(one: Issued) -> Places:
    return (_EXEC,) if one.name.startswith("v_permlane") else ()


def _vector_instructions(one: Issued) -> int:
    return int(one.vector)


# The number of MSG_DEALLOC_VGPRS: https://llvm.org/docs/AMDGPU/gfx11_msg.html
_DEALLOC = 3
# Vector instructions, and of these the transcendental ones in a digit of their own.
_DIGIT = 1 << 20


def _two_counts(one: Issued) -> int:
    return int(one.vector) + _DIGIT * int(one.trans)


def _cut_counts(time: int, most: int) -> int:
    return min(time % _DIGIT, most) + _DIGIT * min(time // _DIGIT, 2)


def _both_counts(time: int, states: int) -> bool:
    """Results are there after so many vector instructions, or two transcendental ones."""
    return time % _DIGIT >= states or time // _DIGIT > 1


def _waits_for_vectors(one: Issued) -> bool:
    """Memory instructions, and a wait for the vector unit's results."""
    if one.vmem or one.lds:
        return True
    return one.name == "s_waitcnt_depctr" and depctr(one)["va_vdst"] == 0


_DEPCTR = {"va_vdst": (12, 4), "va_sdst": (9, 3), "va_ssrc": (8, 1), "hold_cnt": (7, 1),
           "vm_vsrc": (2, 3), "va_vcc": (1, 1), "sa_sdst": (0, 1)}  # fmt: skip


def depctr(one: Issued) -> dict[str, int]:
    """The fields of ``s_waitcnt_depctr`` and ``s_wait_alu``: by number or as depctr_...(n).

    https://llvm.org/docs/AMDGPU/gfx11_waitcnt_depctr.html
    """
    named = {name: int(n) for name, n in re.findall(r"depctr_(\w+)\((\d+)\)", one.ins.text)}
    most = {name: (1 << bits) - 1 for name, (_, bits) in _DEPCTR.items()}
    if named or not one.ins.operands or not isinstance(one.ins.operands[0].value, int):
        return {**most, **named}
    value = one.ins.operands[0].value
    return {name: value >> at & ((1 << bits) - 1) for name, (at, bits) in _DEPCTR.items()}


# -- the tables -----------------------------------------------------------------------------------
_CDNA = (
    _rule("a vector instruction's scalar result in a memory access", 5, _vector_scalars,
          _vmem_scalars),
    _rule("a vector instruction's scalar result as the number of a lane", 4, _vector_scalars,
          _lane_select),
    _rule("a vector instruction's VCC in v_div_fmas", 4, _vector_vcc, _div_fmas),
    _rule("EXEC of a vector instruction in a lane permutation", 5, _vector_exec, _dpp_exec),
    _rule("a result in a lane permutation", 2, lambda one: one.vector_writes, _dpp_vectors),
    _rule("a hardware register that was set", 2, _sets_hardware, _uses_hardware),
    _rule("M0 of a scalar instruction", 1, _scalar_m0, _reads_m0),
    _rule("EXEC of a vector instruction in a matrix product", 4, _vector_exec, _mfma_exec),
    _rule("a result in a matrix product", 2, _not_dot_vectors, _mfma_reads),
    Rule("the result of a matrix product", 20, product, touches_product, after_product),
    Rule("the accumulator of a matrix product, overwritten", 15, accumulator_read,
         lambda one: () if one.mfma else _vector_writes(one), overwrites_accumulator),
    Rule("the result of a dot product", 3, dot_result,
         lambda one: () if one.mfma else _vector_touches(one), after_dot),
)  # fmt: skip
_VECTORS = "vector instructions"
_STORED = "the data of a store, overwritten"
_CDNA2 = (*_CDNA, _rule(_STORED, 1, _wide_store, _vector_writes))
_CDNA3 = (
    *_CDNA,
    _rule(_STORED, 2, _wide_store, _vector_writes),
    _rule("a transcendental result", 1, _trans_vectors, _not_trans_reads),
    _rule("a result in the upper part of a register", 1, _partial_result, _vector_touches),
    _rule("a vector instruction's scalar result", 2, _vector_scalars, _vector_scalar_reads),
    _rule("a result read by lane", 1, _vector_vectors, _read_lane),
    _rule(
        "EXEC of a vector instruction in a read or write by lane", 4, _vector_exec, _any_lane_exec
    ),
)
_CDNA4 = (
    *_CDNA3,
    _rule("a result in a swap of lanes", 2, _vector_vectors, _permlane_swap),
    _rule("EXEC of a vector instruction in a swap of lanes", 4, _vector_exec, _permlane_exec),
)
_RDNA = (
    # https://github.com/ROCm/llvm-project/blob/amd-staging/llvm/lib/Target/AMDGPU/SIInsertWaitcnts.cpp
    _rule("what comes before the vector registers are given back", 1, _not_a_nop, _gives_back),
    Rule("a register of a vector instruction in a direct load from LDS", 15, _vector_touches,
         _loaded_directly, _direct_wait, _two_counts, _all_plain, _waits_for_vectors, _VECTORS,
         _cut_counts),
    Rule("the result of a matrix product as a factor", 1, _wmma_result, _wmma_factors,
         lambda *_: 1, _vector_instructions, unit=_VECTORS),
)  # fmt: skip
_RDNA3 = (
    *_RDNA,
    Rule("EXEC of a comparison in a permutation of lanes", 1, _vector_exec, _permlane_old,
         lambda *_: 1, _vector_instructions, unit=_VECTORS),
)  # fmt: skip
_TRANS_USE = Rule("a transcendental result", 6, _trans_vectors, _vector_reads, lambda *_: 6,
                  _two_counts, _both_counts, _waits_for_vectors, _VECTORS, _cut_counts)  # fmt: skip
_RULES = {
    "CDNA2": _CDNA2,
    "CDNA3": _CDNA3,
    "CDNA4": _CDNA4,
    # What gfx1250 asks for is in no manual yet: nothing is checked.
    "CDNA5": (),
    "RDNA3": (*_RDNA3, _TRANS_USE),
    "RDNA3.5": _RDNA3,
    "RDNA4": _RDNA,
}
