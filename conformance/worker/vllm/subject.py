"""vLLM behind the protocol: a session is an imported vLLM on one platform.

Every answer comes from vLLM's public entry points.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..answers import Answers, rows
from ..codegen import compile_call
from ..contract import (
    DEVICE,
    AttendAnswer,
    AttendMessage,
    Call,
    CompileAnswer,
    CompileCallMessage,
    DescribeAnswer,
    DescribeMessage,
    EnvironmentMessage,
    Questions,
    SecondsAnswer,
    SelectAnswer,
    StartAnswer,
    StartMessage,
    Value,
    Variable,
    VariableMessage,
    VariablesAnswer,
)
from ..environment_watch import Reads, watched
from ..errors import WorkerError
from ..kernel_device import KernelDevice
from ..metadata_contract import MetadataAnswer, MetadataMessage
from ..wire import Answer, Message
from . import machine
from . import simulated_platform as simulation
from .objects import current_platform
from .opening import Opening
from .registry import Registry, load
from .selection import Attention

if TYPE_CHECKING:
    import torch

    from .builders import Builders
    from .kernels import VllmKernels

OPS = (
    *("attention", "paged_attention", "vit", "variable", "environment", "describe", "cpu", "bare"),
    *("compile", "attend", "metadata"),
)
# The largest packages that every vLLM imports, on every platform.
LARGEST = ("torch", "torch._dynamo", "transformers")
# The largest that those of several releases import after these.
LARGE = ("torch._inductor.lowering", "openai.types", "fastapi", "networkx", "xgrammar", "aiohttp")


def is_simulated(start: StartMessage) -> bool:
    """Whether the platform of a ``start`` message is simulated on this machine."""
    simulate = start["simulate"]
    return bool(simulate == "always" or (simulate == "auto" and not machine.has_amd_gpu()))


def modules_needed(start: StartMessage) -> tuple[str, ...]:
    """The modules that may be imported before the fork: none that could touch a real GPU.

    A worker that selects has many sessions, and shares more of what each of them would import.
    """
    if not is_simulated(start):
        return ()
    return LARGEST if os.environ.get(DEVICE) else (*LARGEST, *LARGE)


def open_session(start: StartMessage) -> VllmHandler:
    """Imports vLLM on the platform of a ``start`` message."""
    platform = start["platform"]
    present = {"aiter": platform["aiter"], "flash_attn": platform["flash_attn"]}
    simulated = is_simulated(start)
    machine.set_environment(platform["env"], simulated=simulated)
    before = frozenset(sys.modules)
    if simulated:
        simulation.install(platform["target"], present)
    reads = Reads()
    with watched(reads):
        handler = VllmHandler(start, simulated, before, Opening(start, reads))
    if not simulated and handler.selects:
        gpu = load("torch").cuda.get_device_properties(0).gcnArchName
        machine.check_real(str(gpu), platform["target"], present)
    return handler


class VllmHandler:
    """vLLM on one platform; ``before`` names the modules that were imported before it."""

    def __init__(
        self, start: StartMessage, simulated: bool, before: frozenset[str], opening: Opening
    ) -> None:
        self._before = before
        self._opening = opening
        self._target = start["platform"]["target"]
        self._simulated = simulated
        self._kernels: VllmKernels | None = None
        self._builders: Builders | None = None
        self._device = KernelDevice.of_environment()
        vllm = load("vllm")
        self._platform = current_platform()
        if not self._platform.is_rocm():
            raise WorkerError(
                f"vLLM {vllm.__version__} took this machine for "
                f"{type(self._platform).__name__}, not for ROCm. On a machine without an AMD GPU "
                "run with --simulate always."
            )
        self._torch = load("torch")
        self._rocm = load("vllm.platforms.rocm")
        self._dtype = _Dtypes().__getitem__
        self._tensor = self._torch.zeros(1)
        self._registry = Registry()
        self._attention = Attention(self._platform, self._registry, self._dtype)
        self.info: StartAnswer = {
            "subject": "vllm",
            "version": vllm.__version__,
            "simulated": simulated,
            "root": str(Path(str(vllm.__file__)).parent),
            "python": sys.version.split()[0],
            "torch": self._torch.__version__,
            "fields": list(self._attention.fields),
            "missing_backends": self._registry.import_all(start["backends"]),
        }

    @property
    def selects(self) -> bool:
        """Whether the session answers questions about a platform, and runs no kernels."""
        return not self._device.name

    def handle(self, message: Message) -> Answer:  # noqa: PLR0911 - one for each op
        if message["op"] == "attention":
            return self._attention.answer(message)
        if message["op"] == "paged_attention":
            return self._paged_attention(message)
        if message["op"] == "vit":
            return self._vit(message)
        if message["op"] == "variable":
            return self._variables(message)
        if message["op"] == "environment":
            return self._environment(message)
        if message["op"] == "describe":
            return self._describe(message)
        if message["op"] == "cpu":
            return SecondsAnswer(seconds=time.process_time())
        if message["op"] == "bare":
            return self._attention.bare(message)
        if message["op"] == "compile" and "call" in message:
            return self._compile(message)
        if message["op"] == "compile" and "problem" in message:
            return self._device.compile(self._backends(), message)
        if message["op"] == "attend":
            return self._attend(message)
        if message["op"] == "metadata":
            return self._metadata(message)
        raise WorkerError(f"unknown op {message['op']!r}; known: {', '.join(OPS)}")

    def modules_to_share(self) -> list[str]:
        """The third-party modules, because nothing in them depends on the platform."""
        if not self._simulated:
            return []
        own = ("vllm", "conformance_worker", "amdsmi", "pynvml", "__", *simulation.STATED)
        names = [name for name in sys.modules if name not in self._before]
        return [name for name in names if not name.startswith(own)]

    def suits(self, start: StartMessage) -> bool:
        """Whether vLLM imported for a session that is started so would be as it is here.

        Never where there is a device: a GPU is not shared by forks, and kernels may be edited.
        """
        return self._simulated and self.selects and self._opening.suits(start)

    def go_on(self, start: StartMessage) -> None:
        self._opening.go_on(start)

    def _compile(self, message: CompileCallMessage) -> CompileAnswer:
        """One call of vLLM's own kernels, compiled for the platform's target."""
        calls = load(f"{__package__}.op_calls")
        call = Call.from_json(message["call"])
        return compile_call(self._target, lambda: calls.run_call(call))

    def _attend(self, message: AttendMessage) -> AttendAnswer:
        """One problem through one backend, on the device of the session."""
        return self._device.attend(self._backends(), message)

    def _backends(self) -> VllmKernels:
        """vLLM's backends, on the device of the session."""
        if self._kernels is None:
            if self._device.name == "gpu" and self._simulated:
                raise WorkerError("--device gpu: vLLM's kernels need an AMD GPU, and none is here")
            kernels = load(f"{__package__}.kernels")
            device = self._device.activate()
            self._kernels = kernels.VllmKernels(
                self._registry,
                self._target,
                device,
                self._device.driver,
                simulated=self._simulated,
            )
        return self._kernels

    def _metadata(self, message: MetadataMessage) -> MetadataAnswer:
        """What a backend's metadata builder makes of some batches, on the CPU."""
        builders = load(f"{__package__}.builders")
        if self._builders is None:
            device = self._device.activate()
            self._builders = builders.Builders(
                self._registry, self._target, device, simulated=self._simulated
            )
        return self._builders.answer(message)

    def _paged_attention(self, message: Questions) -> SelectAnswer:
        """Which kernel ROCM_ATTN decodes with: its custom HIP kernel, or Triton's."""
        answers = Answers()
        for q in rows(message):
            applies = self._rocm.use_rocm_custom_paged_attention(
                self._dtype(q["dtype"]),
                q["head_size"],
                q["block_size"],
                q["gqa_ratio"],
                q["max_seq_len"],
                q["sliding_window"],
                q["kv_cache_dtype"],
                self._tensor if q["alibi"] else None,
                self._tensor if q["sinks"] else None,
            )
            answers.add(("custom" if applies else "triton", None, ()))
        return answers.as_json()

    def _vit(self, message: Questions) -> SelectAnswer:
        answers = Answers()
        for q in rows(message):
            backend = q["backend"]
            if backend is not None and backend not in self._registry.members:
                answers.add((None, "unknown_backend", ()), f"this vLLM has no backend {backend}")
                continue
            try:
                member = None if backend is None else self._registry.members[str(backend)]
                chosen = self._platform.get_vit_attn_backend(
                    q["head_size"], self._dtype(q["dtype"]), backend=member
                )
            except (AssertionError, ValueError) as error:
                answers.add((None, "unsupported_vit_backend", ()), str(error))
            else:
                answers.add((chosen.name, None, ((chosen.name, ()),)))
        return answers.as_json()

    def _environment(self, message: EnvironmentMessage) -> Answer:
        """Sets other variables, and makes vLLM read AITER's again, which it read when imported."""
        machine.set_environment(message["env"], simulated=self._simulated)
        load("vllm._aiter_ops").rocm_aiter_ops.refresh_env_variables()
        return {}

    def _variables(self, message: VariableMessage) -> VariablesAnswer:
        envs = load("vllm.envs")
        answer: dict[str, Variable] = {}
        for name in message["names"]:
            try:
                value = repr(getattr(envs, name))
            except AttributeError:
                value = None
            answer[name] = {"registered": name in envs.environment_variables, "value": value}
        return {"variables": answer}

    def _describe(self, message: DescribeMessage) -> DescribeAnswer:
        return {"backends": {name: self._registry.describe(name) for name in message["backends"]}}


class _Dtypes(dict["Value", "torch.dtype"]):
    """torch's dtypes by name; a dictionary is the quickest, and every question looks one up."""

    def __missing__(self, name: Value) -> torch.dtype:
        dtype: torch.dtype = getattr(load("torch"), str(name))
        self[name] = dtype
        return dtype
