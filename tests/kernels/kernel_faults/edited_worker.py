"""A worker that runs edited kernels, each copy in a process forked from one with torch loaded.

It is the suite's own worker; all that this adds is where ``rocm_reference`` is imported from
(``start`` names the folder) and a cache that is far apart (:class:`_FarApart`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton  # noqa: F401 - each session finds it loaded

from conformance.worker import attend
from conformance.worker.attend import Run
from conformance.worker.contract import StartMessage
from conformance.worker.kernel_device import KernelDevice
from conformance.worker.reference.subject import ReferenceHandler
from conformance.worker.wire import Answer, Message, serve

FAR_APART = "far_apart"  # the tag of a problem whose cache is to be so
REACH = 2**31


class Handler(ReferenceHandler):
    """The kernels of a folder, in Triton's interpreter."""

    def __init__(self, start: StartMessage) -> None:
        # No part of the protocol: the judge here names it beside the rest.
        folder = str(start.get("kernels", ""))
        if folder:
            sys.path.insert(0, folder)
        super().__init__(start, KernelDevice("interpreter"))
        found = Path(str(sys.modules["rocm_reference"].__file__))
        if folder and found.parents[1] != Path(folder):
            raise ImportError(f"the kernels are {found}, not those of {folder}")

    def handle(self, message: Message) -> Answer:
        far = message["op"] == "attend" and FAR_APART in message["problem"]["tags"]
        attend.__dict__["Run"] = _FarApart if far else Run
        return super().handle(message)


class _FarApart(Run):
    """A run whose fp8 cache reaches beyond 2**31 elements, of which few are touched.

    Blocks lie far apart in memory that the system lends and nobody writes, so it costs nothing.
    As much of it lies before the cache: an offset that wraps around finds zeros there. Nothing is
    told of what was written: that takes filling all of it.
    """

    def _filled_cache(self) -> torch.Tensor:
        small = self.backend.allocate(self.problem["num_blocks"], self.geometry, self.device)
        apart = -(-REACH // (self.problem["num_blocks"] - 1) // 16) * 16
        whole = torch.empty(2 * REACH + 2 * small.numel(), dtype=torch.uint8).view(small.dtype)
        cache = whole.as_strided(small.shape, (apart, *small.stride()[1:]), REACH)
        self._write(cache)
        return cache


if __name__ == "__main__":
    raise SystemExit(serve(Handler))
