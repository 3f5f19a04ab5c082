"""What is counted in a kernel's assembly text."""

from __future__ import annotations

import pytest

from conformance.devices.resources import resources_of
from conformance.devices.targets import target_facts

_SCALED = (
    "v_mfma_scale_f32_16x16x128_f8f6f4 v[2:5], v[14:17], v[2:9], 0, v28, v31 op_sel_hi:[0,0,0]"
)
_WMMA = "v_wmma_f32_16x16x128_f8f6f4 v[0:7], v[8:19], v[20:27], v[0:7]"


@pytest.mark.parametrize(
    ("instruction", "on_fp8"),
    [
        ("v_cvt_pk_f32_fp8 v[0:1], v2", True),
        ("v_mfma_f32_16x16x32_bf8_fp8 v[0:3], v[4:5], v[6:7], v[0:3]", True),
        ("v_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]", False),
        (_SCALED, True),
        (f"{_SCALED} cbsz:1 blgp:1", True),
        (f"{_SCALED} cbsz:4", True),
        (f"{_SCALED} blgp:2", True),
        (f"{_SCALED} cbsz:4 blgp:4", False),
        (f"{_SCALED} cbsz:2 blgp:3", False),
        (_WMMA, True),
        (f"{_WMMA} matrix_a_fmt:MATRIX_FMT_BF8 matrix_b_fmt:MATRIX_FMT_FP4", True),
        (f"{_WMMA} matrix_a_fmt:MATRIX_FMT_BF6 matrix_b_fmt:MATRIX_FMT_FP4", False),
    ],
)
def test_an_operand_of_any_format_is_fp8_unless_it_says_another(
    instruction: str, on_fp8: bool
) -> None:
    counted = resources_of(f"\t{instruction}\n", 0, 4, target_facts("gfx950")).fp8
    assert counted == int(on_fp8)
