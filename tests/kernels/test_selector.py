"""The reference selector and its tables, where no truth table looks."""

from __future__ import annotations

from typing import Any

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
from vllm_editions import load_edition, nearest_edition

NEW, OLD = load_edition("0.19"), load_edition("0.18")
AITER = "VLLM_ROCM_USE_AITER"
REMOVED = "VLLM_ROCM_CUSTOM_PAGED_ATTN"


# ---- editions --------------------------------------------------------------------------------


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
        ("0.20.0", "0.20"),
        ("0.34.0", "0.33"),
        ("1.0", "0.33"),
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


# ---- what later editions have -----------------------------------------------------------------

TURBOQUANT_RUN = "turboquant_4bit_nc"
ADAPTIVE = "device-cpu query lens mismatch not supported, this is needed for adaptive verification"


def with_true(*fields: str) -> Request:
    values: dict[str, Any] = dict.fromkeys(fields, True)
    return Request(**values)


def test_a_candidate_may_depend_on_the_request() -> None:
    here = Selector(load_edition("0.26"), "gfx942", aiter=True)
    assert "ROCM_ATTN" in here.candidates(Request())
    for field in ("use_kv_connector", "encoder_decoder_model"):
        request = with_true(field)
        assert "ROCM_ATTN" not in here.candidates(request)
        assert here.left_out(request)["ROCM_ATTN"] == (f"not {field}",)


def test_aiter_on_rdna4_puts_the_unified_backend_first() -> None:
    edition = load_edition("0.28")
    first = {
        (target, value): Selector(edition, target, aiter=True, env={AITER: value}).candidates(
            Request()
        )[0]
        for target in ("gfx1201", "gfx1100", "gfx942")
        for value in "10"
    }
    assert first.pop(("gfx1201", "1")) == "ROCM_AITER_UNIFIED_ATTN"
    assert set(first.values()) == {"ROCM_ATTN"}
    assert "ROCM_AITER_UNIFIED_ATTN" in Selector(edition, "gfx1201").left_out(Request())


def test_checks_come_after_the_attention_type_in_the_editions_order() -> None:
    request = Request(
        attn_type="encoder",
        has_sliding_window=True,
        use_rswa=True,
        use_non_causal=True,
        use_batch_invariant=True,
        use_pcp=True,
        use_dcp=True,
    )
    assert Selector(load_edition("0.30"), "gfx942").reasons("TURBOQUANT", request) == (
        "kv_cache_dtype not supported",
        "attention type encoder not supported",
        "sliding window not supported",
        "R-SWA not supported",
        "non-causal attention not supported",
        "batch invariance not supported",
        "PCP not supported",
        "DCP not supported",
    )


def test_a_check_of_several_fields_needs_them_all() -> None:
    here = Selector(load_edition("0.29"), "gfx942")
    reason = "non-causal MLA attention with DCP not supported"
    all_three = ("use_mla", "use_non_causal", "use_dcp")
    assert reason in here.reasons("TRITON_MLA", with_true(*all_three))
    for one in all_three:
        less = with_true(*(field for field in all_three if field != one))
        assert reason not in here.reasons("TRITON_MLA", less)


def test_a_field_that_the_edition_does_not_check_changes_nothing() -> None:
    here = Selector(load_edition("0.19"), "gfx942")
    asked = Request(use_non_causal=True, has_sliding_window=True, use_dcp=True, use_rswa=True)
    assert here.select(asked) == here.select(Request())


def test_adaptive_verification_is_supported_unless_a_backend_says_otherwise() -> None:
    edition = load_edition("0.28")
    request = Request(use_adaptive_verification=True)
    assert Selector(edition, "gfx942").reasons("TRITON_ATTN", request) == ()
    less = edition.backends["TRITON_ATTN"].model_copy(update={"adaptive_verification": False})
    changed = edition.model_copy(update={"backends": {"TRITON_ATTN": less}})
    lists = edition.candidates.model_copy(update={"dense": (), "mla": (), "sparse": ()})
    changed = changed.model_copy(update={"candidates": lists})
    assert Selector(changed, "gfx942").reasons("TRITON_ATTN", request) == (ADAPTIVE,)


def test_a_capability_may_depend_on_the_machine() -> None:
    edition = load_edition("0.30")
    request = Request(use_mla=True, use_non_causal=True, dtype="bfloat16")
    valid = {
        (target, aiter)
        for target in ("gfx942", "gfx950", "gfx1201")
        for aiter in (True, False)
        if not Selector(edition, target, aiter=aiter).reasons("ROCM_AITER_MLA", request)
    }
    assert valid == {("gfx950", True)}


