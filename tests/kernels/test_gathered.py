"""ROCM_ATTN's long extends: a packed context that is gathered gives what its own kernel does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.benchmarks.setup import Setup, filled, output, set_up
from conformance.benchmarks.workloads import Workload
from rocm_reference.attention import Dispatch
from rocm_reference.backends import rocm_attn
from rocm_reference.backends.rocm_attn import GATHERED_FROM, RocmAttention, is_gathered
from rocm_reference.ops.gathered import attend_gathered

LENGTHS = ((9, 40), (1, 33), (17, 70))


@pytest.fixture
def extend() -> Setup:
    return set_up(Workload("extend", LENGTHS, 4, 2, head_size=32), "cpu")


def attended(setup: Setup) -> tuple[torch.Tensor, torch.Tensor, Dispatch]:
    """ROCM_ATTN's output, log-sum-exp and what ran."""
    kernel, out = RocmAttention(), output(setup).fill_(float("nan"))
    lse = torch.empty(out.shape[:2])
    ran = kernel.attend(
        setup.query,
        setup.keys[setup.new],
        setup.values[setup.new],
        filled(setup, kernel),
        setup.batch,
        setup.geometry,
        setup.scores,
        setup.scales,
        out,
        lse,
    )
    return out.float(), lse, ran


def test_a_gathered_context_gives_the_same(extend: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, expected_lse, ran = attended(extend)
    assert ran[0] == "context_attention"
    monkeypatch.setattr(rocm_attn, "is_gathered", lambda *_: True)
    # Both sequences' contexts are cut: chunks hold 32 keys of each.
    monkeypatch.setattr(attend_gathered, "__defaults__", (32 * len(LENGTHS),))
    found, lse, ran = attended(extend)
    assert "gather_context" in ran
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=0.01)


def test_what_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocm_attn, "is_cuda", lambda _: True)
    tokens = GATHERED_FROM // 2
    setup = set_up(Workload("long", ((tokens, tokens),), 4, 2, head_size=32), "cpu")

    def asked(made: Setup) -> bool:
        return is_gathered(made.query, made.batch, made.geometry, made.scores)

    assert asked(setup)
    geometry = replace(setup.geometry, cache_dtype=torch.float8_e4m3fn)
    assert not asked(replace(setup, geometry=geometry))
    assert not asked(replace(setup, scores=replace(setup.scores, window=(8, -1))))
    prefix = torch.zeros(1, 1, 2, dtype=torch.int32)
    assert not asked(replace(setup, scores=replace(setup.scores, mm_prefix=prefix)))
    for max_context_len in (None, tokens - 1):
        batch = replace(setup.batch, max_context_len=max_context_len)
        assert not asked(replace(setup, batch=batch))
    assert not asked(replace(setup, batch=replace(setup.batch, max_query_len=tokens - 1)))
    among_decodes = set_up(
        Workload("mixed", ((tokens, tokens), *((1, 1),) * 2), 4, 2, head_size=32), "cpu"
    )
    assert not asked(among_decodes)
    monkeypatch.setattr(rocm_attn, "is_cuda", lambda _: False)
    assert not asked(setup)
