"""What kernels do on NVIDIA GPUs alone, or in the interpreter as there, gives the same results."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.benchmarks.setup import set_up
from conformance.benchmarks.workloads import Workload
from rocm_reference.backends import triton_mla
from rocm_reference.ops import decode
from rocm_reference.ops.decode import two_parts
from rocm_reference.ops.mla import workers
from rocm_reference.ops.mla.common import LatentLaunch
from tests.kernels.attended import attended

LENGTHS = ((1, 70), (1, 32), (1, 299))


def assert_alike(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("size", "parts"),
    [(80, (64, 16)), (96, (64, 32)), (160, (128, 32)), (192, (128, 64)), (320, (256, 64))],
)
def test_a_sum_of_two_powers_of_two_is_parted(size: int, parts: tuple[int, int]) -> None:
    assert two_parts(size) == parts


@pytest.mark.parametrize("size", [16, 24, 64, 72, 112, 128, 224, 256])
def test_other_sizes_are_not(size: int) -> None:
    assert two_parts(size) is None


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("size", [80, 192])
@pytest.mark.parametrize("window", [0, 40])
def test_a_head_in_two_parts_gives_what_a_padded_one_does(
    size: int, block_size: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up(
        Workload("parts", LENGTHS, 8, 2, size, block_size, window=window, sinks=bool(window)), "cpu"
    )
    found = attended(setup, "ROCM_ATTN")[:2]
    assert two_parts(size) is not None
    monkeypatch.setattr(decode, "two_parts", lambda _: None)
    assert_alike(found, attended(setup, "ROCM_ATTN")[:2])


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize(
    ("name", "module"), [("TRITON_MLA", triton_mla), ("ROCM_AITER_MLA", workers)]
)
def test_one_loop_over_latent_keys_gives_what_two_do(
    name: str, module: ModuleType, rows: int, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = set_up(Workload("latent", LENGTHS, 40, 1, 64, block_size, rope=16), "cpu")
    expected = attended(setup, name)[:2]
    together = LatentLaunch(rows, 32, 4, 1, together=True)
    monkeypatch.setattr(module, "choose_latent", lambda *_: together)
    assert_alike(attended(setup, name)[:2], expected)
