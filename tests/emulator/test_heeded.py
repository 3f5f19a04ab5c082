"""A modifier that nothing heeds is refused: a result without it would be another's."""

from __future__ import annotations

import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.heeded import Heeded, without
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.target import IsaTarget, UnknownError
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100

REFUSED = [
    (GFX942, "v_dot2_f32_f16 v0, v1, v2, v3 neg_lo:[1,0,0]", "modifier neg_lo"),
    (GFX942, "v_dot4_i32_i8 v0, v1, v2, v3 neg_lo:[1,0,0]", "modifier neg_lo"),
    (GFX942, "v_dot2_f32_f16 v0, v1, v2, v3 op_sel:[1,0,0]", "modifier op_sel"),
    (GFX942, "v_cvt_pk_fp8_f32 v0, v1, v2 clamp", "modifier clamp"),
    (GFX942, "v_add_u32_e32 v0, v1, v2 frobnicate:3", "modifier frobnicate:3 of v_add_u32_e32"),
    (GFX942, "v_and_b32_e32 v0, v1, v2 src0_sel:BYTE_1 dst_sel:DWORD hm", "modifier hm"),
    (GFX942, "global_load_dword v0, v1, s[2:3] tfe", "modifier tfe"),
    (GFX942, "ds_read_b32 v0, v1 gds", "modifier gds"),
    (GFX942, "s_load_dword s0, s[2:3], 0x0 imm", "modifier imm"),
    (GFX1100, "v_fma_mix_f32 v0, v1, v2, v3 neg_hi:[1,0,0]", "modifier neg_hi"),
    (GFX942, "v_cvt_f32_fp8_e32 v0, -v1", "the sign of -v1"),
    (GFX942, "v_pk_add_f16 v0, -v1, v2", "the sign of -v1"),
    (GFX942, "v_readfirstlane_b32 s0, -v1", "the sign of -v1"),
    (GFX950, "v_cvt_scalef32_pk_fp8_f16 v0, -v1, v2", "the sign of -v1"),
]
HEEDED = [
    (GFX942, "v_add_f32_e64 v0, -v1, |v2| clamp mul:2"),
    (GFX942, "v_and_b32_sdwa v0, v1, v2 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_1 "
             "src1_sel:DWORD"),
    (GFX942, "v_dot2_f32_f16 v0, v1, v2, v3 op_sel_hi:[1,1,1]"),
    (GFX942, "global_load_dword v0, v1, s[2:3] offset:16 sc0 nt sc1"),
    (GFX942, "v_mov_b32_dpp v0, v1 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:0"),
    (GFX942, "s_waitcnt vmcnt(0)"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "text", "what"), REFUSED)
def test_what_nothing_heeds_is_refused(target: IsaTarget, text: str, what: str) -> None:
    with pytest.raises(UnknownError) as raised:
        build_step(parse_instruction(text), target)
    assert what in str(raised.value)


@pytest.mark.parametrize(("target", "text"), HEEDED)
def test_what_is_heeded_or_changes_no_result_is_taken(target: IsaTarget, text: str) -> None:
    build_step(parse_instruction(text), target)


def test_what_is_left_of_modifiers_remembers_for_the_whole() -> None:
    whole = Heeded({"clamp": "", "op_sel": "[1,0]", "neg_lo": "[1,0]"})
    rest = without(whole, "clamp")
    assert rest == {"op_sel": "[1,0]", "neg_lo": "[1,0]"}
    assert "op_sel" in rest and "mul" not in rest
    assert whole.asked == {"clamp", "op_sel", "mul"}
    assert without({"clamp": "", "mul": "2"}, "clamp") == {"mul": "2"}
