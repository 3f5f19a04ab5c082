"""The reference's paged decode, whose parts another kernel merges; then without its stores.

    python unwritten_parts.py TARGET

Prints two JSON lines: the kernels that ran, and the violation that ended them, or "".
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from conformance.benchmarks.setup import reference_call, set_up
from conformance.benchmarks.workloads import Workload, decode
from conformance.devices import activate
from conformance.devices.empty_tensors import EmptyTensors
from conformance.devices.isa import Run, Violation
from conformance.devices.kernel import Launch


def main(target: str, *, stores: bool) -> None:
    driver = activate(f"isa:{target}")
    run, ran = driver.recorder.run, []

    def run_edited(launch: Launch) -> Run:
        ran.append(launch.kernel.name)
        if not stores and launch.kernel.name == "paged_decode_kernel":
            text = re.sub(r"(?m)^\t(buffer|global)_store_.*$", "\ts_nop 0", launch.kernel.text)
            launch = replace(launch, kernel=replace(launch.kernel, text=text))
        return run(launch)

    driver.recorder.run = run_edited  # type: ignore[method-assign] # a fault is planted
    found = ""
    with EmptyTensors():
        call = reference_call(
            set_up(Workload("decode", decode(2, 700), 8, 1, 64), "cpu"), "ROCM_ATTN"
        )
        try:
            call()
        except Violation as violation:
            found = str(violation)
    sys.stdout.write(json.dumps({"ran": ran, "found": found}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], stores=True)
    main(sys.argv[1], stores=False)
