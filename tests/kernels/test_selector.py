"""The reference selector and its tables, where no truth table looks."""

from __future__ import annotations

import pytest

from conformance.matrix.requests import PagedAttention, Request
from rocm_reference.selector import (
    CUSTOM_KERNEL,
    INVALID_SELECTED_BACKEND,
    NO_VALID_BACKEND,
    TRITON_KERNEL,
    UNSUPPORTED_VIT_BACKEND,
    Selector,
)
from vllm_editions import editions, load_edition, nearest_edition

NEW, OLD = load_edition("0.19"), load_edition("0.18")
AITER = "VLLM_ROCM_USE_AITER"
REMOVED = "VLLM_ROCM_CUSTOM_PAGED_ATTN"


# ---- editions --------------------------------------------------------------------------------


def test_editions_are_listed_oldest_first() -> None:
    assert editions() == ["0.18", "0.19"]


@pytest.mark.parametrize(
    ("version", "edition"),
    [
        ("0.18", "0.18"),
        ("0.18.0rc1", "0.18"),
        ("0.18.1", "0.18"),
        ("0.18.99", "0.18"),
        ("0.19.0", "0.19"),
        ("0.19.0+rocm721", "0.19"),
        ("0.19.1.dev7+gabc", "0.19"),
        ("0.20.0", "0.19"),
        ("1.0", "0.19"),
        ("0.9.2", "0.18"),
        ("0.2", "0.18"),
    ],
)
def test_a_release_is_nearest_to_its_own_or_the_newest_older_edition(
    version: str, edition: str
) -> None:
    assert nearest_edition(version) == edition


@pytest.mark.parametrize("name", ["0.17", "0.18.1", "", "../capabilities/0.19"])
def test_an_edition_that_does_not_exist_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        load_edition(name)


def test_a_build_of_the_editions_own_series_changes_nothing() -> None:
    assert load_edition("0.19", "0.19.0") == NEW
    assert load_edition("0.18", "0.18.1") == OLD
    assert load_edition("0.18", "dev") == OLD


def test_an_older_build_keeps_its_own_release_bound_entries() -> None:
    mixed = load_edition("0.19", "0.18.1")
    paths = {bound.path for bound in NEW.release_bound}
    assert paths == {
        "selection.block_size_checked",
        "backends.ROCM_ATTN.attn_types",
        "backends.ROCM_AITER_FA.attn_types",
    }
    assert mixed.selection.block_size_checked is OLD.selection.block_size_checked is False
    for name in ("ROCM_ATTN", "ROCM_AITER_FA"):
        assert mixed.backends[name].attn_types == OLD.backends[name].attn_types
        assert mixed.backends[name].attn_types != NEW.backends[name].attn_types

    # Everything else is the edition's.
    assert mixed.candidates == NEW.candidates
    assert mixed.flags == NEW.flags
    assert mixed.selection.aiter_supported_on == NEW.selection.aiter_supported_on
    assert mixed.backends["ROCM_ATTN"].sinks is NEW.backends["ROCM_ATTN"].sinks is False
    assert load_edition("0.19") == NEW


def test_the_mixed_edition_decides_by_both() -> None:
    odd = Request(block_size=24, attn_type="encoder_decoder")
    assert Selector(load_edition("0.19", "0.18.1"), "gfx942").reasons("ROCM_ATTN", odd) == ()
    assert Selector(NEW, "gfx942").reasons("ROCM_ATTN", odd) == (
        "block_size not supported",
        "attention type encoder_decoder not supported",
    )


# ---- what a platform is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "on"),
    [
        ("1", True),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("0", False),
        ("false", False),
        ("yes", False),
        ("on", False),
        ("", False),
        (" 1", False),
        ("2", False),
    ],
)
def test_a_flag_is_on_for_1_and_true_in_any_case(value: str, on: bool) -> None:
    candidates = Selector(NEW, "gfx942", aiter=True, env={AITER: value}).candidates(Request())
    assert ("ROCM_AITER_FA" in candidates) == on


def test_a_variable_that_no_edition_knows_changes_nothing() -> None:
    plain = Selector(NEW, "gfx942", aiter=True)
    odd = Selector(NEW, "gfx942", aiter=True, env={"VLLM_ROCM_NO_SUCH": "1", REMOVED: "0"})
    assert odd.select(Request()) == plain.select(Request())
    assert odd.paged_attention(PagedAttention()) == plain.paged_attention(PagedAttention())


