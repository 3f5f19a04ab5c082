"""Calls an operator of the release in miniature on a device, in a process of its own.

    python on_device.py DEVICE CACHE JSON

JSON has the operator's options, and what of a case is wrong on purpose. Prints a JSON line: the
result, what ran, and how it ended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch

from conformance.devices import activate
from conformance.devices.hip.clang import find_clang
from conformance.devices.hip.kernels import HipCode
from conformance.devices.hip.operators import HipKernel, Operators

RELEASE = Path(__file__).parent / "release"


def main() -> None:
    name, cache, told = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    driver = activate(name)
    target, lanes = driver.name.target, driver.name.facts.wave_size
    code = HipCode(Path(told.get("release", RELEASE)), target, lanes, find_clang(), cache)
    heard: list[HipKernel] = []
    operators = Operators(code, driver, heard.append)
    dtype = getattr(torch, told.get("dtype", "float32"))
    rows, columns = 4, told.get("columns", 60)
    given = torch.arange(rows * columns).reshape(rows, columns).to(dtype)
    wide = torch.zeros(rows, columns + 1).to(dtype)
    if told.get("strided"):
        given = wide[:, :columns]
    made = torch.zeros(rows - told.get("rows_less", 0), columns).to(dtype)
    bias = torch.arange(columns).float() / 4 if told.get("bias") else None
    arguments: dict[str, Any] = {
        "out": made,
        "in": given,
        "kind": told.get("kind", ""),
        "factor": 0.5,
        "across": 2,
        "bias": bias,
    }
    if told.get("too_few"):
        arguments.pop("bias")
    raised = ""
    try:
        operators.call("reshape_and_cache", arguments)
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
    expected = (given.float().flip(1) * 0.5 + (0 if bias is None else bias)).to(dtype)
    answer = {
        "raised": raised,
        "right": bool(raised == "" and torch.equal(made, expected)),
        "kernels": [kernel.name for kernel in heard],
        "origins": [f"{kernel.file} {kernel.compiler}" for kernel in heard],
        "collected": driver.collect(),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
