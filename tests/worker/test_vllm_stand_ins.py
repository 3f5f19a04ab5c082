"""What the harness cannot do for a vLLM is told from what the vLLM does wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from conformance.subjects.kernels import problem_fields
from conformance.worker.attend import attend
from conformance.worker.contract import AttendMessage
from conformance.worker.errors import UnknownError, WorkerError
from conformance.worker.interfaces import Backend, Batch, KernelSubject
from conformance.worker.vllm import metadata
from conformance.worker.vllm.mla import contexts_first
from conformance.worker.vllm.simulated_gpu import Pageable, unpin
from conformance.worker.vllm.stand_ins import (
    StandIn,
    answering,
    describing,
    why_no_gpu,
    why_unknown,
)
from tests.kernels.kernel_faults.problems import decode


def raised(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


def as_vllm(source: str, **names: object) -> dict[str, Any]:
    """The names that code of vLLM's defines, as tracebacks show it."""
    module = vars(ModuleType("vllm_made_for_a_test"))
    module.update(names)
    exec(compile(source, "/site/vllm/made_for_a_test.py", "exec"), module)
    return module


def test_what_a_stand_in_lacks_is_unknown_to_the_harness() -> None:
    model = StandIn("its model configuration", dtype=torch.float16)
    assert vars(model)["dtype"] is torch.float16
    with pytest.raises(UnknownError, match="does not know 'window' of its model configuration"):
        str(model.window)
    # A release that can do without asks in this way.
    assert getattr(model, "window", 5) == 5
    assert not hasattr(model, "window")


@pytest.mark.parametrize("error", [AssertionError, AttributeError, KeyError, TypeError])
def test_what_a_description_lacks_is_unknown_to_the_harness(error: type[Exception]) -> None:
    said = "how to describe a batch to this vLLM"
    with pytest.raises(UnknownError, match=said), describing("a batch"):
        raise error("layer")


@pytest.mark.parametrize("error", [ValueError, NotImplementedError, RuntimeError])
def test_what_a_vllm_says_of_a_batch_is_its_own(error: type[Exception]) -> None:
    with pytest.raises(error), describing("a batch"):
        raise error("not supported")


def test_an_op_with_arguments_that_the_harness_does_not_know() -> None:
    @answering
    def write(key: int, value: int = 0) -> int:
        return key + value

    assert write(1, value=2) == 3
    with pytest.raises(UnknownError, match="does not know how this vLLM calls write"):
        write(1, 2, 3)
    with pytest.raises(UnknownError, match="interleaved"):
        write(1, interleaved=True)


def test_an_error_of_vllm_s_own_is_its_own() -> None:
    vllm = as_vllm("def attend():\n    return {}['block']\n")
    assert why_unknown(raised(vllm["attend"])) == ""


def test_an_error_of_torch_s_is_vllm_s_own_where_the_harness_passes_the_call_on() -> None:
    vllm = as_vllm("def build():\n    return torch.zeros(2)[torch.tensor([5])]\n", torch=torch)
    with Pageable():
        error = raised(vllm["build"])
    assert isinstance(error, IndexError)
    assert why_unknown(error) == ""


def test_a_call_that_vllm_does_not_take_is_unknown_to_the_harness() -> None:
    vllm = as_vllm("class Impl:\n    def __init__(self, scale, *, window):\n        pass\n")
    with pytest.raises(UnknownError, match="does not know window of"):
        metadata.called(vllm["Impl"], scale=1.0)
    assert metadata.called(vllm["Impl"], scale=1.0, window=3, heads=2)
    error = raised(lambda: metadata.prefix_ranges(torch.zeros(2, 2)))
    assert why_unknown(error).startswith("the harness does not know how to call this vLLM")


def test_an_operator_that_nobody_defines_is_unknown_to_the_harness() -> None:
    vllm = as_vllm("def write():\n    torch.ops._C.of_a_later_release(1)\n", torch=torch)
    assert "does not know an operator" in why_unknown(raised(vllm["write"]))


