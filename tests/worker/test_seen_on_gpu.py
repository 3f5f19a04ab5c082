"""What a kernel of a GPU alone is shown where there is none."""

from __future__ import annotations

import torch

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
