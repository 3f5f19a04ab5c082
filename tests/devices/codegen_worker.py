"""A worker that compiles one small kernel for every call, and whose compiler can be broken.

    python codegen_worker.py [KERNEL DEATH]

Compiling ``KERNEL`` (a name below) the compiler writes to stderr and dies: by abort, by kill.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import triton
import triton.language as tl

from conformance.worker import codegen, wire
from conformance.worker.contract import StartAnswer, StartMessage
from conformance.worker.wire import Message


@triton.jit
def copy_kernel(x, out, BLOCK: tl.constexpr):  # noqa: N803
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))


@triton.jit
def double_kernel(x, out, BLOCK: tl.constexpr):  # noqa: N803
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i) * 2)


KERNELS = {"merge": copy_kernel, "cache_write": double_kernel}


class Handler:
    info: StartAnswer

    def __init__(self, start: StartMessage) -> None:
        self._target = start["platform"]["target"]
        self.info = {"subject": "vllm", "version": "0.19.0", "simulated": True}

    def handle(self, message: Message) -> wire.Answer:
        assert message["op"] == "compile" and "call" in message
        kernel = KERNELS[message["call"]["op"]]
        x = torch.zeros(64)
        return codegen.compile_call(
            self._target, lambda: kernel[(1,)](x, torch.empty_like(x), BLOCK=64)
        )

    def modules_to_share(self) -> list[str]:
        return []


def break_compiler(kernel: str, death: str) -> None:
    """Makes the compiler end its own process where it would compile a kernel of that name."""
    from triton.compiler.compiler import ASTSource  # noqa: PLC0415 - only where it is broken

    make_ir: Any = ASTSource.make_ir

    def broken(source: Any, *arguments: Any, **options: Any) -> Any:
        if source.name == kernel:
            os.write(2, b"Invalid opcode!\nUNREACHABLE executed\n")
            os.kill(os.getpid(), getattr(signal, death))
        return make_ir(source, *arguments, **options)

    ASTSource.make_ir = broken


if __name__ == "__main__":
    if sys.argv[1:]:
        break_compiler(*sys.argv[1:])
    raise SystemExit(wire.serve(Handler))
