"""Small Triton kernels, and a program that runs one on a device, perhaps with a fault planted.

    python isa_kernels.py DEVICE KERNEL [FAULT]
    python isa_kernels.py DEVICE+DEVICE... all [FAULT]

Prints one JSON line: the largest error, what ran, and how it ended.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import triton
import triton.language as tl

from conformance.devices import activate, collect, parse_device
from conformance.devices.isa.proofs.hazards import hazard_findings
from conformance.devices.kernel import Launch
from conformance.devices.targets import target_facts
from tests.emulator.barriers import judged


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@triton.jit
def overrun_kernel(x, out, n, BLOCK: tl.constexpr):  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n), i < n + 1)


@triton.jit
def softmax_kernel(x, out, n, stride, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    value = tl.load(x + row * stride + i, i < n, other=float("-inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * stride + i, power / tl.sum(power, 0), i < n)


@triton.jit
def matmul_kernel(a, b, c, M, N, K, sa, sb, sc, B: tl.constexpr):  # noqa: N803
    rm = tl.program_id(0) * B + tl.arange(0, B)
    rn = tl.program_id(1) * B + tl.arange(0, B)
    acc = tl.zeros((B, B), tl.float32)
    for k in range(0, K, B):
        rk = k + tl.arange(0, B)
        x = tl.load(a + rm[:, None] * sa + rk[None], (rm < M)[:, None] & (rk < K)[None], other=0.0)
        y = tl.load(b + rk[:, None] * sb + rn[None], (rk < K)[:, None] & (rn < N)[None], other=0.0)
        acc = tl.dot(x, y, acc)
    mask = (rm < M)[:, None] & (rn < N)[None]
    tl.store(c + rm[:, None] * sc + rn[None], acc.to(c.dtype.element_ty), mask)


@triton.jit
def histogram_kernel(x, counts, total, n, BLOCK: tl.constexpr):  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bins = tl.load(x + i, i < n, other=0)
    tl.atomic_add(counts + bins, 1, i < n)
    tl.atomic_add(total, tl.sum(tl.where(i < n, bins, 0).to(tl.float32), 0))


@triton.jit
def collatz_kernel(x, out):
    """A loop whose length differs from program to program."""
    i = tl.program_id(0)
    value = tl.load(x + i)
    steps = 0
    while value != 1:
        if value % 2 == 0:  # noqa: SIM108 - a branch is what is tested
            value = value // 2
        else:
            value = 3 * value + 1
        steps += 1
    tl.store(out + i, steps)


def _nan(*shape: int, dtype: Any = torch.float32) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


def _gap(got: torch.Tensor, want: torch.Tensor) -> float:
    gap = (got.double() - want.double()).abs().max()
    return float("inf") if torch.isnan(gap) else float(gap)


def add() -> float:
    x, y, out = torch.randn(1000), torch.randn(1000), _nan(1000)
    add_kernel[(4,)](x, y, out, 1000, BLOCK=256)
    return _gap(out, x + y)


def overrun() -> float:
    x, out = torch.randn(1000), _nan(1000)
    overrun_kernel[(4,)](x, out, 1000, BLOCK=256)
    return _gap(out, x)


def softmax() -> float:
    x, out = torch.randn(4, 300), _nan(4, 300)
    softmax_kernel[(4,)](x, out, 300, 300, BLOCK=512)
    return 1e3 * _gap(out, torch.softmax(x.double(), 1))


def matmul(dtype: torch.dtype, warps: int = 4, size: int = 32) -> float:
    a, b = torch.randn(70, 80).to(dtype), torch.randn(80, 90).to(dtype)
    c = _nan(70, 90, dtype=dtype)
    grid = (triton.cdiv(70, size), triton.cdiv(90, size))
    matmul_kernel[grid](a, b, c, 70, 90, 80, 80, 90, 90, B=size, num_warps=warps)
    want, scale = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    unit = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-20}[dtype]
    return _gap(c.double() / scale, want / scale) / unit


def histogram() -> float:
    x = torch.randint(0, 10, (1000,), dtype=torch.int32)
    counts, total = torch.zeros(10, dtype=torch.int32), torch.zeros(1)
    histogram_kernel[(4,)](x, counts, total, 1000, BLOCK=256)
    return _gap(counts, torch.bincount(x, minlength=10)) + _gap(total, x.sum()[None])


def collatz() -> float:
    x = torch.arange(1, 41, dtype=torch.int32)
    out = torch.full((40,), -1, dtype=torch.int32)
    collatz_kernel[(40,)](x, out)
    want = []
    for start in x.tolist():
        value, steps = start, 0
        while value != 1:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            steps += 1
        want.append(steps)
    return _gap(out, torch.tensor(want))


# The error of each is 1 or less where it is right.
KERNELS: dict[str, Callable[[], float]] = {
    "add": add,
    "overrun": overrun,
    "softmax": softmax,
    "matmul_fp16": lambda: matmul(torch.float16),
    "matmul_bf16": lambda: matmul(torch.bfloat16),
    "matmul_fp32": lambda: matmul(torch.float32),
    "matmul_64": lambda: matmul(torch.float16, warps=8, size=64),
    "histogram": histogram,
    "collatz": collatz,
}


# -- faults: edits of the assembly text ------------------------------------------------------------
def _replace(pattern: str, into: str, count: int = 0) -> Callable[[str], str]:
    def edit(text: str) -> str:
        changed, times = re.subn(pattern, into, text, count=count, flags=re.M)
        if not times:
            raise SystemExit(f"nothing in the text matches {pattern}")
        return changed

    return edit


def _store_off_by_one(text: str) -> str:
    """The last store of the kernel goes one element further."""
    stores = list(re.finditer(r"^\s+buffer_store_\S+ v\S*, v\d+, s\[.*$", text, re.M))
    last = stores[-1]
    line = last.group(0).rstrip()
    moved = re.sub(r"offset:(\d+)", lambda m: f"offset:{int(m[1]) + 4}", line)
    moved = moved if moved != line else f"{line} offset:4"
    return text[: last.start()] + moved + text[last.end() :]


def _swap_sources(text: str) -> str:
    """A and B of every matrix instruction change places."""
    pattern = r"^(\s+v_(?:mfma|wmma)_\S+ \S+ )(v\[\d+:\d+\]), (v\[\d+:\d+\]),"
    return _replace(pattern, r"\1\3, \2,")(text)


FAULTS: dict[str, Callable[[str], str]] = {
    # gfx9 and gfx11; gfx12 has a barrier in two parts.
    "no_barrier": _replace(r"^\s+(s_barrier|s_barrier_signal -1|s_barrier_wait -1)$", "\ts_nop 0"),
    "off_by_one": _store_off_by_one,
    "swapped_operands": _swap_sources,
    # What is stored gets the bits of a register that nothing has written.
    "uninitialised": _replace(
        r"^(\s+buffer_store_\S+ )v\[?(\d+)(\S*, v\d+,.*)$",
        r"\tv_or_b32_e32 v\2, v60, v\2\n\1v\2\3",
    ),
    "unknown_instruction": _replace(r"^\s+s_endpgm$", "\tv_frobnicate_b32 v0, v1\n\ts_endpgm", 1),
    "spill": _replace(r"\.vgpr_spill_count: 0$", ".vgpr_spill_count: 3"),
}


# -- proofs: every instruction of a kind taken out by itself ---------------------------------------
def _cut(text: str, words: tuple[str, ...]) -> Iterator[str]:
    """The text without one of the instructions, each in turn; a comment takes its place."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.split()[:1] in [[word] for word in words]:
            yield "".join([*lines[:number], "\t; cut\n", *lines[number + 1 :]])