def test_a_combination_is_refused_in_the_backends_own_words() -> None:
    edition = load_edition("0.32")
    name = "ROCM_SEGMENTED_ATTN"
    off_rdna = ("ROCM_SEGMENTED_ATTN requires AMD RDNA GPUs on ROCm",)
    old_fp8 = ("FP8 segmented attention requires gfx12",)
    fp8 = Request(kv_cache_dtype="fp8")
    assert Selector(edition, "gfx942").reasons(name, fp8) == off_rdna
    assert Selector(edition, "gfx1100").reasons(name, fp8) == old_fp8
    assert Selector(edition, "gfx1100").reasons(name, Request()) == ()
    assert Selector(edition, "gfx1201").reasons(name, fp8) == ()

    half = Request(use_mla=True, use_non_causal=True, kv_cache_dtype=None)
    here = Selector(edition, "gfx950", aiter=True)
    assert here.reasons("ROCM_AITER_MLA", half) == ("non-causal fp16 MLA decode not supported",)


def test_a_backend_may_need_a_kv_cache_dtype() -> None:
    here = Selector(load_edition("0.20"), "gfx942")
    assert here.reasons("TURBOQUANT", Request(kv_cache_dtype=None)) == (
        "kv_cache_dtype not supported",
    )
    assert here.reasons("TURBOQUANT", Request(kv_cache_dtype=TURBOQUANT_RUN)) == ()


def test_a_backend_that_imports_aiter_needs_it() -> None:
    edition = load_edition("0.29")
    assert Selector(edition, "gfx942").reasons("ROCM_AITER_FA", Request()) == ("ImportError",)
    assert Selector(edition, "gfx942", aiter=True).reasons("ROCM_AITER_FA", Request()) == ()
    assert Selector(load_edition("0.32"), "gfx942").reasons("ROCM_AITER_FA", Request()) == ()


def test_in_a_packed_run_a_layer_needs_a_layout_in_common() -> None:
    here = Selector(load_edition("0.31"), "gfx942")
    decision = here.select(Request(run_kv_cache_dtype=TURBOQUANT_RUN))
    assert decision.selected == "TRITON_ATTN"
    assert dict(decision.candidates)["ROCM_ATTN"] == (
        "no KV cache layout in common with TURBOQUANT",
    )
    # Only where there is nothing else against it.
    wide = here.select(Request(run_kv_cache_dtype=TURBOQUANT_RUN, has_sink=True))
    assert dict(wide.candidates)["ROCM_ATTN"] == ("attention sinks not supported",)
    assert (
        Selector(load_edition("0.30"), "gfx942")
        .select(Request(run_kv_cache_dtype=TURBOQUANT_RUN))
        .selected
        == "ROCM_ATTN"
    )


def test_an_ultraquant_run_is_looked_at_for_explicit_backends_alone() -> None:
    here = Selector(load_edition("0.32"), "gfx942")
    request = Request(run_kv_cache_dtype="ultraquant_4bit")
    assert here.select(request).selected == "ROCM_ATTN"
    # The explicit one gives way to the automatic choice, which takes it all the same.
    decision = here.select(request, "FLEX_ATTENTION")
    assert decision.selected == "FLEX_ATTENTION"
    assert here.select(request, "ROCM_ATTN").candidates[0] == ("ROCM_ATTN", ())


def test_layouts_may_be_those_of_a_target() -> None:
    edition = load_edition("0.33")
    request = Request(head_size=256, kv_cache_dtype=None, run_kv_cache_dtype=TURBOQUANT_RUN)
    rejected = {
        target: dict(Selector(edition, target).select(request).candidates)["ROCM_OCTAVE"]
        for target in ("gfx942", "gfx1100")
    }
    assert rejected == {
        "gfx942": ("no KV cache layout in common with TURBOQUANT",),
        "gfx1100": (),
    }


def test_an_explicit_backend_gives_way_where_the_edition_says_so() -> None:
    packed = Request(kv_cache_dtype=TURBOQUANT_RUN)
    odd = Request(kv_cache_dtype=TURBOQUANT_RUN, has_sliding_window=True)
    answers = {
        name: [
            Selector(load_edition(name), "gfx942").select(request, "TRITON_ATTN").error
            for request in (packed, odd)
        ]
        for name in ("0.27", "0.28", "0.31")
    }
    assert answers == {
        "0.27": [INVALID_SELECTED_BACKEND, INVALID_SELECTED_BACKEND],
        "0.28": [None, NO_VALID_BACKEND],
        "0.31": [None, NO_VALID_BACKEND],
    }
    # From 0.31 on only for the KV dtype or the layout.
    wrong = Request(kv_cache_dtype=TURBOQUANT_RUN, use_per_head_quant_scales=True)
    by_release = [
        Selector(load_edition(name), "gfx942").select(wrong, "TRITON_ATTN").error
        for name in ("0.28", "0.31")
    ]
    assert by_release == [NO_VALID_BACKEND, INVALID_SELECTED_BACKEND]


def test_gfx1250_is_cdna_from_027_on() -> None:
    question = PagedAttention(gqa_ratio=1, head_size=64)
    kernels = {
        name: Selector(load_edition(name), "gfx1250").paged_attention(question)
        for name in ("0.26", "0.27")
    }
    assert kernels == {"0.26": TRITON_KERNEL, "0.27": CUSTOM_KERNEL}
    here = Selector(load_edition("0.27"), "gfx1250", aiter=True, env={AITER: "1"})
    assert "ROCM_AITER_FA" in here.candidates(Request())
    assert here.vit("float16").selected == "ROCM_AITER_FA"
