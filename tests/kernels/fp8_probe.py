"""Converts fp8 both ways on a device and prints, as JSON, how often the results are wrong.

    python fp8_probe.py DEVICE

Every way that the device has: by integer arithmetic, and by the processor where it converts. What
is right is torch's own conversion. Kernels read codes and numbers, so this runs on any device.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))

import torch
import triton
import triton.language as tl

from conformance.devices import activate
from rocm_reference.ops import fp8

BLOCK = 256


@triton.jit
def decode_kernel(codes, out, DTYPE: tl.constexpr, FORMAT: tl.constexpr):  # noqa: N803
    i = tl.arange(0, 256)
    value = fp8.decode(tl.load(codes + i), DTYPE, FORMAT)
    tl.store(out + i, value.to(tl.float32))


@triton.jit
def encode_kernel(numbers, out, FORMAT: tl.constexpr):  # noqa: N803
    i = tl.program_id(0) * 256 + tl.arange(0, 256)
    tl.store(out + i, fp8.encode(tl.load(numbers + i), FORMAT))


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """Every value, the middle of every two, their neighbours in float32, and what overflows."""
    codes = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    values = torch.tensor(sorted(set(codes[codes.isfinite()].tolist())))
    middles = (values[1:] + values[:-1]) / 2
    exact = torch.cat([values, middles])
    up, down = torch.nextafter(exact, torch.tensor(9e9)), torch.nextafter(exact, torch.tensor(-9e9))
    special = torch.tensor([1e30, -1e30, float("inf"), -float("inf"), float("nan"), -0.0, 1e-30])
    every = torch.cat([exact, up, down, special])
    return torch.nn.functional.pad(every, (0, -every.numel() % BLOCK))


def wrong_decoded(dtype: torch.dtype, code: int, to: torch.dtype) -> int:
    codes = torch.arange(256, dtype=torch.uint8)
    out = torch.empty(256)
    names = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
    decode_kernel[(1,)](codes, out, names[to], code)
    right = codes.view(dtype).float()
    same = (out == right) & (out.signbit() == right.signbit()) | (out.isnan() & right.isnan())
    return int((~same).sum())


def wrong_encoded(dtype: torch.dtype, code: int) -> int:
    given = numbers(dtype)
    out = torch.empty(given.numel(), dtype=torch.uint8)
    encode_kernel[(given.numel() // BLOCK,)](given, out, code)
    largest = torch.finfo(dtype).max
    right = given.clamp(-largest, largest).to(dtype)
    got = out.view(dtype)
    same = out == right.view(torch.uint8)
    return int((~(same | (got.float().isnan() & right.float().isnan()))).sum())


def main() -> None:
    device = sys.argv[1]
    if device != "interpreter":
        activate(device)
    found = {}
    for dtype, code in fp8.FORMATS.items():
        ways = {"integer": code}
        if fp8.format_of(dtype) != code:
            ways["processor"] = fp8.format_of(dtype)
        for way, chosen in ways.items():
            name = f"{str(dtype).removeprefix('torch.')} {way}"
            found[f"{name} encode"] = wrong_encoded(dtype, chosen)
            for to in (torch.float16, torch.bfloat16, torch.float32):
                found[f"{name} decode {to}"] = wrong_decoded(dtype, chosen, to)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
