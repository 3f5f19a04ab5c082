"""vLLM's metadata builders and implementations behind the ``metadata`` op.

A builder is made and called as vLLM's model runner does it: batches lie in buffers that live as
long as the engine (https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/worker/gpu_model_runner.py,
``_build_attention_metadata``). What it makes is read, not judged.
"""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from ..errors import Refused, UnknownError, WorkerError
from ..metadata_contract import (
    BatchFields,
    LayerFields,
    MetadataAnswer,
    MetadataMessage,
    StepFields,
)
from . import simulated_gpu
from .engines import Engine
from .metadata import made_of
from .objects import BackendClass, current_platform
from .planners import Planner
from .registry import Registry
from .snapshots import fields_of
from .stand_ins import StandIn, why_no_gpu, why_unknown

SIMULATED = "is simulated: it cannot compute"


class Builders:
    """The builders of an imported vLLM on one platform."""

    def __init__(
        self, registry: Registry, target: str, device: torch.device, *, simulated: bool
    ) -> None:
        self._registry = registry
        self._device = device
        self._simulated = simulated
        if simulated:
            simulated_gpu.install(target)

    def answer(self, message: MetadataMessage) -> MetadataAnswer:
        """What the backend's builder makes of the steps' batches."""
        planner = Planner(current_platform().fp8_dtype())
        if self._simulated:
            with contextlib.suppress(ImportError):  # a platform without aiter
                planner.install()
        made = _nothing()
        try:
            cls = self._class_of(message["backend"])
            _new_workspace(self._device)
            engine = Engine(message["backend"], cls, message["layer"], self._device)
            self._run(message, engine, planner, made)
        except Refused as error:
            made["refused"] = str(error)
        made["planned"] = planner.calls
        return made

    def _class_of(self, name: str) -> BackendClass:
        if name not in self._registry.members:
            raise Refused(f"this vLLM has no backend {name}")
        try:
            cls: BackendClass = self._registry.members[name].get_class()
            cls.get_builder_cls()
        except ImportError as error:
            raise Refused(f"vLLM cannot import {name}: {error}") from error
        return cls

    def _run(
        self, message: MetadataMessage, engine: Engine, planner: Planner, made: MetadataAnswer
    ) -> None:
        with self._undisturbed(), engine.configured():
            engine.check()
            try:
                engine.make_implementation()
            except Exception as error:
                made["constructed"], made["trace"] = self._raised(error)
            try:
                builder = engine.make_builder()
            except Exception as error:
                made["built"], made["trace"] = self._raised(error)
                return
            made["threshold"] = builder.reorder_batch_threshold
            made["uniform"] = _is_uniform(builder)
            made["graphs"] = engine.graph_support(builder)
            made["updates"] = bool(getattr(builder, "supports_update_block_table", False))
            runner = Runner(message["layer"], self._device)
            before: Any = None
            for number, step in enumerate(message["steps"]):
                planner.step = number
                given = runner.described(step["batch"])
                raised = trace = ""
                result = None
                try:
                    result = _called(builder, step, given, before)
                except Exception as error:
                    raised, trace = self._raised(error)
                made["steps"].append(
                    {
                        "raised": raised,
                        "trace": trace,
                        "fields": fields_of(result),
                        "given": fields_of(runner.tensors(step["batch"])),
                    }
                )
                before = result

    def _raised(self, error: Exception) -> tuple[str, str]:
        """An error of vLLM's, and its traceback.

        Raises:
            WorkerError: the error is the harness's own inability.
        """
        if isinstance(error, WorkerError | Refused):
            raise error
        said = f"{type(error).__name__}: {error}"
        unknown = why_unknown(error) or (why_no_gpu(error) if self._simulated else "")
        if self._simulated and SIMULATED in said:
            unknown = f"the harness does not know what aiter gives: {said}"
        if unknown:
            raise UnknownError(unknown) from error
        return said, traceback.format_exc()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Around code of vLLM's that asks for a GPU: its memory, its stream, others beside it."""
        if not self._simulated:
            yield
            return
        idle = SimpleNamespace(synchronize=lambda: None)
        parallel = importlib.import_module("vllm.distributed.parallel_state")
        alone = StandIn("its tensor parallel group", world_size=1, rank_in_group=0)
        with (
            mock.patch.object(parallel, "_TP", alone),
            mock.patch.object(torch.cuda, "current_stream", lambda *_: idle),
            mock.patch.object(torch.accelerator, "empty_cache", lambda: None, create=True),
            simulated_gpu.Pageable(),
        ):
            yield


