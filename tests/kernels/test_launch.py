"""Launch parameters: which family a target is of, and what RDNA gets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.matrix.targets import TARGETS
from rocm_reference.ops import launch
from rocm_reference.ops.launch import FAMILIES, Launch, choose, family_of, without_spills
from rocm_reference.ops.mla.common import LatentLaunch, for_family

LAUNCH = Launch(block_m=64, tile=64, num_warps=4, num_stages=1)


def test_families_are_those_of_the_target_table() -> None:
    assert {name: target.family for name, target in TARGETS.items()} == FAMILIES


def test_features_behind_a_target_do_not_matter() -> None:
    assert family_of("gfx942:sramecc+:xnack-") == "CDNA3"


@pytest.mark.parametrize("architecture", ["gfx1250", "gfx1202", "gfx12", "gfx9", "gfx908", ""])
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
        ("paged", 32, Launch(128, 64, 4, 3)),
        ("paged", 128, Launch(128, 64, 4, 3)),
        ("paged", 256, Launch(128, 32, 8, 2)),
        ("both", 128, Launch(128, 64, 8, 3)),
        # A padded head has masks, so it gets eight warps wherever its keys are.
        ("packed", 96, Launch(128, 64, 8, 3)),
        ("paged", 80, Launch(128, 64, 8, 3)),
        # Past what the table has: two stages of 32 keys fit.
        ("paged", 512, Launch(128, 32, 8, 2)),
    ],
)
def test_prefills_on_hopper(
    keys: launch.Keys, head_size: int, expected: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopper = SimpleNamespace(backend="cuda", arch=90)
    monkeypatch.setattr(launch, "current_target", lambda: hopper)
    monkeypatch.setattr(launch, "is_cuda", lambda _: True)
    query = torch.empty(0, dtype=torch.bfloat16)
    assert choose(query, 4, 512, head_size, keys) == expected


def test_an_older_gpu_gets_what_fits_its_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "current_target", lambda: SimpleNamespace(backend="cuda", arch=80))
    monkeypatch.setattr(launch, "is_cuda", lambda _: True)
    query = torch.empty(0, dtype=torch.bfloat16)
    assert choose(query, 4, 512, 128, "packed") == Launch(128, 64, 8, 3)
