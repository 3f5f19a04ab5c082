"""Launch parameters: which family a target is of, and what RDNA gets."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.matrix.targets import TARGETS, target
from conformance.problems.features import HEAD_SIZES
from conformance.suites.codegen.served import served
from conformance.suites.codegen.tiles import Tiles, tile_rows
from rocm_reference.ops import launch
from rocm_reference.ops.fp8 import in_pairs
from rocm_reference.ops.launch import (
    FAMILIES,
    Launch,
    choose,
    choose_decode,
    describes,
    family_of,
    run_kernel,
    without_spills,
)
from rocm_reference.ops.mla import common
from rocm_reference.ops.mla.common import (
    LatentLaunch,
    choose_latent,
    for_family,
    latent_segments,
)

LAUNCH = Launch(block_m=64, tile=64, num_warps=4, num_stages=1)


def test_families_are_those_of_the_target_table() -> None:
    assert {name: target.family for name, target in TARGETS.items()} == FAMILIES


def test_features_behind_a_target_do_not_matter() -> None:
    assert family_of("gfx942:sramecc+:xnack-") == "CDNA3"


@pytest.mark.parametrize("architecture", ["gfx1251", "gfx1202", "gfx12", "gfx9", "gfx908", ""])
def test_an_unknown_target_is_refused(architecture: str) -> None:
    with pytest.raises(NotImplementedError) as caught:
        family_of(architecture)
    for part in (f"no launch parameters for {architecture}", *FAMILIES, "ops/launch.py"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("family", "block_m", "tile", "num_warps"),
    [
        ("", 64, 64, 4),
        ("CDNA2", 64, 64, 4),
        ("CDNA4", 64, 64, 4),
        ("RDNA3", 32, 16, 8),
        ("RDNA3.5", 32, 16, 8),
        ("RDNA4", 64, 32, 8),
    ],
)
def test_rdna_gets_smaller_tiles(family: str, block_m: int, tile: int, num_warps: int) -> None:
    adjusted = without_spills(LAUNCH, 16, False, family)
    assert (adjusted.block_m, adjusted.tile, adjusted.num_warps) == (block_m, tile, num_warps)


@pytest.mark.parametrize(("family", "chunk"), [("CDNA3", 0), ("RDNA3.5", 64), ("RDNA4", 64)])
def test_rdna_reads_latent_rows_in_chunks(family: str, chunk: int) -> None:
    assert for_family(LatentLaunch(16, 32, 4, 1), family).chunk == chunk


@pytest.mark.parametrize(
    ("keys", "head_size", "expected"),
    [
        ("packed", 64, Launch(128, 64, 4, 4)),
        ("packed", 128, Launch(128, 128, 8, 3)),
        ("packed", 256, Launch(128, 64, 8, 2)),
        ("paged", 32, Launch(128, 128, 4, 2)),
        ("paged", 128, Launch(256, 128, 8, 3)),
        ("paged", 256, Launch(128, 64, 8, 2)),
        ("both", 128, Launch(128, 128, 8, 3)),
        # A padded head has masks, so it gets eight warps wherever its keys are.
        ("packed", 96, Launch(128, 128, 8, 3)),
        ("paged", 80, Launch(128, 128, 8, 3)),
        # Past what the table has: two stages of 32 keys fit.
        ("paged", 512, Launch(128, 32, 8, 2)),
    ],
)
def test_prefills_on_hopper(
    keys: launch.Keys, head_size: int, expected: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_nvidia(90, monkeypatch)
    assert choose(queries(512), 4, 512, head_size, keys) == expected


@pytest.mark.parametrize(
    ("group", "longest", "tokens", "sequences", "expected"),
    [
        # 128 rows do not fill the 256 that a long prefill gets.
        (4, 32, 32, 1, Launch(128, 64, 4, 3)),
        (8, 8, 64, 8, Launch(64, 64, 4, 3)),
        # Drafts that are verified: few rows, many keys.
        (4, 4, 128, 32, Launch(16, 128, 4, 4)),
        (8, 4, 128, 32, Launch(32, 128, 4, 4)),
        # Two prefills among 24 decodes.
        (4, 512, 1048, 26, Launch(64, 64, 4, 3)),
    ],
)
def test_short_sequences_on_hopper(
    group: int,
    longest: int,
    tokens: int,
    sequences: int,
    expected: Launch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_nvidia(90, monkeypatch)
    assert choose(queries(tokens), group, longest, 128, "paged", sequences) == expected


def test_an_older_gpu_gets_what_fits_its_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    on_nvidia(80, monkeypatch)
    assert choose(queries(512), 4, 512, 128, "packed") == Launch(128, 64, 8, 3)


@pytest.mark.parametrize(
    ("head_size", "itemsize", "packed_block", "expected"),
    [
        (128, 2, None, Launch(16, 64, 2, 3)),
        (64, 2, None, Launch(16, 128, 2, 3)),
        (256, 2, None, Launch(16, 32, 2, 4)),
        (192, 2, None, Launch(16, 16, 2, 6)),
        (128, 1, None, Launch(16, 64, 2, 5)),
        # A packed cache is read by whole blocks, 4 KiB a warp.
        (128, 2, 16, Launch(16, 16, 1, 5)),
        (64, 2, 16, Launch(16, 32, 1, 5)),
        (128, 2, 32, Launch(16, 32, 2, 5)),
        (96, 2, 16, Launch(16, 32, 1, 3)),
        (192, 2, 16, Launch(16, 32, 2, 3)),
    ],
)
def test_decodes_on_hopper(
    head_size: int,
    itemsize: int,
    packed_block: int | None,
    expected: Launch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_nvidia(90, monkeypatch)
    assert choose_decode(queries(8), 4, head_size, itemsize, packed_block) == expected


@pytest.mark.parametrize(
    ("heads", "tokens", "itemsize", "expected"),
    [
        (16, 1, 2, LatentLaunch(16, 64, 4, 2, together=True)),
        (4, 1, 2, LatentLaunch(16, 64, 4, 2, together=True)),
        (32, 1, 2, LatentLaunch(32, 64, 4, 2, together=True)),
        (16, 4, 2, LatentLaunch(64, 64, 8, 2, together=True)),
        (128, 1, 2, LatentLaunch(64, 64, 8, 2, together=True)),
        (16, 1, 1, LatentLaunch(16, 32, 4, 2, together=True)),
    ],
)
def test_latent_decodes_on_hopper(
    heads: int, tokens: int, itemsize: int, expected: LatentLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_nvidia(90, monkeypatch)
    assert choose_latent(queries(8), heads, tokens, itemsize) == expected


def test_an_older_gpu_holds_half_as_many_latent_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    on_nvidia(80, monkeypatch)
    assert choose_latent(queries(8), 128, 1, 2) == LatentLaunch(64, 32, 8, 2, together=True)


@pytest.mark.parametrize(("least", "segments"), [(16, 8), (64, 4)])
def test_latent_segments_are_as_many_as_run_at_a_time(
    least: int, segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    made = latent_segments(LatentLaunch(least, 64, 4, 2), 32, 8192, torch.device("cuda"))
    assert made == segments


class Recorded:
    """Stands in for a kernel of two parameters, and keeps what it is launched with."""

    def __init__(self) -> None:
        self.launched: list[tuple[object, tuple[object, ...], dict[str, int]]] = []

    def fn(self, first: object, second: object) -> None:
        raise NotImplementedError

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *args, **options: self.launched.append((grid, args, options))


def test_a_kernel_gets_its_arguments_by_position() -> None:
    kernel = Recorded()
    run_kernel(kernel, (3,), Launch(16, 32, 4, 2), second=2, first=1)
    run_kernel(kernel, (5,), first=None, second=0)
    options = {"num_warps": 4, "num_stages": 2}
    assert kernel.launched == [((3,), (1, 2), options), ((5,), (None, 0), {})]


def test_a_kernel_gets_no_other_arguments() -> None:
    kernel = Recorded()
    with pytest.raises(KeyError, match="second"):
        run_kernel(kernel, (1,), first=1)
    with pytest.raises(TypeError, match=r"fn takes 2 arguments: got .*third"):
        run_kernel(kernel, (1,), first=1, second=2, third=3)
    assert not kernel.launched


def test_whole_blocks_of_aligned_rows_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    on_nvidia(90, monkeypatch)
    monkeypatch.setattr("triton.set_allocator", lambda _: None)
    rows = torch.empty(64, 2, 128, dtype=torch.bfloat16)
    long, short = Launch(128, 128, 8, 3), Launch(64, 64, 4, 3)
    assert describes(long, rows, rows)
    assert not describes(short, rows, rows)
    assert not describes(long, rows.float(), rows.float())
    # Rows of 130 columns begin anywhere; a view that skips columns is not dense.
    uneven = torch.empty(64, 2, 130, dtype=torch.bfloat16)[..., :128]
    assert not describes(long, rows, uneven)
    assert not describes(long, torch.empty(64, 2, 256, dtype=torch.bfloat16)[..., ::2], rows)
    assert not describes(long, rows.flatten()[1:-255].view(63, 2, 128), rows[1:])
    on_nvidia(80, monkeypatch)
    assert not describes(long, rows, rows)


@pytest.mark.parametrize(
    ("columns", "paired"), [(64, False), (72, True), (128, True), (127, False)]
)
def test_rows_of_more_than_64_columns_are_read_in_pairs(columns: int, paired: bool) -> None:
    cache = torch.empty(3, 16, 2, columns, dtype=torch.uint8)
    values = cache.permute(0, 2, 3, 1)
    pairs = in_pairs(values)
    assert (pairs is not None) == paired
    if pairs is not None:
        assert pairs.shape == (3, 2, columns // 2, 16)


def queries(tokens: int) -> torch.Tensor:
    return torch.empty(tokens, 1, 1, dtype=torch.bfloat16)


def on_nvidia(capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(backend="cuda", arch=capability)
    for module in (launch, common):
        monkeypatch.setattr(module, "current_target", lambda: gpu)
        monkeypatch.setattr(module, "is_cuda", lambda _: True)


REFERENCE_TILES = [row for row in tile_rows() if row.subject == "reference"]


def chosen(group: int, tokens: int, head_size: int, dtype: torch.dtype) -> str:
    """What the unified kernel is launched with, as a case of the codegen suite counts it."""
    made = choose(torch.empty(1, dtype=dtype), group, tokens, head_size, "paged")
    return f"unified_kernel BLOCK_M={made.block_m} TILE={made.tile} warps={made.num_warps}"


def launched_as_served(gpu: str) -> set[str]:
    return {
        chosen(p.group, max(p.query_lens), p.head_size, getattr(torch, p.dtype))
        for p in served(target(gpu).fp8, "0.33")
        if p.backend == "TRITON_ATTN" and p.kind == "paged"
    }


def every_launch() -> set[str]:
    """Of every head size, of up to 16 query heads a KV head, and of Falcon's 71."""
    return {
        chosen(group, tokens, size, dtype)
        for group in range(1, 17)
        for size in HEAD_SIZES
        for dtype in (torch.bfloat16, torch.float32)
        for tokens in (1, 4, 16, 24, 64, 512)
    } | {chosen(71, tokens, 64, torch.bfloat16) for tokens in (1, 512)}


@pytest.mark.parametrize("gpu", ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"])
def test_served_models_choose_every_tile_and_the_table_has_them_all(
    gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "family", lambda: target(gpu).family)
    (row,) = (row for row in REFERENCE_TILES if target(gpu).family in row.families)
    listed = {f"{row.kernel} {choice}" for choice in row.choices}
    assert every_launch() == listed
    assert row.missing(launched_as_served(gpu)) == []


def test_a_tile_that_no_model_chooses_is_missing() -> None:
    row = Tiles("r", "unified_kernel", "reference", ("BLOCK_M=16 TILE=16 warps=4",))
    assert row.missing({"unified_kernel BLOCK_M=16 TILE=16 warps=8"}) == [*row.choices]
    assert row.missing({"another_kernel BLOCK_M=16 TILE=16 warps=4"}) == [*row.choices]
    assert row.missing({"unified_kernel BLOCK_M=16 TILE=16 warps=4"}) == []
