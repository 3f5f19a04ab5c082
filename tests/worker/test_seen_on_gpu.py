"""What a kernel of a GPU alone is shown where there is none."""

from __future__ import annotations

import torch

from conformance.devices.empty_tensors import EmptyTensors
from conformance.devices.isa.memory import raw_buffer
from conformance.devices.isa.unwritten import has_unwritten
from conformance.worker.vllm.simulated_gpu import SeenOnGpu


def test_tensors_say_that_a_gpu_has_them_and_hold_nothing_yet() -> None:
    tensor = torch.ones(2)
    with SeenOnGpu():
        assert tensor.is_cuda
        assert not tensor.is_cpu
        assert bool(torch.empty(3).isnan().all())
        assert torch.empty(3, dtype=torch.int32).shape == (3,)
        assert float(tensor.sum()) == 2
    assert not tensor.is_cuda


def test_what_an_emulated_device_knows_to_be_unwritten_stays_so() -> None:
    with EmptyTensors(), SeenOnGpu():
        tensor = torch.empty(16, dtype=torch.bfloat16)
    assert has_unwritten(raw_buffer("tensor", tensor.data_ptr(), 32))
