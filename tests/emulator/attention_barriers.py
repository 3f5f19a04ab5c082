"""Takes the barriers out of the reference's attention kernels, one by one, for one target.

    python attention_barriers.py TARGET

Prints a JSON line for each kernel: of each of its barriers the line, whether it is needed, and
whether a race is found without it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from conformance.benchmarks.setup import reference_call, set_up
from conformance.benchmarks.workloads import Workload, decode
from conformance.devices import activate
from conformance.devices.isa import Run
from conformance.devices.kernel import Launch
from tests.emulator.barriers import judged

CALLS = (
    ("TRITON_ATTN", Workload("prefill", ((20, 40),), 4, 1, 64)),
    ("ROCM_ATTN", Workload("decode", decode(1, 70), 4, 1)),
    ("ROCM_ATTN", Workload("decode of fp8", decode(1, 70), 4, 1, fp8=True)),
    ("TRITON_MLA", Workload("latent decode", decode(1, 40), 16, 1, 512, rope=64)),
)


def main(target: str) -> None:
    driver = activate(f"isa:{target}")
    run, told = driver.recorder.run, set()

    def run_all(launch: Launch) -> Run:
        if launch.kernel.text not in told and "\ts_barrier" in launch.kernel.text:
            told.add(launch.kernel.text)
            found = judged(launch, driver.name)
            line = {"kernel": launch.kernel.name, "barriers": found}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        return run(launch)

    driver.recorder.run = run_all  # type: ignore[method-assign] # what is launched is looked at
    for backend, workload in CALLS:
        reference_call(set_up(workload, "cpu"), backend)()


if __name__ == "__main__":
    main(sys.argv[1])
