"""Attention kernels side by side on this machine's GPU: the reference's, torch's and vLLM's.

All are measured in one run: the median of launches with a cleared L2 cache, and of replays of a
captured graph, which excludes the host's work. The limit is the same GPU's copy bandwidth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from conformance.benchmarks.peers import torch_calls
from conformance.benchmarks.released import ReleasedKernels, load_released, vllm_call
from conformance.benchmarks.setup import Setup, reference_call, set_up
from conformance.benchmarks.workloads import LAUNCHED, Workload, workloads
from conformance.errors import InfrastructureError

BACKENDS = (
    "ROCM_ATTN",
    "ROCM_AITER_FA",
    "ROCM_AITER_UNIFIED_ATTN",
    "TRITON_ATTN",
)
LATENT_BACKENDS = ("TRITON_MLA", "ROCM_AITER_MLA")


@dataclass(frozen=True)
class Timing:
    """Microseconds per call: launched, and replayed from a graph (None: not possible).

    ``host``: microseconds that the processor takes to launch it, of one workload; 0: not measured.

    ``failed`` is why a kernel could not be measured, with times of 0; empty if it was.
    """

    workload: str
    kernel: str
    launched: float
    replayed: float | None
    host: float
    teraflops: float
    gigabytes: float
    failed: str = ""


def measure(
    releases: Mapping[str, Path],
    say: Callable[[str], None],
    named: str = "",
    without: str = "",
    seconds: float = math.inf,
) -> Iterator[Timing]:
    """Measures every kernel on every workload whose name has ``named`` in it.

    ``releases``: package folders of vLLM releases by their names. ``without``: no kernel whose name
    has this in it is measured; empty: all are. ``seconds``: after so many no further workload is
    begun.

    Raises:
        InfrastructureError: there is no GPU.
        UsageError: a folder holds no vLLM.
    """
    if not torch.cuda.is_available():
        raise InfrastructureError("kernels are measured on a GPU, and torch sees none here")
    released = {name: load_released(folder) for name, folder in releases.items()}
    until = time.monotonic() + seconds
    for workload in workloads():
        if named in workload.name and time.monotonic() < until:
            say(workload.name)
            for name, call in kernels(set_up(workload), released):
                if not (without and without in name):
                    yield _timing(workload, name, call)


def copy_bandwidth() -> float:
    """Bytes per second that this GPU copies, counting bytes read and bytes written."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2e6 * source.numel() / _median(lambda: target.copy_(source))


def kernels(
    setup: Setup, released: Mapping[str, ReleasedKernels]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and calls of all kernels, on the same inputs."""
    for name in LATENT_BACKENDS if setup.workload.rope else BACKENDS:
        yield name, reference_call(setup, name)
    for release, their in released.items():
        yield f"vLLM {release}", vllm_call(setup, their)
    yield from torch_calls(setup)


def _timing(workload: Workload, name: str, call: Callable[[], object]) -> Timing:
    try:
        launched = _median(call)
    except Exception as error:  # a peer that cannot do this costs no other kernel its figure
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Timing(workload.name, name, 0.0, None, 0.0, 0.0, 0.0, reason)
    try:
        replayed: float | None = _replayed(call, launched)
    except RuntimeError:
        replayed = None
    best = min(launched, replayed or launched)
    return Timing(
        workload.name,
        name,
        launched,
        replayed,
        _host(call) if workload.name == LAUNCHED else 0.0,
        workload.flops / best * 1e-6,
        workload.cache_bytes / best * 1e-3,
    )


def _median(call: Callable[[], object]) -> float:
    """Median microseconds of a launch with a cleared L2 cache."""
    from triton.testing import do_bench  # noqa: PLC0415 - measured on a GPU only

    return 1e3 * float(do_bench(call, warmup=20, rep=80, return_mode="median"))


def _host(call: Callable[[], object], count: int = 50) -> float:
    """Microseconds of the processor's time per launch, the least of five times ``count`` launches.

    Few enough that the queue of launches never fills.
    """
    least = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            call()
        least = min(least, time.perf_counter() - began)
    torch.cuda.synchronize()
    return 1e6 * least / count


def _replayed(call: Callable[[], object], launched: float) -> float:
    """Microseconds per call in a replayed graph of up to 20 calls, of 20 ms together at most."""
    count = min(max(int(20_000 / launched), 1), 20)
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return _median(graph.replay) / count
