"""The emulator's speed: native code beside the interpreter, in one run.

For each target, in a process of its own: a hand-written loop of vector arithmetic with 4 to 256
waves, a matrix product of attention size, and the reference's attention kernels: a prefill and a
paged decode. Every kernel runs interpreted, then compiled, which is timed too, then in native code;
and in both ways once more with races looked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conformance.devices.targets import target_facts
from conformance.errors import InfrastructureError

TARGETS = ("gfx942", "gfx950", "gfx1100", "gfx1201")
WAVES = (1, 4, 16, 64, 256)
STANDARD = "product of 256 x 128 and 128 x 256 in float16, tiles of 64"
# The mix of attention kernels: address arithmetic, float arithmetic, comparisons, exp.
_BODY = """
	v_fma_f32 v3, v1, v2, v3
	v_mul_f32_e32 v4, v3, v2
	v_add_{nc}u32_e32 v5, v0, v4
	v_cmp_gt_i32_e32 vcc{lo}, s4, v5
	v_cndmask_b32_e32 v6, v4, v3, vcc{lo}
	v_lshlrev_b32_e32 v7, 2, v6
	v_exp_f32_e32 v8, v3
	v_max_f32_e32 v9, v8, v4
"""


@dataclass(frozen=True)
class Speed:
    """One kernel: ``wave_instructions``, and the seconds that they took in native code.

    ``interpreted`` are the seconds in the interpreter, ``compiling`` those to compile; where
    nothing is compiled, ``seconds`` are the interpreter's too. ``raced`` and
    ``raced_interpreted`` are the seconds where races are looked for.
    """

    target: str
    what: str
    wave_instructions: int
    seconds: float
    interpreted: float
    compiling: float
    raced: float
    raced_interpreted: float

    @property
    def rate(self) -> float:
        """Wave-instructions a second."""
        return self.wave_instructions / self.seconds

    @property
    def gain(self) -> float:
        """How many times faster native code is."""
        return self.interpreted / self.seconds


def measure() -> list[Speed]:
    """Measures every target in its own process; InfrastructureError if one fails."""
    found = []
    for target in TARGETS:
        # A cache of its own: what is compiled is compiled now.
        with tempfile.TemporaryDirectory(prefix="rocm-conformance-bench-") as cache:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "conformance.benchmarks.emulator", target],
                env={**os.environ, "OMP_NUM_THREADS": "1", "ROCM_CONFORMANCE_CACHE": cache},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise InfrastructureError(f"the benchmark of {target} failed", done.stderr)
        found += [Speed(**json.loads(line)) for line in done.stdout.splitlines()]
    return found


def loop_text(target: str, rounds: int) -> str:
    """The assembly of a kernel that repeats the loop body ``rounds`` times."""
    gfx9 = target_facts(target).family.isa == "gfx9"
    body = _BODY.format(nc="" if gfx9 else "nc_", lo="" if gfx9 else "_lo") * 16
    return (
        f"loop:\n\ts_mov_b32 s4, {rounds}\n.LBB0_1:\n{body}"
        "\ts_add_i32 s4, s4, -1\n\ts_cmp_lg_u32 s4, 0\n\ts_cbranch_scc1 .LBB0_1\n\ts_endpgm\n"
        ".Lfunc_end0:\n\t.amdhsa_kernel loop\n\t.amdhsa_kernarg_size 0\n"
        "\t.amdhsa_float_denorm_mode_32 3\n\t.end_amdhsa_kernel\n"
    )


def _loop(target: str, waves: int) -> Speed:
    from conformance.devices.isa import execute  # noqa: PLC0415
    from conformance.devices.kernel import Kernel, Launch  # noqa: PLC0415
    from conformance.devices.resources import resources_of  # noqa: PLC0415
    from conformance.devices.spelling import parse_device  # noqa: PLC0415

    device = parse_device(f"isa:{target}")
    text = loop_text(target, max(800 // waves, 10))
    lanes = device.facts.wave_size
    resources = resources_of(text, 0, 1, device.facts)
    kernel = Kernel("loop", text, 0, 1, lanes, resources)

    def run(modes: str) -> list[dict[str, Any]]:
        named = parse_device(f"{device}{modes}")
        done = execute(Launch(kernel, (waves, 1, 1), kernel.workgroup), named)
        counts = {"wave_instructions": done.wave_instructions, "seconds": done.seconds}
        return [{"name": "loop", **counts}]

    execute(Launch(kernel, (1, 1, 1), kernel.workgroup), device)
    (speed,) = _both(target, lambda _name: f"{waves} waves in flight", run)
    return speed


# How kernels run one time after another; the first native one compiles.
_RUNS = (
    *(("never", ""),) * 2,
    *(("always", ""),) * 3,
    ("never", ",races"),
    *(("always", ",races"),) * 3,
)


def _both(
    target: str, named: Callable[[str], str], run: Callable[[str], list[dict[str, Any]]]
) -> list[Speed]:
    """Each kernel of a run, interpreted and in native code, the better of two times each.

    ``run`` is given the emulator's modes.
    """
    from conformance.devices.isa.native.kernel import (  # noqa: PLC0415 - in the target's process
        VARIABLE,
        compile_seconds,
    )

    times: dict[str, list[dict[str, Any]]] = {}
    for how, modes in _RUNS:
        os.environ[VARIABLE] = how
        for kernel in run(modes):
            times.setdefault(kernel["name"], []).append(kernel)
    found = []
    for name, runs in times.items():
        interpreted, native, raced_interpreted, raced = (
            min(one["seconds"] for one in part)
            for part in (runs[:2], runs[3:5], runs[5:6], runs[7:])
        )
        compiling = compile_seconds().get(name, 0.0)
        count = runs[0]["wave_instructions"]
        found.append(
            Speed(
                target,
                named(name),
                count,
                native,
                interpreted,
                compiling,
                raced,
                raced_interpreted,
            )
        )
    return found


def _standard(target: str) -> list[Speed]:
    import torch  # noqa: PLC0415 - in the target's process only

    from conformance.benchmarks.emulator_kernel import product  # noqa: PLC0415

    torch.manual_seed(0)
    a, b = torch.randn(256, 128).half(), torch.randn(128, 256).half()
    return _both(
        target,
        lambda _name: STANDARD,
        lambda modes: _collected(lambda: product(a, b), f"isa:{target}{modes}"),
    )


def _attention(target: str) -> Iterator[Speed]:
    # In the target's process only.
    from conformance.benchmarks.setup import reference_call, set_up  # noqa: PLC0415
    from conformance.benchmarks.workloads import Workload  # noqa: PLC0415

    for backend, workload in (
        ("TRITON_ATTN", Workload("prefill of 2 x 40 after 160", ((40, 160),) * 2, 8, 1)),
        ("ROCM_ATTN", Workload("decode of 3 x 500", ((1, 499),) * 3, 8, 1)),
    ):
        call = reference_call(set_up(workload, "cpu"), backend)
        _collected(call, f"isa:{target}")
        yield from _both(
            target,
            lambda name, w=workload: f"{name}, {w.name}",  # type: ignore[misc] # bound now
            lambda modes, run=call: _collected(  # type: ignore[misc] # likewise
                run, f"isa:{target}{modes}"
            ),
        )


def _collected(call: Callable[[], object], device: str) -> list[dict[str, Any]]:
    from conformance.devices import activate, collect  # noqa: PLC0415

    activate(device)
    call()
    found: list[dict[str, Any]] = collect()["kernels"]
    return [kernel for kernel in found if kernel["seconds"]]


def main(target: str) -> None:
    from conformance.devices import activate  # noqa: PLC0415

    speeds = [_loop(target, waves) for waves in WAVES]
    activate(f"isa:{target}")
    for speed in (*speeds, *_standard(target), *_attention(target)):
        sys.stdout.write(json.dumps(speed.__dict__) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
