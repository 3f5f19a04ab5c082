"""The page of speed is what its record says, and says what is slower and what was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.benchmarks import kernels
from conformance.benchmarks.kernels import Timing
from conformance.benchmarks.page import OURS, Record, page, picture
from conformance.benchmarks.tiles import PerTile, kind_of
from conformance.benchmarks.workloads import LAUNCHED, workloads
from conformance.cli import run_cli
from conformance.commands import bench
from conformance.errors import ExitCode

PAGES = Path(__file__).parents[2] / "docs" / "reference"
FIRST = next(workloads()).name


def timing(kernel: str, microseconds: float, workload: str = FIRST) -> Timing:
    return Timing(workload, kernel, 2 * microseconds, microseconds, 50.0, 1.0, 1.0)


def record(*timings: Timing) -> Record:
    return Record("a GPU", "torch", 4e12, timings)


def test_the_committed_page_is_what_its_record_says(tmp_path: Path) -> None:
    source = str(PAGES / "speed.json")
    assert run_cli(["bench-kernels", "--from", source, "--write", str(tmp_path)]) == 0
    for name in ("speed.json", "speed.md", "speed.svg"):
        assert (tmp_path / name).read_text() == (PAGES / name).read_text(), name


def test_a_faster_kernel_of_vllm_is_named() -> None:
    ours, theirs = timing("ROCM_ATTN", 12.0), timing("vLLM 0.33.0", 10.0)
    assert f"- ROCM_ATTN at {FIRST}" in page(record(ours, theirs))
    assert "No kernel of vLLM is faster" in page(record(replace(ours, replayed=9.0), theirs))


def test_gain_is_of_the_fastest_on_either_side() -> None:
    text = page(record(timing("ROCM_ATTN", 40), timing("TRITON_ATTN", 25),
                       timing("vLLM 0.19.0", 80), timing("vLLM 0.33.0", 50)))  # fmt: skip
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {FIRST} "))
    assert row.split("|")[-2].strip() == "2.00"


def test_what_was_not_measured_is_said() -> None:
    others = [workload.name for workload in workloads()][1:]
    assert f"Not in this record: {'; '.join(others)}." in page(record(timing("ROCM_ATTN", 1)))


def test_a_kernel_that_failed_has_no_time() -> None:
    failed = replace(timing("vLLM 0.33.0", 0), failed="RuntimeError: no")
    text = page(record(timing("ROCM_ATTN", 40), failed))
    assert "No kernel of vLLM is faster" in text
    assert "| 0.0 |" not in text


def test_what_a_launch_costs_is_said_where_it_was_measured() -> None:
    launched = timing("ROCM_ATTN", 40, LAUNCHED)
    assert "| ROCM_ATTN | 50 |" in page(record(launched))
    text = page(record(replace(launched, host=0.0)))
    assert "| ROCM_ATTN | 0 |" not in text
    assert "Not in this record: a core's time" in text


def test_the_picture_has_a_dot_for_every_time() -> None:
    given = record(timing("ROCM_ATTN", 10), timing("vLLM 0.33.0", 400))
    shown = picture(given)
    assert shown.count("<title>ROCM_ATTN: 10.0 us") == 1
    assert shown.count("<title>vLLM 0.33.0: 400.0 us") == 1


def test_counts_are_on_the_page() -> None:
    counts = PerTile("gfx942", "decode", "ROCM_ATTN: a_kernel", "rows 16", {"matrix": 1234.0})
    text = page(replace(record(timing("ROCM_ATTN", 1)), tiles=(counts,)))
    assert "| gfx942 | decode | ROCM_ATTN: a_kernel | rows 16 | 1,234 |" in text


def test_measuring_anew_keeps_what_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = PerTile("gfx942", "decode", "ROCM_ATTN: a_kernel", "rows 16", {"matrix": 1234.0})
    there = replace(record(timing("ROCM_ATTN", 1)), tiles=(counts,))
    (tmp_path / "speed.json").write_text(json.dumps(there.as_json()))
    monkeypatch.setattr(bench, "_measured", lambda *_: record(timing("ROCM_ATTN", 7)))
    assert run_cli(["bench-kernels", "--write", str(tmp_path)]) == 0
    written = Record.of(json.loads((tmp_path / "speed.json").read_text()))
    assert written.tiles == (counts,)
    assert [t.replayed for t in written.timings] == [7]


def test_every_backend_of_ours_is_a_column_somewhere() -> None:
    said = json.loads((PAGES / "speed.json").read_text())
    assert {t["kernel"] for t in said["timings"]} >= set(OURS)


@pytest.mark.parametrize(
    ("mnemonic", "kind"),
    [
        ("v_mfma_f32_16x16x16_bf16", "matrix"),
        ("v_wmma_f32_16x16x16_f16", "matrix"),
        ("ds_read_b128", "LDS"),
        ("ds_load_b128", "LDS"),
        ("global_load_dwordx4", "global"),
        ("buffer_load_b64", "global"),
        ("scratch_store_dword", "scratch"),
        ("v_exp_f32_e32", "exp"),
        ("s_waitcnt", "waits"),
        ("s_wait_loadcnt", "waits"),
        ("s_barrier", "waits"),
        ("s_load_dwordx2", "scalar"),
        ("v_add_f32_e32", "vector"),
    ],
)
def test_kinds_of_instructions(mnemonic: str, kind: str) -> None:
    assert kind_of(mnemonic) == kind


def test_what_is_no_record_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"gpu": 1}')
    assert run_cli(["bench-kernels", "--from", str(other)]) == ExitCode.USAGE
    assert "is no record of bench-kernels" in capsys.readouterr().err
    assert run_cli(["bench-kernels", "--from", str(other), "--only", "x"]) == ExitCode.USAGE
    assert "say nothing of what to measure" in capsys.readouterr().err


def test_no_workload_is_begun_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []
    clock = iter(range(1000))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(kernels, "set_up", lambda workload: workload)
    monkeypatch.setattr(kernels, "kernels", lambda *_: iter(()))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(kernels.measure({}, began.append, seconds=3)) == []
    assert began == [workload.name for workload in workloads()][:2]


def test_kernels_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [("ROCM_ATTN", print), ("torch flash", print), ("torch flex_attention", print)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(kernels, "set_up", lambda workload: workload)
    monkeypatch.setattr(kernels, "kernels", lambda *_: iter(named))
    monkeypatch.setattr(kernels, "_timing", lambda workload, name, _: (workload.name, name))
    found = [*kernels.measure({}, print, FIRST, "flex")]
    assert [str(one) for one in found] == [str((FIRST, n)) for n in ("ROCM_ATTN", "torch flash")]


@pytest.mark.slow
def test_what_a_target_executes_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["bench-tiles", "--gpu", "MI300X", "--format", "json"]) == 0
    found = {(t["workload"], t["kernel"]): t["counts"] for t in json.loads(capsys.readouterr().out)}
    counts = found["decode, 8/2 x 128", "TRITON_ATTN: unified_kernel"]
    # 16 rows by 64 keys by 128 columns, twice: 64 products of 16 x 16 x 16.
    assert counts["matrix"] >= 64
    # Keys and values are 32 KiB, of which a wave loads 1 KiB with one instruction.
    assert 32 <= counts["global"] <= 64 + 32
    assert ("MLA decode, 16 heads", "TRITON_MLA: latent_kernel") in found