@pytest.mark.parametrize(
    "source", ["torch.zeros(2, pin_memory=True)", "torch.cuda.get_device_properties(0)"]
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_no_failure_of_vllm_s(source: str) -> None:
    vllm = as_vllm(f"def attend():\n    {source}\n", torch=torch)
    assert why_no_gpu(raised(vllm["attend"])).startswith("the harness does not know how to do")


def test_host_memory_is_not_pinned() -> None:
    with Pageable():
        made = torch.zeros(2, pin_memory=True).pin_memory()
        assert torch.tensor([1, 2], pin_memory=True).tolist() == [1, 2]
    assert not made.is_pinned()


def test_functions_do_not_pin_unless_they_are_told_to() -> None:
    def by_place(data: int, pin_memory: bool = True, size: int = 5) -> tuple[int, bool, int]:
        return data, pin_memory, size

    def by_name(*, size: int = 5, pin_memory: bool = True) -> tuple[int, bool]:
        return size, pin_memory

    def neither(data: int = 3) -> int:
        return data

    for function in (by_place, by_name, neither):
        unpin(cast("FunctionType", function))
    assert by_place(1) == (1, False, 5)
    assert by_place(1, pin_memory=True, size=2) == (1, True, 2)
    assert by_name() == (5, False)
    assert neither() == 3


@dataclass
class Described:
    """A dataclass of a later release."""

    num_reqs: int
    causal: bool = True


@dataclass
class Demanding(Described):
    window: int = 0


@dataclass
class More:
    num_reqs: int
    ring_origin: int


def test_a_dataclass_gets_the_fields_that_it_has() -> None:
    known = {"num_reqs": 3, "causal": False, "slots": 5}
    assert metadata.made_of(Demanding, known) == Demanding(3, causal=False)
    with pytest.raises(UnknownError, match="does not know ring_origin of More"):
        metadata.made_of(More, known)


def test_ranges_are_set_as_the_release_wants_them() -> None:
    made: Any = SimpleNamespace()
    ranges = metadata.prefix_ranges(torch.tensor([[[2, 5], [0, 0]], [[0, 0], [0, 0]]]))
    assert ranges == {0: [(2, 5)], 1: []}
    metadata.set_ranges(made, ranges)
    assert vars(made) == {"mm_prefix_range": ranges}
    made = SimpleNamespace(
        seq_lens=torch.ones(2),
        compute_mm_prefix_range_tensor=lambda given, count, _: torch.tensor([len(given), count]),
    )
    metadata.set_ranges(made, ranges)
    assert made.mm_prefix_range_tensor.tolist() == [2, 2]


def test_sequences_with_a_context_come_first_as_in_vllm() -> None:
    batch = Batch(
        query_start_loc=torch.tensor([0, 2, 3, 6], dtype=torch.int32),
        seq_lens=torch.tensor([2, 9, 8], dtype=torch.int32),
        block_table=torch.tensor([[0], [1], [2]], dtype=torch.int32),
        max_query_len=3,
        max_seq_len=9,
        max_context_len=8,
    )
    ordered, tokens = contexts_first(batch)
    assert tokens.tolist() == [2, 3, 4, 5, 0, 1]
    assert ordered.query_start_loc.tolist() == [0, 1, 4, 6]
    assert ordered.query_start_loc.dtype is torch.int32
    assert ordered.seq_lens.tolist() == [9, 8, 2]
    assert ordered.block_table.flatten().tolist() == [1, 2, 0]


class Raising(KernelSubject):
    """Its backends raise an error, which may be the harness's own inability."""

    def __init__(self, error: Exception, unknown: str) -> None:
        super().__init__(torch.device("cpu"))
        self._error = error
        self._unknown = unknown

    def backend(self, name: str) -> Backend:
        assert name == "TRITON_ATTN"
        raise self._error

    def why_unknown(self, error: Exception) -> str:
        assert error is self._error
        return self._unknown


@pytest.mark.parametrize(
    ("error", "unknown"),
    [(UnknownError("a field is not known"), ""), (TypeError("field"), "a field is not known")],
)
def test_what_is_unknown_to_the_harness_is_no_verdict(
    tmp_path: Path, error: Exception, unknown: str
) -> None:
    with pytest.raises(WorkerError, match="a field is not known"):
        attend(Raising(error, unknown), message(tmp_path))


def test_what_a_backend_raises_is_its_own(tmp_path: Path) -> None:
    answer = attend(Raising(TypeError("of its own"), ""), message(tmp_path))
    assert answer["raised"] == "TypeError: of its own"


def message(folder: Path) -> AttendMessage:
    torch.save({}, folder / "given.pt")
    fields: Any = problem_fields(decode("TRITON_ATTN"), wants_lse=False)
    return {
        "id": 1,
        "op": "attend",
        "problem": fields,
        "tensors": str(folder / "given.pt"),
        "output": str(folder / "computed.pt"),
    }