@dataclass
class Runner:
    """The buffers in which a model runner keeps its batches; each batch takes their first rows."""

    layer: LayerFields
    device: torch.device

    def __post_init__(self) -> None:
        reqs, tokens = self.layer["max_reqs"], self.layer["max_tokens"]
        width = -(-self.layer["max_len"] // self.layer["block_size"])
        where: dict[str, Any] = {"dtype": torch.int32, "device": self.device}
        self._starts = torch.zeros(reqs + 1, **where)
        self._lens = torch.zeros(reqs, **where)
        self._table = torch.zeros(reqs, width, **where)
        self._slots = torch.zeros(tokens, dtype=torch.int64, device=self.device)
        self._starts_cpu = torch.zeros(reqs + 1, dtype=torch.int32)
        self._lens_cpu = torch.zeros(reqs, dtype=torch.int32)

    def described(self, batch: BatchFields) -> object:
        """vLLM's description of a batch, which is in the buffers now."""
        rows, tokens = len(batch["seq_lens"]), len(batch["slot_mapping"])
        self._fill(self._starts, batch["query_start_loc"])
        self._fill(self._starts_cpu, batch["query_start_loc"])
        self._fill(self._lens, batch["seq_lens"])
        self._fill(self._lens_cpu, batch["seq_lens"])
        self._fill(self._slots, batch["slot_mapping"])
        for row, blocks in enumerate(batch["block_table"]):
            self._fill(self._table[row], blocks)
        starts_cpu, lens_cpu = self._starts_cpu[: rows + 1], self._lens_cpu[:rows]
        positions = self._lens_cpu.new_zeros(tokens, dtype=torch.int64)
        return made_of(
            importlib.import_module("vllm.v1.attention.backend").CommonAttentionMetadata,
            {
                **self.tensors(batch),
                "query_start_loc_cpu": starts_cpu,
                "seq_lens_cpu_upper_bound": lens_cpu,
                "_seq_lens_cpu": lens_cpu,
                "_num_computed_tokens_cpu": lens_cpu - starts_cpu.diff(),
                "num_reqs": rows,
                "num_actual_tokens": tokens,
                "max_query_len": batch["max_query_len"],
                "max_seq_len": batch["max_seq_len"],
                "is_prefilling": torch.tensor(batch["is_prefilling"]),
                "positions": positions,
                "causal": True,
            },
        )

    def tensors(self, batch: BatchFields) -> dict[str, torch.Tensor]:
        """The batch's tensors, as they are now."""
        rows, tokens = len(batch["seq_lens"]), len(batch["slot_mapping"])
        return {
            "query_start_loc": self._starts[: rows + 1],
            "seq_lens": self._lens[:rows],
            "block_table_tensor": self._table[:rows],
            "slot_mapping": self._slots[:tokens],
        }

    @staticmethod
    def _fill(buffer: torch.Tensor, values: list[int]) -> None:
        buffer[: len(values)] = torch.tensor(values, dtype=buffer.dtype)


def _called(builder: Any, step: StepFields, given: Any, before: object) -> object:
    if step["call"] == "capture":
        return builder.build_for_cudagraph_capture(given)
    if step["call"] == "draft":
        return builder.build_for_drafting(
            common_attn_metadata=given, draft_index=step["draft_index"]
        )
    if step["call"] == "update":
        return builder.update_block_table(before, given.block_table_tensor, given.slot_mapping)
    return builder.build(common_prefix_len=step["batch"]["prefix"], common_attn_metadata=given)


def _new_workspace(device: torch.device) -> None:
    """Scratch memory that the engine's layers share; none is left of another engine's."""
    module = importlib.import_module("vllm.v1.worker.workspace")
    module.reset_workspace_manager()
    module.init_workspace_manager(device)


def _is_uniform(builder: object) -> bool:
    """Whether all decodes of a batch must have as many tokens."""
    support = getattr(builder, "query_len_support", None)
    return support is not None and support.name != "VARLEN"


def _nothing() -> MetadataAnswer:
    return {
        "refused": "",
        "constructed": "",
        "built": "",
        "trace": "",
        "threshold": None,
        "uniform": False,
        "graphs": "NEVER",
        "updates": False,
        "steps": [],
        "planned": [],
    }
