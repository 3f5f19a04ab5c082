"""An instruction of every name in the emulator's tables, by target, for tests of native code."""

from __future__ import annotations

import re
from collections import defaultdict

from conformance.devices.isa.instructions.table import TABLE, base_name
from conformance.devices.isa.target import IsaTarget
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1201
from tests.emulator.isa_model import VECTOR
from tests.emulator.isa_model.scalars import SAVE_EXEC, SCALAR
from tests.emulator.test_dpp import MOVES, PERMUTATIONS, SWAPS
from tests.emulator.test_matrix import A, B, C, D, mfma, span, wmma
from tests.emulator.test_scalar import text_of
from tests.emulator.test_vector import asked_of

_WORDS = {"dword": 1, "dwordx2": 2, "dwordx3": 3, "dwordx4": 4, "dwordx8": 8, "dwordx16": 16}
_WORDS |= {f"b{32 * words}": words for words in (1, 2, 3, 4, 8, 16)}


def arithmetic() -> dict[IsaTarget, list[str]]:
    """Instructions on registers alone: vector, scalar, between lanes, with modifiers."""
    found: dict[IsaTarget, list[str]] = defaultdict(list)
    for name in VECTOR:
        for asked in asked_of(name):
            found[asked.target].append(asked.text)
    for name, row in SCALAR.items():
        found[GFX942].append(text_of(name, row))
    for name in SAVE_EXEC:
        found[GFX942].append(f"s_{name}_saveexec_b64 s[0:1], s[2:3]")
        found[GFX1100].append(f"s_{name}_saveexec_b32 s0, s2")
    for name, (text, target, _) in MOVES.items():
        found[target].append(f"{name} {text}")
    for name, (target, _) in SWAPS.items():
        found[target].append(f"{name} v0, v1")
    found[GFX942] += ["v_readfirstlane_b32 s0, v1", "v_readlane_b32 s0, v1, s20"]
    found[GFX942] += ["v_writelane_b32 v1, s0, s20", "v_readlane_b32 s3, v2, 5"]
    found[GFX942] += [text for text, *_ in PERMUTATIONS if isinstance(text, str)]
    return found


# Modifiers, constants and forms that the tables above do not spell.
FORMS: dict[IsaTarget, list[str]] = {
    GFX942: [
        "v_add_f32_e64 v0, -v1, |v2|",
        "v_fma_f32 v0, v1, -v2, v3 clamp",
        "v_mul_f32_e64 v0, v1, v2 mul:2",
        "v_add_u32_e64 v0, v1, v2 clamp",
        "v_add_f32_dpp v1, v1, v1 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1",
        "v_add_f32_dpp v1, v1, v2 row_bcast:15 row_mask:0xa bank_mask:0xf",
        "v_mov_b32_dpp v1, v2 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf",
        "v_max_f32_dpp v3, v1, v2 row_ror:8 row_mask:0xf bank_mask:0xf",
        "v_add_f32_sdwa v0, v1, v2 dst_sel:DWORD src0_sel:WORD_1 src1_sel:DWORD",
        "v_or_b32_sdwa v0, v1, v2 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE "
        "src0_sel:DWORD src1_sel:BYTE_0",
        "v_perm_b32 v0, v1, v2, 0x07060302",
        "v_cndmask_b32_e64 v0, v1, 1.0, s[4:5]",
        "v_cmp_gt_f32_e32 vcc, v1, v2",
        "v_cmpx_lt_i32_e64 s[4:5], v1, v2",
        "v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[6:7] op_sel_hi:[1,0,1] neg_lo:[0,0,1]",
        "v_pk_mul_f16 v0, v1, v2 op_sel_hi:[0,1]",
        "v_accvgpr_write_b32 a3, v1",
        "v_accvgpr_read_b32 v1, a3",
        "s_mov_b64 exec, -1",
        "s_cselect_b64 s[0:1], -1, 0",
        "s_mov_b32 m0, s3",
        "v_mov_b32_e32 v0, src_scc",
    ],
    GFX1100: [
        "v_dual_mul_f32 v0, v1, v2 :: v_dual_mov_b32 v3, v0",
        "v_add_f32_e64_dpp v1, v1, v2 row_xmask:3 row_mask:0xf bank_mask:0xf",
        "v_mov_b32_dpp v1, v2 dpp8:[7,6,5,4,3,2,1,0]",
        "v_add_nc_u16 v0.h, v1.l, v2.h",
        "v_fma_mix_f32 v0, v1, v2, v3 op_sel_hi:[1,0,1] op_sel:[1,0,0]",
        "v_cmp_lt_u32_e32 vcc_lo, v1, v2",
        "v_cmpx_gt_f32_e32 v1, v2",
        "v_permlanex16_b32 v0, v1, s21, s22",
    ],
}  # fmt: skip


