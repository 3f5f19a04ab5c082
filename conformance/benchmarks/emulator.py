"""The emulator's speed, by number of waves and on one standard problem.

Two measurements, with one process per target: a hand-written loop of vector arithmetic with 4 to
256 waves, and a matrix product of attention size compiled by Triton.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
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
    """One measurement: ``rate`` wave-instructions per second over ``seconds``."""

    target: str
    what: str
    wave_instructions: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.wave_instructions / self.seconds


def measure() -> list[Speed]:
    """Measures every target in its own process; InfrastructureError if one fails."""
    found = []
    for target in TARGETS:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "conformance.benchmarks.emulator", target],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
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
    execute(Launch(kernel, (1, 1, 1), kernel.workgroup), device)
    run = execute(Launch(kernel, (waves, 1, 1), kernel.workgroup), device)
    return Speed(target, f"{waves} waves in flight", run.wave_instructions, run.seconds)


def _standard(target: str) -> Speed:
    import torch  # noqa: PLC0415 - in the target's process only

    from conformance.benchmarks.emulator_kernel import product  # noqa: PLC0415
    from conformance.devices import activate, collect  # noqa: PLC0415

    activate(f"isa:{target}")
    torch.manual_seed(0)
    a, b = torch.randn(256, 128).half(), torch.randn(128, 256).half()
    product(a, b)
    collect()
    started = time.perf_counter()
    product(a, b)
    seconds = time.perf_counter() - started
    ran: list[dict[str, Any]] = collect()["kernels"]
    return Speed(target, STANDARD, sum(k["wave_instructions"] for k in ran), seconds)


def main(target: str) -> None:
    for speed in (*(_loop(target, waves) for waves in WAVES), _standard(target)):
        sys.stdout.write(json.dumps(speed.__dict__) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