def test_the_removed_variable_still_counts_where_it_existed() -> None:
    off = {REMOVED: "0"}
    assert Selector(OLD, "gfx942").paged_attention(PagedAttention()) == CUSTOM_KERNEL
    assert Selector(OLD, "gfx942", env=off).paged_attention(PagedAttention()) == TRITON_KERNEL


def test_a_target_of_no_class_has_no_custom_kernel() -> None:
    assert Selector(NEW, "gfx1030").paged_attention(PagedAttention()) == TRITON_KERNEL


# ---- answers ---------------------------------------------------------------------------------


def test_left_out_says_what_is_needed() -> None:
    assert Selector(NEW, "gfx942").left_out(Request()) == {
        "ROCM_AITER_FA": ("aiter installed, on gfx942/gfx950", f"{AITER}=1"),
        "ROCM_AITER_UNIFIED_ATTN": ("aiter installed, on gfx942/gfx950",),
    }
    env = {AITER: "1", "VLLM_ROCM_USE_AITER_MHA": "0"}
    here = Selector(NEW, "gfx950", aiter=True, env=env)
    assert here.left_out(Request()) == {"ROCM_AITER_FA": ("VLLM_ROCM_USE_AITER_MHA=1",)}
    assert set(Selector(NEW, "gfx942").left_out(Request(use_mla=True))) == {
        "ROCM_AITER_MLA",
        "ROCM_AITER_TRITON_MLA",
    }
    assert Selector(NEW, "gfx942").left_out(Request(use_mla=True, use_sparse=True)) == {}


def test_left_out_and_candidates_are_the_whole_family() -> None:
    for edition in (OLD, NEW):
        for aiter in (True, False):
            here = Selector(edition, "gfx942", aiter=aiter, env={AITER: "1"})
            listed, left = here.candidates(Request()), here.left_out(Request())
            assert {*listed, *left} == {entry.backend for entry in edition.candidates.dense}
            assert not set(listed) & set(left)


def test_the_option_of_018_puts_rocm_attn_on_the_list() -> None:
    here = Selector(OLD, "gfx942")
    assert here.left_out(Request()).pop("ROCM_ATTN") == ("use_prefill_decode_attention",)
    assert here.select(Request()).selected == "TRITON_ATTN"
    assert here.select(Request(use_prefill_decode_attention=True)).selected == "ROCM_ATTN"


def test_a_backend_that_the_edition_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="FLASHINFER"):
        Selector(NEW, "gfx942").select(Request(), "FLASHINFER")


def test_an_explicit_backend_is_never_replaced() -> None:
    decision = Selector(NEW, "gfx942").select(Request(has_sink=True), "ROCM_ATTN")
    assert (decision.selected, decision.error) == (None, INVALID_SELECTED_BACKEND)
    assert [name for name, _ in decision.candidates] == ["ROCM_ATTN"]
    assert "attention sinks not supported" in decision.message


def test_an_error_names_every_candidate_and_reason() -> None:
    decision = Selector(NEW, "gfx90a").select(Request(dtype="float64"))
    assert (decision.selected, decision.error) == (None, NO_VALID_BACKEND)
    for name, reasons in decision.candidates:
        assert reasons == ("dtype not supported",)
        assert name in decision.message
    assert "gfx90a" in decision.message


def test_reasons_come_in_one_order() -> None:
    request = Request(
        head_size=7,
        dtype="float64",
        kv_cache_dtype="fp8_ds_mla",
        block_size=5,
        use_mla=True,
        has_sink=True,
        use_sparse=True,
        use_mm_prefix=True,
        use_per_head_quant_scales=True,
        attn_type="encoder",
    )
    assert Selector(NEW, "gfx90a").reasons("ROCM_AITER_FA", request) == (
        "head_size not supported",
        "dtype not supported",
        "kv_cache_dtype not supported",
        "block_size not supported",
        "partial multimodal token full attention not supported",
        "MLA not supported",
        "attention sinks not supported",
        "sparse not supported",
        "per-head quant scales not supported",
        "compute capability not supported",
        "attention type encoder not supported",
    )


def test_a_vision_backend_that_is_none_is_refused_with_those_allowed() -> None:
    decision = Selector(NEW, "gfx942").vit("float16", "TREE_ATTN")
    assert (decision.selected, decision.error) == (None, UNSUPPORTED_VIT_BACKEND)
    assert all(name in decision.message for name in NEW.vit.explicit)
    assert Selector(NEW, "gfx942").vit("float16", "TRITON_ATTN").selected == "TRITON_ATTN"
