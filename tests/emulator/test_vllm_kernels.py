"""vLLM 0.19.0's own Triton kernels, unmodified, executed as AMD machine code.

A quick choice of the calls of ``vllm_calls.shipped_calls``, with waves in random order over
garbage, on one target in lockstep too: what the parity suite runs on every other. Without calls
``vllm_kernels_probe.py`` runs all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.subjects.vllm.environment import prepare
from conformance.suites.codegen.vllm_calls import shipped_calls
from conformance.worker.contract import Call
from conformance.worker.other_kernels import OTHER_KERNELS

PROBE = Path(__file__).with_name("vllm_kernels_probe.py")
CALLS: dict[str, dict[str, Any]] = {
    "2d": {"op": "unified_2d", "window": 16, "soft_cap": 20.0, "sinks": True},
    "3d": {"op": "unified_3d", "dtype": "bfloat16", "head_size": 80},
    "paged": {"op": "paged_2d", "head_size": 64},
    "mla": {
        **{"op": "mla_decode", "dtype": "bfloat16", "head_size": 576},
        **{"heads": 16, "kv_heads": 1},
    },
    "mha": {"op": "mha_decode", "heads": 4, "kv_heads": 4},
    "merge": {"op": "merge"},
    "write": {"op": "cache_write", "dtype": "bfloat16"},
    "prefix": {"op": "prefix_prefill", "head_size": 64},
    "prefill": {"op": "prefill", "head_size": 64},
    "2d fp8": {"op": "unified_2d", "kv_dtype": "fp8"},
    "3d fp8": {"op": "unified_3d", "dtype": "bfloat16", "kv_dtype": "fp8"},
    "write fp8": {"op": "cache_write", "kv_dtype": "fp8"},
}
# Each on a CDNA target and on an RDNA one; prefill compiles longest, so on one target each.
ON = {
    "gfx942": ("2d", "paged", "mla", "merge", "write", "prefix", "2d fp8", "write fp8"),
    "gfx950": ("3d", "3d fp8", "write fp8"),
    "gfx1100": ("2d", "paged", "mha", "merge"),
    "gfx1201": ("3d", "mla", "write", "prefill"),
}


# `make isa-vllm` runs problems through them on gfx942 for every change.
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("target", ON)
def test_vllms_kernels_compute_attention(target: str, tmp_path: Path) -> None:
    managed = prepare("0.19.0")
    calls = [CALLS[name] for name in ON[target]]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, managed.path)),
        "TRITON_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    devices = [f"isa:{target},serial,poison,seed=3"]
    devices += [f"isa:{target}"] if target == "gfx942" else []
    words = [sys.executable, "-W", "ignore", str(PROBE), "+".join(devices), *map(json.dumps, calls)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(devices) * len(calls)
    for line in lines:
        assert line.get("error", line) <= 1, line
        assert sum(k["wave_instructions"] for k in line["kernels"]) > 0
        assert line["violations"] == []


def test_the_shipped_calls_are_distinct_and_named() -> None:
    calls = list(shipped_calls(fp8=True))
    assert len({call.name for call in calls}) == len(calls)
    assert {Call(**call).op for call in CALLS.values()} <= {call.op for call in calls}
    assert all(reason.partition(":")[0] for reason in OTHER_KERNELS.values())