def matrices() -> dict[IsaTarget, list[str]]:
    """Matrix instructions, with a register and with 0 as C."""
    found: dict[IsaTarget, list[str]] = defaultdict(list)
    for one in (*mfma(), *wmma()):
        sizes = [{"f32": 4, "f16": 2, "bf16": 2}.get(kind, 1) for kind in one.kinds]
        a, b = (
            span(first, one.held * size // 4) for first, size in zip((A, B), sizes, strict=True)
        )
        text = f"{one.name} {span(D, one.results)}, {a}, {b}"
        found[one.target] += [f"{text}, {span(C, one.results)}{one.more}", f"{text}, 0{one.more}"]
    return found


def memory() -> dict[IsaTarget, list[str]]:
    """Loads and stores of every width: addresses in v4, s[20:23] or s[12:13], data in v8."""
    found: dict[IsaTarget, list[str]] = defaultdict(list)
    for name in sorted(TABLE):
        text = _access(name)
        if text is not None:
            found[GFX942].append(text)
            if "b32" in name or "u16" in name:
                found[GFX1201].append(text)
    return found


def _access(name: str) -> str | None:
    words = next((n for k, n in _WORDS.items() if name.endswith("_" + k)), 1)
    data = f"v[8:{7 + words}]" if words > 1 else "v8"
    space, _, kind = name.partition("_")
    if re.search(r"atomic|_tr\d*_|_lds|xchg", name):
        return None
    if name.startswith("s_load"):
        out = f"s[32:{31 + words}]" if words > 1 else "s32"
        return f"{name} {out}, s[12:13], 0x10"
    if space in ("buffer", "global", "flat"):
        place = {"buffer": "v4, s[20:23], s24", "global": "v[4:5], off", "flat": "v[4:5]"}[space]
        more = "offen offset:8" if space == "buffer" else "offset:16"
        if "store" in kind and space != "buffer":
            address, comma, rest = place.partition(", ")
            return f"{name} {address}, {data}{comma}{rest} {more}"
        return f"{name} {data}, {place} {more}"
    if space == "scratch":
        return f"{name} {data}, off offset:4" if "load" in kind else f"{name} off, {data} offset:4"
    return _lds_access(name, kind, data, words) if space == "ds" else None


def _lds_access(name: str, kind: str, data: str, words: int) -> str | None:
    verb = kind.partition("_")[0]
    two = verb in ("read2", "write2", "read2st64", "write2st64") or "2addr" in kind
    if not verb.startswith(("read", "write", "load", "store")):
        return None
    if two:
        out = f"v[8:{7 + 2 * words}]"
        more = "v[12:13]" if words > 1 else "v12"
        rest = "offset0:1 offset1:5"
        if verb.startswith(("read", "load")):
            return f"{name} {out}, v4 {rest}"
        return f"{name} v4, {data}, {more} {rest}"
    if verb.startswith(("read", "load")):
        return f"{name} {data}, v4 offset:16"
    return f"{name} v4, {data} offset:16"


def names_of(texts: dict[IsaTarget, list[str]]) -> set[str]:
    return {base_name(text.partition(" ")[0]) for found in texts.values() for text in found}


__all__ = ["FORMS", "GFX942", "GFX950", "GFX1100", "arithmetic", "matrices", "memory", "names_of"]
