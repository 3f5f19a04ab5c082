"""``torch.cuda`` and ``torch.accelerator`` as on a machine with one GPU of a target.

What only waits or counts has nothing to do here, since everything runs at once and in order. What
asks for facts of the GPU gets the target's. What would compute differently without a GPU, such as
CUDA graphs, is left as it is, so that it says that there is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from ..targets import target_facts

MEMORY = 192 << 30  # bytes, as of an MI300X: tests ask whether theirs would fit

_WAITING = (
    *("synchronize", "empty_cache", "set_device", "set_stream", "manual_seed", "manual_seed_all"),
    *("reset_peak_memory_stats", "reset_max_memory_allocated", "ipc_collect", "init", "_lazy_init"),
)
_NO_BYTES = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")


class Event:
    """A point in time; whatever was to be waited for has happened."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._at = 0.0

    def record(self, *_: Any) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        """Nothing is under way."""

    def wait(self, *_: Any) -> None:
        """Likewise."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds."""
        return 1000 * (other._at - self._at)


class Stream:
    """The one stream there is."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.cuda_stream = 0
        self.stream_id = 0
        self.device = torch.device("cpu")

    def synchronize(self) -> None:
        """Nothing is under way."""

    def wait_stream(self, *_: Any) -> None:
        """Likewise."""

    def wait_event(self, *_: Any) -> None:
        """Likewise."""

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def query(self) -> bool:
        return True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        """The stream was and is the only one."""


def properties(target: str) -> SimpleNamespace:
    """What ``torch.cuda.get_device_properties`` says of a target."""
    facts = target_facts(target)
    major, minor = capability(target)
    return SimpleNamespace(
        name=facts.market_name,
        gcnArchName=target,
        major=major,
        minor=minor,
        total_memory=MEMORY,
        multi_processor_count=facts.compute_units,
        warp_size=facts.wave_size,
        shared_memory_per_block=facts.lds_bytes,
        regs_per_multiprocessor=facts.family.vgprs,
    )


def capability(target: str) -> tuple[int, int]:
    """gfx942 is (9, 4), gfx1201 is (12, 0): the last two digits are not the major's."""
    digits = target.removeprefix("gfx")
    return int(digits[:-2]), int(digits[-2], 16)


def install(target: str) -> None:
    """Replaces them for this process."""
    stream, of_gpu = Stream(), properties(target)
    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "is_current_stream_capturing": False,
        "current_device": 0,
        "device_count": 1,
        "get_device_properties": of_gpu,
        "get_device_capability": capability(target),
        "get_device_name": of_gpu.name,
        "mem_get_info": (MEMORY, MEMORY),
        "current_stream": stream,
        "default_stream": stream,
        **dict.fromkeys(_WAITING),
        **dict.fromkeys(_NO_BYTES, 0),
    }
    cuda = vars(torch.cuda)
    cuda.update({name: _answering(answer) for name, answer in answers.items()})
    cuda.update(Stream=Stream, Event=Event, stream=lambda *_: stream, device=_OneDevice)
    if hasattr(torch, "accelerator"):
        vars(torch.accelerator).update(
            {name: _answering(answer) for name, answer in _ACCELERATOR.items()}
        )


_ACCELERATOR: dict[str, Any] = {
    "is_available": True,
    "device_count": 1,
    "current_device_index": 0,
    "current_device_idx": 0,
    "set_device_index": None,
    "set_device_idx": None,
    "synchronize": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "memory_allocated": 0,
    "max_memory_allocated": 0,
}


class _OneDevice:
    """``with torch.cuda.device(0)``: there is no other."""

    def __init__(self, *_: Any) -> None:
        self.idx = 0

    def __enter__(self) -> None:
        """It is the current one already."""

    def __exit__(self, *_: Any) -> None:
        """Likewise."""


def _answering(answer: Any) -> Callable[..., Any]:
    """A function of its own each time: dynamo refuses one that has two names."""
    return lambda *_, **__: answer
