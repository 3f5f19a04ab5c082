"""Keys that are gathered from pages first give what kernels give that read the pages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from conformance.benchmarks.setup import Setup, set_up
from conformance.benchmarks.workloads import Workload
from rocm_reference.backends import rocm_attn, triton_attn
from rocm_reference.backends.rocm_attn import is_gathered
from rocm_reference.ops import gathered
from rocm_reference.ops.gathered import GATHERED_FROM, WHOLE_TOKENS, attend_gathered
from tests.kernels.attended import attended

LENGTHS = ((9, 40), (1, 33), (17, 70))


@pytest.fixture
def extend() -> Setup:
    return set_up(Workload("extend", LENGTHS, 4, 2, head_size=32), "cpu")


def test_a_gathered_context_gives_the_same(extend: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, expected_lse, ran = attended(extend, "ROCM_ATTN")
    assert ran[0] == "context_attention"
    monkeypatch.setattr(rocm_attn, "is_gathered", lambda *_: True)
    # Both sequences' contexts are cut: chunks hold 32 keys of each.
    monkeypatch.setattr(attend_gathered, "__defaults__", (32 * len(LENGTHS),))
    found, lse, ran = attended(extend, "ROCM_ATTN")
    assert "gather_context" in ran
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["TRITON_ATTN", "ROCM_AITER_UNIFIED_ATTN"])
def test_a_gathered_cache_gives_the_same(
    name: str, extend: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = torch.tensor([-1.0, 0.5, 2.0, 0.0])
    setup = replace(extend, scores=replace(extend.scores, sinks=sinks))
    expected, expected_lse, ran = attended(setup, name)
    assert "gather_cache" not in ran
    monkeypatch.setattr(triton_attn, "is_gathered", lambda *_: True)
    found, lse, ran = attended(setup, name)
    assert "gather_cache" in ran
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=0.01)


def test_which_caches_are_gathered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "is_cuda", lambda _: True)
    setup = set_up(Workload("long", ((GATHERED_FROM // 2, 0),), 4, 2, head_size=32), "cpu")

    def asked(made: Setup) -> bool:
        return triton_attn.is_gathered(made.query, made.batch, made.geometry, made.scores)

    assert asked(setup)
    for change in (
        {"causal": False},
        {"prompt_lens": torch.ones(1)},
        {"query_bias": torch.zeros(1, 1)},
        {"window": (8, -1)},
    ):
        assert not asked(replace(setup, scores=replace(setup.scores, **change)))
    assert not asked(replace(setup, batch=replace(setup.batch, max_seq_len=WHOLE_TOKENS + 1)))
    monkeypatch.setattr(gathered, "is_cuda", lambda _: False)
    assert not asked(setup)


def test_what_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "is_cuda", lambda _: True)
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
    monkeypatch.setattr(gathered, "is_cuda", lambda _: False)
    assert not asked(setup)
