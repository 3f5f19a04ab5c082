"""Compiled kernels, executed: right where they are right, caught where a fault was planted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.devices.isa.instructions.table import is_known
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.devices.targets import TARGETS as FACTS
from conformance.matrix.targets import target
from conformance.results.codegen_table import (
    COLUMNS,
    as_markdown,
    differences,
    dump,
    load_baseline,
    rows_of,
    summary,
)
from conformance.suites.codegen.findings import Compiled, findings
from tests.support.some import one_in

PROGRAM = Path(__file__).with_name("isa_kernels.py")
# Six small kernels and two products; what each must come to is in the program.
EXPECTED = {
    "add",
    "softmax",
    "matmul_fp16",
    "matmul_bf16",
    "matmul_fp32",
    "matmul_64",
    "histogram",
    "collatz",
}


@pytest.fixture(scope="session")
def triton_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("triton"))


def launch(cache: str, *words: str, program: Path = PROGRAM) -> list[dict[str, Any]]:
    """The JSON lines of one process, which runs one target."""
    env = {**os.environ, "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


# `make isa` runs attention on the other four targets.
@pytest.mark.parametrize("name", one_in(2, ["gfx90a", "gfx1151"]))
def test_kernels_compute_what_they_should(name: str, triton_cache: str) -> None:
    devices = f"isa:{name}+isa:{name},serial,poison,seed=7"
    lines = launch(triton_cache, devices, "all", "hazards")
    assert {line["kernel"] for line in lines} == EXPECTED
    assert len(lines) == 2 * len(EXPECTED)
    for line in lines:
        assert line.get("error", line) <= 1, line
        for kernel in line["kernels"]:
            assert kernel["wave_instructions"] > 0
            assert 0 < kernel["executed"] <= kernel["instructions"]
    cuts = hazards_of(lines)
    assert len(cuts) > (20 if name == "gfx90a" else 0) and all(cuts)


def hazards_of(lines: list[dict[str, Any]]) -> list[int]:
    """How many hazards each s_nop of the compiler prevents; its own code has none."""
    planted = [one for line in lines for one in line["planted"].values()]
    assert planted and all(one["found"] == [] for one in planted)
    return [count for one in planted for count in one["cuts"]]


def test_every_nop_of_the_compiler_is_needed(triton_cache: str) -> None:
    cuts = hazards_of(launch(triton_cache, "aot:gfx942", "softmax", "hazards"))
    assert len(cuts) > 10 and all(cuts)


# (device, kernel, fault, what shows it: an error, or words of the message)
FAULTS = [
    ("isa:gfx942,serial", "softmax", "no_barrier", "wrong"),
    ("isa:gfx1201,serial", "softmax", "no_barrier", "wrong"),
    ("isa:gfx942", "add", "off_by_one", "4 bytes past the end of out"),
    ("isa:gfx942", "matmul_fp16", "swapped_operands", "wrong"),
    ("isa:gfx1100", "matmul_fp16", "swapped_operands", "wrong"),
    ("isa:gfx942,poison", "add", "uninitialised", "wrong"),
    ("isa:gfx942", "overrun", "", "lane 40: buffer_store_dword"),
    ("isa:gfx1201", "overrun", "", "isa_kernels.py:"),
    ("isa:gfx942", "add", "unknown_instruction", "v_frobnicate_b32"),
    ("isa:gfx1201", "add", "lds=65792", "OutOfResources"),
]


@pytest.mark.parametrize(("device", "kernel", "fault", "shown"), one_in(3, FAULTS))
def test_planted_faults_are_caught(
    device: str, kernel: str, fault: str, shown: str, triton_cache: str
) -> None:
    (line,) = launch(triton_cache, device, kernel, *([fault] if fault else []))
    if shown == "wrong":
        assert line["error"] > 10
    else:
        assert shown in line["failed"], line


FAMILIES = ("gfx942", "gfx1250", "gfx90a", "gfx950", "gfx1100", "gfx1151", "gfx1201")


@pytest.mark.parametrize(
    ("name", "kernel"),
    one_in(3, [(name, kernel) for name in FAMILIES for kernel in ("matmul_fp16", "softmax")]),
)
def test_every_removed_barrier_is_found(name: str, kernel: str, triton_cache: str) -> None:
    """The compiler's code has no race. Without a barrier it has one, unless the barrier orders
    nothing: which counting the accesses says, and not the detector."""
    (line,) = launch(triton_cache, f"isa:{name},races", kernel, "barriers")
    assert line["error"] <= 1 and line["violations"] == []
    ((_, found),) = line["planted"].items()
    assert len(found) >= 3 and any(raced for _, _, raced in found)
    assert [one for one in found if one[1] != one[2]] == []


@pytest.mark.parametrize("name", one_in(7, FAMILIES))
def test_every_barrier_of_attention(name: str, triton_cache: str) -> None:
    """Likewise of the reference's kernels: prefills, decodes of 16-bit and fp8 caches, latent
    attention, and what merges their parts."""
    program = PROGRAM.with_name("attention_barriers.py")
    found = launch(triton_cache, name, program=program)
    assert {line["kernel"] for line in found} >= {"unified_kernel", "latent_kernel"}
    barriers = [barrier for line in found for barrier in line["barriers"]]
    assert any(needed for _, needed, _ in barriers)
    assert [one for one in barriers if one[1] != one[2]] == []


def test_parts_that_nobody_wrote_are_merged(triton_cache: str) -> None:
    program = PROGRAM.with_name("unwritten_parts.py")
    right, wrong = launch(triton_cache, "gfx942", program=program)
    assert "combine_segments_kernel" in right["ran"] and right["found"] == ""
    said = r"results depend on memory that nothing wrote: byte \d+ of partial_ptr by .*combine\.py:"
    assert re.match(said, wrong["found"])


def test_what_hides_a_fault(triton_cache: str) -> None:
    """The modes are needed: in lockstep, with zeroed registers, and with 160 KiB, all is well."""
    for device, kernel, fault in (
        ("isa:gfx942", "softmax", "no_barrier"),
        ("isa:gfx942", "add", "uninitialised"),
        ("isa:gfx950", "add", "lds=65792"),
    ):
        (line,) = launch(triton_cache, device, kernel, fault)
        assert line["error"] <= 1, line


def test_a_spill_fails_its_requirement(triton_cache: str) -> None:
    (line,) = launch(triton_cache, "aot:gfx942", "add", "spill")
    compiled = Compiled(tuple(line["kernels"]))
    assert findings("CGN-003", compiled, target("gfx942")) == [
        "add_kernel: 3 spilled vector registers, 0 bytes of scratch a lane"
    ]
    (line,) = launch(triton_cache, "aot:gfx942", "add")
    assert findings("CGN-003", Compiled(tuple(line["kernels"])), target("gfx942")) == []


def _kernel(**changes: Any) -> dict[str, Any]:
    had: dict[str, Any] = {
        "lds": 0, "spills": 0, "scratch": 0, "matrix": 4, "fp8": 2, "wave": 64, "block": 256,
        "arguments": 4,
    }  # fmt: skip
    told = {"name": "k", "dots": 2, "num_warps": 4, "types": ["*fp8e4b8", "i32"], "constants": {}}
    told["waits"], told["hazards"] = [], []
    told.update({k: v for k, v in changes.items() if k in told})
    had.update({k: v for k, v in changes.items() if k in had})
    return {**told, "resources": had}


@pytest.mark.parametrize(
    ("requirement", "changes", "words"),
    [
        ("CGN-002", {"lds": 65_792}, "65,792 bytes of LDS where gfx942 has 65,536"),
        ("CGN-003", {"scratch": 8}, "8 bytes of scratch"),
        ("CGN-004", {"matrix": 0}, "2 matrix products and not one mfma"),
        ("CGN-005", {"types": ["*fp8e4nv"]}, "fp8e4nv is not gfx942's encoding (fnuz)"),
        ("CGN-006", {"fp8": 0}, "not one of gfx942's fp8 instructions"),
        (
            "CGN-006",
            {"fp8": 0, "types": ["*u8"], "constants": {"FORMAT": 2}},
            "not one of gfx942's fp8 instructions",
        ),
        ("CGN-007", {"block": 128}, "workgroups of 128 lanes"),
        ("CGN-007", {"arguments": 9}, "takes 9 arguments, the launch gives 2"),
        ("CGN-008", {"waits": ["v1 is read by a, without a wait (vmcnt) for b"]}, "k: v1 is read"),
        ("CGN-009", {"hazards": ["M0 is used too soon by a"]}, "k: M0 is used too soon"),
    ],
)
def test_every_requirement_can_fail(requirement: str, changes: Any, words: str) -> None:
    right, wrong = Compiled((_kernel(),)), Compiled((_kernel(**changes),))
    assert findings(requirement, right, target("gfx942")) == []
    assert words in findings(requirement, wrong, target("gfx942"))[0]


def test_more_lds_is_allowed_where_there_is_more() -> None:
    compiled = Compiled((_kernel(lds=65_792),))
    assert findings("CGN-002", compiled, target("gfx950")) == []
    assert findings("CGN-002", compiled, target("gfx1201")) != []


def test_a_compiler_that_gives_up_fails() -> None:
    compiled = Compiled((), "RuntimeError: out of registers")
    assert findings("CGN-001", compiled, target("gfx942")) == ["RuntimeError: out of registers"]
    lds = Compiled((), "OutOfResources: shared memory")
    assert findings("CGN-001", lds, target("gfx942")) == []
    assert findings("CGN-002", lds, target("gfx942")) == ["OutOfResources: shared memory"]


def test_the_baseline_tells_what_changed() -> None:
    baseline = load_baseline()
    assert set(baseline) == {"vllm==0.19.0", "reference==0.19"}
    for rows in baseline.values():
        assert {key.partition(" ")[0] for key in rows} == {
            "gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201",
        }  # fmt: skip
    before = baseline["vllm==0.19.0"]
    key = next(iter(before))
    assert differences(rows_of({"vllm==0.19.0": {key: before[key]}}, baseline)) == []
    more = {**before[key], "vgprs": before[key]["vgprs"] + 8}
    table = {"vllm==0.19.0": {key: more, "gfx942 | new | kernel": dict.fromkeys(COLUMNS, 0)}}
    judged = list(rows_of(table, baseline))
    changed, new = differences(judged)
    assert f"vgprs {before[key]['vgprs']} -> {more['vgprs']}" in changed
    assert new == "vllm==0.19.0: gfx942 | new | kernel: not in the baseline"
    assert f"{more['vgprs']} (was {before[key]['vgprs']})" in as_markdown(judged)
    assert "| gfx942 | 1 | 0 | 1 |" in summary(judged)
    assert differences(rows_of({"vllm==0.20.0": table["vllm==0.19.0"]}, baseline)) == []


def test_a_table_is_stored_as_it_was() -> None:
    table = {"a==1": {"gfx942 | c | k": dict.fromkeys(COLUMNS, 3)}, "b": {}}
    stored = json.loads(dump(table, "3.9.0"))
    assert stored["subjects"] == {"a==1": {"gfx942 | c | k": [3] * len(COLUMNS)}, "b": {}}


def test_spelling_of_devices() -> None:
    name = parse_device("isa:gfx942,serial,poison,seed=3")
    assert (name.target, name.serial, name.poison, name.seed) == ("gfx942", True, True, 3)
    assert str(name) == "isa:gfx942,serial,poison,seed=3"
    for wrong in ("isa", "isa:gfx9", "gpu:gfx942", "isa:gfx942,fast", "aot:gfx942,serial"):
        with pytest.raises(ValueError, match="device"):
            parse_device(wrong)


def test_resources_are_read_from_the_text() -> None:
    text = (
        "; Occupancy: 8\n; codeLenInByte = 400\n  - .agpr_count:     4\n    .vgpr_count:     128\n"
        "    .sgpr_count:     20\n    .vgpr_spill_count: 2\n    .private_segment_fixed_size: 12\n"
        "    .max_flat_workgroup_size: 256\n    .wavefront_size: 64\n"
        "        .value_kind:     by_value\n\tv_mfma_f32_32x32x8_f16 a, b\n"
        "\tv_cvt_pk_f32_fp8_e32 v\n"
    )
    found = resources_of(text, 40_000, 4, FACTS["gfx942"])
    assert found.as_dict() == {
        "vgprs": 128, "agprs": 4, "sgprs": 20, "lds": 40_000, "spills": 2, "sgpr_spills": 0,
        "scratch": 12, "code": 400, "occupancy": 1, "matrix": 1, "fp8": 1, "block": 256,
        "wave": 64, "arguments": 1,
    }  # fmt: skip


def test_encodings_of_an_instruction_are_one_instruction() -> None:
    assert is_known("v_add_f32_e64") and is_known("v_dual_mul_f32")
    assert not is_known("v_frobnicate_b32")
