"""Every instruction of the tables in native code against the interpreter: equal bits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from conformance.devices.isa.instructions.table import SILENT, TABLE
from conformance.devices.isa.memory import raw_buffer
from conformance.devices.isa.native import lower
from conformance.devices.isa.target import IsaTarget
from tests.emulator.native import texts
from tests.emulator.native.differ import DESCRIPTORS, Difference, differences, is_nan, usable
from tests.emulator.native.texts import FORMS, GFX942

ARITHMETIC, MATRICES, MEMORY = texts.arithmetic(), texts.matrices(), texts.memory()
# What is interpreted, and why it may be: rare, or outside the loops of attention.
INTERPRETED = {
    "v_sin_f32",
    "v_cos_f32",
    "v_sin_f16",
    "v_cos_f16",
    *(f"v_{name}_f64" for name in ("fma", "fmac", "ldexp", "div_scale", "div_fmas")),
    "v_frexp_mant_f64",
    "v_frexp_exp_i32_f64",
    "v_ldexp_f16",
    "s_brev_b32",
    "s_brev_b64",
    "ds_permute_b32",
    *(f"v_cvt_pk_{kind}_f32" for kind in ("fp8", "bf8")),
    *(f"v_cvt_scalef32_pk_{k}_{t}" for k in ("fp8", "bf8") for t in ("f32", "f16", "bf16")),
}
# Results that may be NaNs of 16 bits, whose payloads may differ like those of 32.
_HALVES = re.compile(r"f16|bf16|_pk_|mix|minmax|dot2")


def wrong(found: Iterator[Difference]) -> list[Difference]:
    """Differences but for the payloads and signs of NaNs, which LLVM leaves open."""
    return [one for one in found if not _is_payload(one)]


def _is_payload(one: Difference) -> bool:
    both = (one.interpreted, one.native)
    if all(bits & 0x7FFFFFFF > 0x7F800000 for bits in both):
        return True
    if not _HALVES.search(one.text) or "mfma" in one.text or "wmma" in one.text:
        return False
    halves = [(both[0] >> s & 0xFFFF, both[1] >> s & 0xFFFF) for s in (0, 16)]
    return all(a == b or (is_nan(a) and is_nan(b)) for a, b in halves)


def _ids(target: Any) -> str:
    return str(getattr(target, "name", target))


@pytest.mark.parametrize("mode", [mode for mode in DESCRIPTORS if mode != "rounds"])
@pytest.mark.parametrize("target", ARITHMETIC, ids=_ids)
def test_arithmetic(target: IsaTarget, mode: str) -> None:
    asked = list(dict.fromkeys([*ARITHMETIC[target], *FORMS.get(target, [])]))
    native, whys = usable(asked, target, mode)
    assert {text.split()[0] for text in whys} <= INTERPRETED, whys
    assert wrong(differences(native, target, mode=mode)) == []


@pytest.mark.parametrize("target", ARITHMETIC, ids=_ids)
def test_arithmetic_that_is_rounded_otherwise(target: IsaTarget) -> None:
    """Most of it: how floats are rounded up or towards zero is interpreted."""
    native, _ = usable(ARITHMETIC[target], target, "rounds")
    assert 2 * len(native) >= len(ARITHMETIC[target])
    assert wrong(differences(native, target, mode="rounds")) == []


def test_what_is_interpreted_is_listed() -> None:
    """The list above names nothing that has native code by now."""
    whys = {text.split()[0] for t, asked in ARITHMETIC.items() for text in usable(asked, t)[1]}
    assert whys == INTERPRETED


def test_every_instruction_is_asked() -> None:
    """But atomics, transposing reads and loads to LDS, which are interpreted."""
    asked = texts.names_of(ARITHMETIC) | texts.names_of(MEMORY) | texts.names_of(MATRICES)
    silent = re.compile(r"atomic|_lds_|_tr\d*_|^ds_.*_(rtn|[iuf]32|b32|xor)")
    rest = {name for name in TABLE if not silent.search(name)}
    left = {n for n in rest - asked - SILENT if not n.startswith(("ds_", "s_"))}
    assert left == set()


@pytest.mark.parametrize("target", MATRICES, ids=_ids)
def test_matrices(target: IsaTarget) -> None:
    """Of the long products with many formats, two: each is a function of thousands of steps."""
    asked = [t for t in MATRICES[target] if "f8f6f4" not in t or t.endswith("99], 0 cbsz:1")]
    native, whys = usable(asked, target)
    assert whys == {}
    assert wrong(differences(native, target, rounds=4)) == []


def test_a_constant_accumulator_is_interpreted() -> None:
    _, whys = usable(["v_mfma_f32_32x32x8_f16 v[16:31], v[0:1], v[2:3], 1.0"], GFX942)
    assert "constant other than 0" in next(iter(whys.values()))


@pytest.mark.parametrize("target", MEMORY, ids=_ids)
def test_memory(target: IsaTarget) -> None:
    native, whys = usable(MEMORY[target], target)
    assert whys == {}
    draw = np.random.default_rng(5)
    data = [draw.integers(0, 256, 1 << 14, dtype=np.uint8) for _ in range(2)]
    buffers = [raw_buffer("one", int(d.ctypes.data), d.nbytes) for d in data]

    def fill(m: Any, generator: Any) -> None:
        """Addresses in LDS, in both buffers, and past what the descriptor lets through."""
        lanes = m.vector[0].shape
        chosen = generator.integers(0, 2, lanes)
        offset = generator.integers(16, 3000, lanes) * 4
        wide = np.where(chosen == 1, buffers[0].start, buffers[1].start) + offset
        m.vector[4], m.vector[5] = wide & 0xFFFFFFFF, wide >> 32
        for at, address in ((20, buffers[0].start), (12, buffers[1].start + 64)):
            m.scalar[at], m.scalar[at + 1] = address & 0xFFFFFFFF, address >> 32
        m.scalar[22], m.scalar[24] = 9000, 12

    def near(m: Any, generator: Any) -> None:
        fill(m, generator)
        m.vector[4] = generator.integers(0, 3000, m.vector[4].shape) * 4

    far = [t for t in native if t.startswith(("global", "flat", "s_load"))]
    close = [t for t in native if t not in far]
    assert wrong(differences(far, target, fill=fill, buffers=buffers)) == []
    assert wrong(differences(close, target, fill=near, buffers=buffers)) == []


@pytest.mark.parametrize("text", [
    "ds_bpermute_b32 v24, v11, v20;ds_bpermute_b32 v25, v11, v21;ds_bpermute_b32 v24, v12, v24",
    "v_cmp_lt_u32_e32 vcc, v1, v2;s_and_b64 s[4:5], vcc, exec;v_cndmask_b32_e64 v3, v4, v5, s[4:5]",
    "v_add_u32_e32 v1, s4, v2;s_add_u32 s4, s4, 1;v_add_u32_e32 v3, s4, v2",
    "v_cmp_gt_i32_e64 s[4:5], v1, v2;s_mov_b32 s5, 0;v_cndmask_b32_e64 v3, v4, v5, s[4:5]",
    "v_readfirstlane_b32 s3, v1;v_add_u32_e32 v1, s3, v1;v_readfirstlane_b32 s3, v1",
    "s_and_saveexec_b64 s[4:5], vcc;v_mov_b32_e32 v1, v2;s_or_b64 exec, exec, s[4:5];"
    "v_mov_b32_e32 v3, v1",
    "v_writelane_b32 v1, s3, 4;v_readlane_b32 s4, v1, 4;v_add_f32_dpp v1, v1, v1 row_bcast:15",
    "v_add_f32_e32 v1, v1, v2;v_mfma_f32_32x32x8_f16 v[16:31], v[0:1], v[2:3], 0;"
    "v_add_f32_e32 v16, v1, v17",
    "v_mov_b32_e32 v4, v1;v_mov_b32_e32 v1, v2;v_mov_b32_e32 v2, v4;v_swap_b32 v1, v4",
])  # fmt: skip
def test_sequences(text: str) -> None:
    """What one instruction leaves for the next, in a region and across its end."""
    native, whys = usable([text], GFX942)
    assert whys == {}
    assert wrong(differences(native, GFX942, rounds=16)) == []


@pytest.mark.parametrize(("name", "instead", "text"), [
    ("add", ("sub", "fadd"), "v_add_u32_e32 v0, v1, v2"),
    ("multiply", ("mul", "fadd"), "v_mul_f32_e32 v0, v1, v2"),
    ("bitwise_and", ("or", ""), "s_and_b32 s0, s1, s2"),
])  # fmt: skip
def test_a_wrong_lowering_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: tuple[str, str], text: str
) -> None:
    monkeypatch.setitem(lower._BINARY, name, instead)
    assert wrong(differences([text], GFX942)) != []


def test_a_payload_is_not_mistaken_for_a_value() -> None:
    def one(text: str, a: int, b: int) -> list[Difference]:
        return wrong(iter([Difference(text, "vector[0, 0, 0]", a, b)]))

    assert one("v_add_f32 v0, v1, v2", 0x7FC00000, 0xFFC00001) == []
    assert one("v_add_f32 v0, v1, v2", 0x4C84FECC, 0x4C84FECB) != []
    assert one("v_pk_add_f16 v0, v1, v2", 0x7E003C00, 0xFE003C00) == []
    assert one("v_pk_add_f16 v0, v1, v2", 0x7E003C00, 0xFE003C01) != []