def _without_barriers(driver: Any, planted: dict[str, Any]) -> None:
    """Runs each launch once more without each of its barriers, and keeps what is found."""
    run = driver.recorder.run

    def run_all(launch: Launch) -> None:
        run(launch)
        planted.setdefault(launch.kernel.name, []).extend(judged(launch, driver.name))

    driver.recorder.run = run_all


def _hazards_of(planted: dict[str, Any], target: str) -> Callable[[str, str], str]:
    """Notes what is found in each compiled kernel, and in it without each one of its s_nop and
    of its waits for the vector unit."""
    lanes = target_facts(target).wave_size

    def note(text: str, name: str) -> str:
        found = [str(one) for one in hazard_findings(text, target, lanes)]
        without = _cut(text, ("s_nop", "s_wait_alu", "s_waitcnt_depctr"))
        cuts = [len(hazard_findings(cut, target, lanes)) for cut in without]
        planted[name] = {"found": found, "cuts": cuts}
        return text

    return note


def _ask_for_lds(size: int) -> None:
    """Makes every kernel that is compiled from now on ask for ``size`` bytes of LDS."""
    compiled: Any = triton.compiler.CompiledKernel
    make = compiled.__init__

    def made(self: Any, *args: Any) -> None:
        make(self, *args)
        self.metadata = self.metadata._replace(shared=size)

    compiled.__init__ = made


def _rewrite(device: str, fault: str, planted: dict[str, Any]) -> Callable[[str, str], str] | None:
    """What is done to the text of every kernel: nothing, or a fault."""
    if fault == "hazards":
        return _hazards_of(planted, parse_device(device).target)
    if fault in ("", "barriers"):
        return None
    edit = FAULTS[fault]
    return lambda text, _name: edit(text)


def main(device: str, kernel: str, fault: str = "") -> None:
    if fault.startswith("lds="):
        _ask_for_lds(int(fault[4:]))
        fault = ""
    line: dict[str, Any] = {"kernel": kernel, "planted": {}}
    driver = activate(device, rewrite=_rewrite(device, fault, line["planted"]))
    if fault == "barriers":
        _without_barriers(driver, line["planted"])
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        line["error"] = KERNELS[kernel]()
    except Exception as problem:
        line["failed"] = f"{type(problem).__name__}: {problem}"
    line["seconds"] = time.perf_counter() - started
    sys.stdout.write(json.dumps({**line, **collect()}) + "\n")


if __name__ == "__main__":
    if sys.argv[2] == "all":
        for spelling in sys.argv[1].split("+"):
            for name in KERNELS:
                if name != "overrun":
                    main(spelling, name, *sys.argv[3:])
    else:
        main(*sys.argv[1:])
