"""The instructions that compiled attention holds, and that the emulator knows each of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.commands.machine_checks import _emulated
from conformance.devices.isa import emitted as module
from conformance.devices.isa.emitted import Emitted, emitted, gathered, main, merged
from conformance.devices.isa.instructions.table import TABLE

ONE = """
\t.amdgcn_target "amdgcn-amd-amdhsa--gfx1100"
k:
\tv_dual_mov_b32 v0, v1 :: v_dual_add_f32 v2, v3, v4
\tv_cmp_gt_f32_e64 s0, v1, v2   ; a comment
\tv_frobnicate_b32_e32 v0, v1
\ts_endpgm
\t.amdhsa_kernel k
"""
NAMES = {"v_mov_b32", "v_add_f32", "v_cmp_gt_f32", "v_frobnicate_b32", "s_endpgm"}


def test_every_instruction_of_compiled_attention_is_known() -> None:
    assert {"gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201", "gfx1250"} == {
        *emitted()
    }
    assert {target: row.unknown for target, row in emitted().items() if row.unknown} == {}
    assert all(len(row.instructions) > 100 for row in emitted().values())


def test_what_a_kernel_holds() -> None:
    found = gathered([ONE, ONE, "no kernel", ONE.replace("gfx1100", "gfx942")])
    assert found["gfx1100"] == Emitted(1, frozenset(NAMES))
    assert found["gfx1100"].unknown == ["v_frobnicate_b32"]
    assert {*found} == {"gfx1100", "gfx942"}
    again = merged(found, {"gfx942": Emitted(5, frozenset({"s_nop"}))})
    assert again["gfx942"] == Emitted(5, frozenset(NAMES | {"s_nop"}))


def test_a_list_is_made_from_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "k.amdgcn").write_text(ONE)
    (tmp_path / "k.txt").write_text(ONE.replace("gfx1100", "gfx942"))
    monkeypatch.setattr(module, "TABLE_FILE", tmp_path / "emitted.json")
    main([str(tmp_path), "--write"])
    assert json.loads((tmp_path / "emitted.json").read_text()) == {
        "gfx1100": {"kernels": 1, "instructions": sorted(NAMES)}
    }
    assert "5 instructions, unknown: v_frobnicate_b32" in capsys.readouterr().out


def test_what_is_not_emulated_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(check.ok and "in all" in check.found for check in _emulated())
    monkeypatch.delitem(TABLE, "v_exp_f32")
    told = [check for check in _emulated() if not check.ok]
    assert told and all(check.advice == "not emulated: v_exp_f32" for check in told)
