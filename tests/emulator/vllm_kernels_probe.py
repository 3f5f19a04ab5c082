"""Runs vLLM's own Triton kernels on a device and holds them to a float64 reference.

    python vllm_kernels_probe.py DEVICE[+DEVICE]... [CALL as JSON]...

A program of its own, because a process runs one target only. Prints a JSON line for each call:
its name, the largest error in units of the bound, and what ran.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 - after the path of the checkout

from conformance.devices import activate, collect  # noqa: E402 - likewise
from conformance.suites.codegen.vllm_calls import shipped_calls  # noqa: E402 - likewise
from conformance.worker.contract import Call  # noqa: E402 - likewise
from conformance.worker.vllm import machine, op_calls, simulated_platform  # noqa: E402 - likewise

# Unit roundoff of a result's type; rounding of P to the type dominates the error of P x V.
ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-22}


def attention(call: Call, given: op_calls.Computed) -> tuple[Any, Any, Any]:
    """float64 output [T, H, V], its magnitude (the same sum of absolute terms), and natural LSE."""
    rows, sizes, logs = [], [], []
    at = 0
    queries = given.query.double()
    lengths = [k.shape[0] for k in given.keys]
    counts = query_counts(call, given, lengths)
    for keys, values, count in zip(given.keys, given.values, counts, strict=True):
        total, group = keys.shape[0], call.heads // call.kv_heads
        k = keys.double().repeat_interleave(group, 1)
        v = values.double().repeat_interleave(group, 1)
        q = queries[at : at + count]
        at += count
        logits = torch.einsum("qhd,khd->hqk", q, k) * given.scale
        if call.soft_cap:
            logits = call.soft_cap * torch.tanh(logits / call.soft_cap)
        place = torch.arange(total - count, total)[:, None]
        other = torch.arange(total)[None]
        visible = other <= place
        if call.window:
            visible &= other > place - call.window
        logits = logits.masked_fill(~visible, -torch.inf)
        whole = logits
        if given.sinks is not None:
            sink = given.sinks.double()[:, None, None].expand(-1, count, 1)
            whole = torch.cat([logits, sink], dim=2)
        lse = torch.logsumexp(whole, dim=2)
        weights = torch.exp(logits - lse[:, :, None])
        rows.append(torch.einsum("hqk,khd->qhd", weights, v))
        sizes.append(torch.einsum("hqk,khd->qhd", weights, v.abs()))
        logs.append(lse.T)
    return torch.cat(rows), torch.cat(sizes), torch.cat(logs)


def query_counts(call: Call, given: op_calls.Computed, lengths: list[int]) -> list[int]:
    """Query tokens of each sequence: those of the call, as its op takes them."""
    if given.query.shape[0] == len(lengths):
        return [1] * len(lengths)
    if given.query.shape[0] == sum(lengths):
        return lengths
    if call.op == "prefix_prefill":
        return [5, 3]
    return [q for q, _ in call.sequences]


def error_of(call: Call, got: op_calls.Result) -> float:
    """The largest error in units of the bound (1 or less passes); NaN counts as infinite."""
    if isinstance(got, op_calls.Stored):
        return cache_error(call, got)
    if isinstance(got, op_calls.Merged):
        return merge_error(got)
    want, size, lse = attention(call, got)
    unit = ROUNDOFF[got.query.dtype]
    # One rounding of the output, one of each weight, and logits that err by a few roundings of
    # float32 sums; an fp8 cache is read exactly.
    bound = 4 * unit * size + 2 * unit * want.abs() + 1e-6
    error = ((got.out.double() - want).abs() / bound).max()
    if got.lse is not None:
        gap = (got.lse.double() - lse).abs() / (unit * (lse.abs() + 1))
        error = torch.maximum(error, gap.max())
    return float("inf") if torch.isnan(error) else float(error)


def merge_error(got: op_calls.Merged) -> float:
    first, second = (log.double() for log in got.logs)
    total = torch.logaddexp(first, second)
    weights = [torch.exp(log - total).T[:, :, None] for log in (first, second)]
    parts = [part.double() for part in got.parts]
    want = weights[0] * parts[0] + weights[1] * parts[1]
    size = weights[0] * parts[0].abs() + weights[1] * parts[1].abs()
    unit = ROUNDOFF[got.out.dtype]
    error = ((got.out.double() - want).abs() / (2 * unit * size + 1e-6)).max()
    gap = (got.lse.double() - total).abs() / (1e-6 * (total.abs() + 1))
    worst = torch.maximum(error, gap.max())
    return float("inf") if torch.isnan(worst) else float(worst)


def cache_error(call: Call, got: op_calls.Stored) -> float:
    """A cache must hold exactly the rounded values, and nothing where no token went."""
    for rows, cache in zip((got.key, got.value), got.caches, strict=True):
        want = torch.zeros_like(cache).view(-1, call.kv_heads, call.head_size)
        for row, slot in enumerate(got.slots):
            if slot >= 0:
                want[slot] = rows[row].float().to(cache.dtype)
        if not torch.equal(want.float(), cache.view(want.shape).float()):
            return float("inf")
    return 0.0


def run(devices: list[str], calls: list[Call]) -> None:
    machine.set_environment({}, simulated=True)
    target = devices[0].partition(":")[2].partition(",")[0]
    simulated_platform.install(target, {"aiter": False, "flash_attn": False})
    for device in devices:
        activate(device)
        for call in calls:
            line = {"device": device, "call": call.name, **judged(call)}
            sys.stdout.write(json.dumps({**line, **collect()}) + "\n")
            sys.stdout.flush()


def judged(call: Call) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        line: dict[str, Any] = {"error": error_of(call, op_calls.run_call(call))}
    except Exception as problem:
        line = {"failed": f"{type(problem).__name__}: {problem}"}
    return {**line, "seconds": round(time.perf_counter() - started, 2)}


if __name__ == "__main__":
    asked = [Call(**json.loads(text)) for text in sys.argv[2:]]
    has_fp8 = any(name in sys.argv[1] for name in ("gfx942", "gfx950"))
    run(sys.argv[1].split("+"), asked or list(shipped_calls(has_fp8)))
