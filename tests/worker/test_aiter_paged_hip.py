"""aiter's paged attention in HIP: which kernels are made for what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conformance.problems.problem import Problem
from conformance.worker.aiter import either_paged
from conformance.worker.aiter.either_paged import EitherPaged
from conformance.worker.aiter.paged_assembly import PagedAssembly
from conformance.worker.aiter.paged_hip import PagedHip, _kernels
from conformance.worker.errors import Refused
from conformance.worker.interfaces import Layer, Scales
from tests.worker.test_aiter_assembly import Driver, geometry, scores


class Objects:
    """What the backends ask of aiter's code objects before anything runs."""

    target = "gfx942"
    driver = Driver()


def objects() -> Any:
    return Objects()


def test_template_arguments_are_those_of_the_problem() -> None:
    shape = geometry(num_heads=6, num_kv_heads=1, head_size=64, v_head_size=64, block_size=32)
    assert _kernels(shape, scores(window=(31, 0)), 2) == (
        "paged_attention_ll4mi_QKV_mfma16_kernel<_Float16, _Float16, "
        "vllm::Fp8KVCacheDataType::kAuto, 32, 64, 256, false, 6, 1, "
        "ck_tile::ComposedAttention<0 * ck_tile::LOGITS_SOFT_CAP>, true>",
        "paged_attention_ll4mi_reduce_kernel<_Float16, _Float16, 64, 64, 256, 2>",
    )
    kind = torch.bfloat16
    other = geometry(dtype=kind, cache_dtype=kind)
    main, _ = _kernels(other, scores(alibi_slopes=torch.ones(10), soft_cap=3.0), 1)
    assert "<__hip_bfloat16, __hip_bfloat16," in main
    assert "16, 128, 256, true, 5, 1, ck_tile::ComposedAttention<1 *" in main
    assert main.endswith(", false>")


@pytest.mark.parametrize(
    ("shape", "asked", "reason"),
    [
        ({}, {"sinks": torch.ones(10)}, "no argument for sinks"),
        ({"cache_dtype": torch.float8_e4m3fnuz}, {}, "without a scale"),
        ({"num_heads": 34}, {}, "at most 16 query heads"),
    ],
)
def test_what_is_refused(shape: dict[str, Any], asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        PagedHip(objects()).check_decode(Layer(geometry(**shape), scores(**asked), Scales()))


def test_rows_are_read_where_they_were_written() -> None:
    made, shape = torch.Generator().manual_seed(1), geometry()
    layer = Layer(shape, scores(), Scales())
    keys, values = torch.randn((2, 5, 2, 128), generator=made).half()
    places = torch.tensor([3, -1, 17, 40, 16])
    for backend in (PagedHip(objects()), PagedAssembly(objects())):
        cache = backend.allocate(3, shape, torch.device("cpu"))
        backend.write(keys, values, cache, places, layer)
        key, value = backend.read(cache, places[places >= 0])
        assert torch.equal(key, keys[places >= 0])
        assert torch.equal(value, values[places >= 0])


@pytest.mark.parametrize(
    ("fields", "variable", "expected"),
    [
        ({}, None, PagedAssembly),
        ({}, "0", PagedHip),
        ({"block_size": 32}, None, PagedHip),
        ({"head_size": 64, "v_head_size": 64}, None, PagedHip),
        ({"window": (15, 0)}, None, PagedHip),
        ({"alibi": "linear"}, None, PagedHip),
    ],
)
def test_which_decode_takes_a_problem(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], variable: str | None, expected: type
) -> None:
    monkeypatch.delenv(either_paged.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(either_paged.VARIABLE, variable)
    usual: dict[str, Any] = {"head_size": 128, "v_head_size": 128, "block_size": 16}
    sizes = {**usual, **fields}
    problem = Problem("paged", "ROCM_AITER_FA", "p", 1, (1,), (40,), 8, 1,
                      sizes.pop("head_size"), sizes.pop("v_head_size"), **sizes)  # fmt: skip
    asked: Any = {
        **{"head_size": problem.head_size, "block_size": problem.block_size},
        **{"window": list(problem.window), "alibi": problem.alibi},
    }
    backend = EitherPaged(objects())
    backend.check(asked)
    assert isinstance(backend._chosen, expected)
