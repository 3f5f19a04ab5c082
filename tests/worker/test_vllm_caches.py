"""A cache is laid out as each generation of vLLM lays it out, and its memory is found again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.worker.errors import UnknownError
from conformance.worker.guarded_memory import as_bytes, count_equal, fill, opposite
from conformance.worker.interfaces import Geometry
from conformance.worker.vllm import caches
from conformance.worker.vllm.dense import DenseBackend

GEOMETRY = Geometry(*(4, 2, 8, 8, torch.float16), cache_dtype=torch.float8_e4m3fnuz, block_size=16)
BLOCKS, SHAPE, BYTES = 3, (3, 2, 16, 16), 3 * 2 * 16 * 16
# Bytes between neighbours along blocks, heads, slots and elements, where slots are outside heads.
SLOTS_FIRST = (512, 16, 32, 1)


def made(cls: Any, spec: Any = None) -> torch.Tensor:
    device = torch.device("cpu")
    return caches.allocate(cls, spec, GEOMETRY, BLOCKS, "fp8_e4m3", device)


class WithShape:
    """Until 0.28: the class gives the shape and the order of the axes."""

    order: tuple[int, ...] | type[Exception] = (0, 2, 1, 3)

    @staticmethod
    def get_kv_cache_shape(blocks: int, size: int, heads: int, width: int, dtype: str) -> Any:
        assert dtype == "fp8_e4m3"
        return (blocks, heads, size, 2 * width)

    @classmethod
    def get_kv_cache_stride_order(cls) -> tuple[int, ...]:
        if isinstance(cls.order, tuple):
            return cls.order
        raise cls.order


def test_a_shape_and_the_order_of_its_axes() -> None:
    cache = made(WithShape)
    assert (tuple(cache.shape), cache.stride()) == (SHAPE, SLOTS_FIRST)
    assert cache.dtype is torch.float8_e4m3fnuz
    assert caches.in_vllms_dtype(cache).dtype is torch.uint8


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError])
def test_a_class_that_gives_no_order(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(WithShape, "order", error)
    assert made(WithShape).is_contiguous()


def layouts(monkeypatch: pytest.MonkeyPatch, **interface: object) -> None:
    """From 0.29 on: vLLM's functions of specs and layouts, which are asked."""
    parts: dict[str, dict[str, object]] = {
        "vllm": {},
        "vllm.v1": {},
        "vllm.v1.kv_cache_interface": interface,
        "vllm.v1.attention": {},
        "vllm.v1.attention.backends": {},
        "vllm.v1.attention.backends.utils": {
            "get_supported_kv_cache_layouts": lambda classes: [f"layout of {len(classes)}", "other"]
        },
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


def test_a_spec_and_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def strides(_spec: object, blocks: int, layers: int, layout: str) -> tuple[int, ...]:
        assert (blocks, layers, layout) == (BLOCKS, 1, "layout of 1")
        return (BYTES, *SLOTS_FIRST)

    layouts(
        monkeypatch,
        compute_layer_kv_cache_shape_bytes=lambda _spec, _blocks: SHAPE,
        compute_layout_strides=strides,
    )
    cache = made(SimpleNamespace(), SimpleNamespace(page_size_bytes=BYTES // BLOCKS))
    assert (tuple(cache.shape), cache.stride()) == (SHAPE, SLOTS_FIRST)


def test_a_cache_that_is_described_in_no_known_way(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts(monkeypatch)
    with pytest.raises(UnknownError, match="does not know how this vLLM lays out"):
        made(SimpleNamespace(), SimpleNamespace(page_size_bytes=1))


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 1, 3), (2, 0, 3, 1)])
def test_all_of_a_cache_is_seen_whatever_its_axes(axes: tuple[int, ...]) -> None:
    cache, twin = (torch.empty(3, 1, 4, 2, dtype=torch.float16).permute(axes) for _ in range(2))
    fill(cache, "nan")
    assert bool(cache.isnan().all())
    opposite(cache, twin)
    assert count_equal(cache, twin) == 0
    for stored in (cache, twin):
        stored.view(torch.int16)[tuple(0 for _ in axes)] = 7
    assert count_equal(cache, twin) == 1
    assert len(as_bytes(cache)) == 3 * 4 * 2 * 2


def test_of_memory_with_gaps_all_is_seen() -> None:
    whole = torch.empty(4, 4)
    assert len(as_bytes(whole[:, :3])) == whole.nbytes


class OwnValues:
    """A class whose values have a head size of their own, told before layers are made."""

    head_size_v = 128

    @classmethod
    def set_head_size_v(cls, size: int) -> None:
        cls.head_size_v = size


@pytest.mark.parametrize(("cls", "told"), [(OwnValues, 24), (WithShape, None)])
def test_a_class_is_told_of_the_head_size_of_values(cls: Any, told: int | None) -> None:
    kernels: Any = SimpleNamespace(
        device=torch.device("cpu"), launches=None, simulated=True, class_of=lambda _name: cls
    )
    found = DenseBackend(kernels, "ANY")._class_for(replace(GEOMETRY, v_head_size=24))
    assert found is cls
    assert getattr(found, "head_size_v", None) == told


# ---- blocks that lie apart -----------------------------------------------------------------------


def release(monkeypatch: pytest.MonkeyPatch, folder: Path, runner: str = "") -> None:
    """A vLLM without layouts, whose model runner is this text."""
    path = folder / "v1" / "worker" / "gpu" / "attn_utils.py"
    path.parent.mkdir(parents=True)
    path.write_text(runner, encoding="utf-8")
    layouts(monkeypatch)
    monkeypatch.setattr(sys.modules["vllm"], "__file__", str(folder / "__init__.py"), raising=False)


BLOCK = SHAPE[1] * SHAPE[2] * SHAPE[3]
ONE_MORE = torch.Size((4, *SHAPE[1:]))


def test_pages_are_padded_where_the_runner_strides_over_what_is_unused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release(monkeypatch, tmp_path, "elif kv_cache_spec.page_size_padded is not None:")
    cache = caches.padded(made(WithShape), ONE_MORE, 16, hybrid=False, plain=True)
    assert tuple(cache.shape) == SHAPE
    assert cache.stride() == (BLOCK + 16, *SLOTS_FIRST[1:])


def test_pages_are_padded_where_layouts_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts(monkeypatch, compute_layout_strides=lambda: None)
    assert (
        caches.padded(made(WithShape), ONE_MORE, 16, hybrid=False, plain=True).stride()[0]
        == BLOCK + 16
    )


def test_rows_of_bytes_are_padded_only_where_layouts_are_computed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dense = made(WithShape)
    release(monkeypatch, tmp_path, "page_size_padded")
    assert caches.padded(dense, ONE_MORE, 16, hybrid=False, plain=False) is dense
    layouts(monkeypatch, compute_layout_strides=lambda: None)
    assert caches.padded(dense, ONE_MORE, 16, hybrid=False, plain=False) is not dense


@pytest.mark.parametrize("runner", ["", "views = raw.view(dtype)"])
def test_no_release_is_given_pages_that_its_engine_does_not_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runner: str
) -> None:
    release(monkeypatch, tmp_path, runner)
    dense = made(WithShape)
    assert caches.padded(dense, ONE_MORE, 16, hybrid=True, plain=True) is dense


def test_the_values_of_a_hybrid_model_s_block_are_behind_its_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With keys and values outermost; otherwise they are planes."""
    release(monkeypatch, tmp_path, "page_size_padded")
    planes = torch.empty((2, 3, 16, 2, 8), dtype=torch.float16)
    more, block = torch.Size((2, 4, 16, 2, 8)), 16 * 2 * 8
    together = caches.padded(planes, more, 16, hybrid=True, plain=True)
    assert together.stride() == (block, 2 * block, *planes.stride()[2:])
    assert together.shape == planes.shape
    assert caches.padded(planes, more, 16, hybrid=False, plain=True) is planes
    # Every element has memory of its own, and it is the planes'.
    together.copy_(torch.arange(planes.numel()).reshape(planes.shape) % 2048)
    assert sorted(planes.flatten().tolist()) == sorted(together.flatten().tolist())
