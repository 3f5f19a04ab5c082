"""Errors of a release's HIP decode by what stands in unused slots of the values.

    python unused_slots.py RELEASE CACHE DEVICE RATIO LENGTH...

RELEASE is the unpacked source distribution; RATIO query heads share a KV head. Prints an object,
by filling ("zeros", "numbers", "NaN") the largest error of each length in float16; null where it is
not finite.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from conformance.devices import activate
from conformance.devices.hip.clang import find_clang
from conformance.devices.hip.kernels import HipCode
from conformance.devices.hip.operators import Operators
from tests.devices.hip.attention_faults import decode_error

FILLINGS = {"zeros": 0.0, "numbers": 1.5, "NaN": math.nan}


def main() -> None:
    release, cache = Path(sys.argv[1]), Path(sys.argv[2])
    ratio, *lengths = map(int, sys.argv[4:])
    driver = activate(f"isa:{sys.argv[3]}")
    lanes = driver.name.facts.wave_size
    code = HipCode(release, driver.name.target, lanes, find_clang(), cache)
    operators = Operators(code, driver, lambda _kernel: None)
    found: dict[str, list[float | None]] = {}
    for name, unused in FILLINGS.items():
        errors = [
            decode_error(operators, lens=(length,), ratio=ratio, unused=unused)
            for length in lengths
        ]
        found[name] = [error if math.isfinite(error) else None for error in errors]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
