"""The faults: what is wrong with each build, and the requirements that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.matrix.requests import AITER, MHA, REMOVED_VARIABLE
from tests.suites.faults import wrong_rules as wrong
from tests.suites.faults.fault import Fault, Table

MLA_FLAG = "VLLM_ROCM_USE_AITER_MLA"
UNIFIED = wrong.UNIFIED
FP8 = {"fp8", "fp8_e4m3", "fp8_e5m2"}
NO_AITER = ("rocm62-noaiter-mha",)
NO_MHA = ("rocm62-aiter-nomha",)
REMOVAL = ("removal",)
ON, OFF = ("1", "true"), ("0", "false", "False", "")
NUMBERS = ("1", "01", "true", "True", "TRUE")
SETS_IT = f"export {REMOVED_VARIABLE}=0\n"
PACKAGE = {"vllm/__init__.py": '__version__ = "0.19.0"\n'}
CHECKOUT = {**PACKAGE, "pyproject.toml": "", "docs/index.md": "# Docs\n"}

READS_IT = 'import os\n\nOLD = os.environ.get("VLLM_V1_USE_PREFILL_DECODE_ATTENTION")\n'
DEAD_FLAG = {
    "vllm/envs.py": 'environment_variables = {\n    "VLLM_ROCM_DEAD": None,\n}\n',
    "vllm/flags.py": """
from vllm import envs

class Flags:
    _DEAD = envs.VLLM_ROCM_DEAD

    def is_dead(self):
        return self._DEAD
""",
    "csrc/kernel.cu": "// compiled code that reads no variable\n",
}

Edit = Callable[[Table], None]

CONFORMING = Fault("none", (), files=PACKAGE, suites=("selection", "removal"))


def order(family: str, *names: str) -> Edit:
    """These candidates in this order, those not named gone."""

    def edit(table: Table) -> None:
        entries = {entry["backend"]: entry for entry in table["candidates"][family]}
        table["candidates"][family] = [entries[name] for name in names]

    return edit


def when(family: str, backend: str, *conditions: str) -> Edit:
    """A candidate that depends on other conditions."""

    def edit(table: Table) -> None:
        for entry in table["candidates"][family]:
            if entry["backend"] == backend:
                entry["when"] = conditions

    return edit


def backend(name: str, **entries: Any) -> Edit:
    """A backend that supports something else; a function changes what there was."""

    def edit(table: Table) -> None:
        row = table["backends"][name]
        for key, value in entries.items():
            row[key] = value(row[key]) if callable(value) else value

    return edit


def inner(target_class: str, **entries: Any) -> Edit:
    """Another condition of ROCM_ATTN's custom kernel."""

    def edit(table: Table) -> None:
        table["paged_attention"][target_class].update(entries)

    return edit


def vision(number: int, **entries: Any) -> Edit:
    """Another rule of the vision choice."""

    def edit(table: Table) -> None:
        table["vit"]["rules"][number].update(entries)

    return edit


def flash_attn_first(table: Table) -> None:
    aiter, flash_attn, *rest = table["vit"]["rules"]
    table["vit"]["rules"] = [flash_attn, aiter, *rest]


def block_size_unchecked(table: Table) -> None:
    table["selection"]["block_size_checked"] = False


FA, ROCM, TRITON = "ROCM_AITER_FA", "ROCM_ATTN", "TRITON_ATTN"

CANDIDATES = (
    Fault("fa above rocm_attn", ("SEL-004",), order("dense", FA, ROCM, UNIFIED, TRITON)),
    Fault("unified above fa", ("SEL-004", "SEL-006"), order("dense", ROCM, UNIFIED, FA, TRITON)),
    Fault(
        "triton above rocm_attn",
        ("SEL-001", "SEL-002", "SEL-012", "SEL-016"),
        order("dense", TRITON, ROCM, FA, UNIFIED),
        cells=NO_AITER,
    ),
    Fault(
        "rocm_attn missing",
        ("SEL-001", "SEL-002", "SEL-004", "SEL-012", "SEL-045"),
        order("dense", FA, UNIFIED, TRITON),
    ),
    Fault(
        "unified missing",
        ("SEL-003", "SEL-011", "SEL-013", "SEL-014"),
        order("dense", ROCM, FA, TRITON),
    ),
    Fault(
        "unified only when enabled",
        ("SEL-003", "SEL-014"),
        when("dense", UNIFIED, "aiter_supported", AITER),
    ),
    Fault(
        "unified only with mha",
        ("SEL-005",),
        when("dense", UNIFIED, "aiter_supported", MHA),
        cells=NO_MHA,
    ),
    Fault(
        "unified moved by its flag",
        ("SEL-008",),
        selector=wrong.with_candidates(wrong.unified_first_by_flag),
    ),
    Fault(
        "prefill-decode option read",
        ("SEL-009",),
        selector=wrong.with_candidates(wrong.option_read),
    ),
    Fault("gfx90a counts, dense", ("SEL-007",), selector=wrong.counting_gfx90a("dense")),
    Fault("gfx90a counts, mla", ("SEL-024",), selector=wrong.counting_gfx90a("mla")),
    Fault("gfx90a counts, vit", ("VIT-002",), selector=wrong.counting_gfx90a("vit")),
    Fault(
        "aiter asked for is enough, dense",
        ("SEL-001", "SEL-002"),
        when("dense", FA, AITER, MHA),
        cells=NO_AITER,
    ),
    Fault(
        "aiter asked for is enough, mla",
        ("SEL-022", "SEL-023"),
        when("mla", "ROCM_AITER_MLA", AITER, MLA_FLAG),
        cells=NO_AITER,
    ),
    Fault("fa without being enabled", ("SEL-003",), when("dense", FA, "aiter_supported", MHA)),
    Fault(
        "mha flag ignored",
        ("SEL-005",),
        when("dense", FA, "aiter_supported", AITER),
        cells=NO_MHA,
    ),
    Fault(
        "mla flag ignored",
        ("SEL-021",),
        when("mla", "ROCM_AITER_MLA", "aiter_supported", AITER),
    ),
    Fault(
        "mla order swapped",
        ("SEL-020",),
        order("mla", "TRITON_MLA", "ROCM_AITER_MLA", "ROCM_AITER_TRITON_MLA"),
    ),
    Fault(
        "sparse falls to mla",
        ("SEL-032",),
        selector=wrong.with_decision(wrong.sparse_falls_to_mla),
    ),
    Fault(
        "sparse reads fp8",
        ("SEL-033",),
        backend(wrong.SPARSE, kv_cache_dtypes=lambda dtypes: {*dtypes, *FP8}),
    ),
    Fault("sparse takes sinks", ("SEL-035",), backend(wrong.SPARSE, sinks=True)),
    Fault(
        "sparse has no candidate that is sparse",
        ("SEL-030",),
        lambda table: table["candidates"].update(sparse=[{"backend": "TRITON_MLA"}]),
    ),
    Fault(
        "mla falls to dense",
        ("SEL-025",),
        selector=wrong.with_decision(wrong.mla_falls_to_dense),
    ),
    Fault(
        "sinks pass unified",
        ("SEL-013", "SEL-014"),
        selector=wrong.with_candidates(wrong.sinks_pass_unified),
    ),
)

DEFAULTS, SPELLINGS = ("SEL-092",), ("SEL-093",)
FLAGS = (
    Fault("aiter is on unless set", DEFAULTS, selector=wrong.reading(lambda e: {AITER: "1", **e})),
    Fault("mha is off unless set", DEFAULTS, selector=wrong.reading(lambda e: {MHA: "0", **e})),
    Fault(
        "mla is off unless set", DEFAULTS, selector=wrong.reading(lambda e: {MLA_FLAG: "0", **e})
    ),
    Fault("only 1 is on", SPELLINGS, selector=wrong.reading_values("1".__eq__)),
    Fault("True is off", SPELLINGS, selector=wrong.reading_values(lambda v: v in ("1", "true"))),
    Fault(
        "numbers are read", SPELLINGS, selector=wrong.reading_values(lambda v: v.strip() in NUMBERS)
    ),
    Fault(
        "what is not off is on", SPELLINGS, selector=wrong.reading_values(lambda v: v not in OFF)
    ),
    Fault(
        "nothing is on", SPELLINGS, selector=wrong.reading_values(lambda v: v.lower() in ("", *ON))
    ),
)

CAPABILITIES = (
    Fault(
        "rocm_attn reports sinks",
        ("CAP-071", "SEL-013", "SEL-014", "SEL-015", "SEL-016"),
        backend(ROCM, sinks=True),
    ),
    Fault("triton_attn without sinks", ("CAP-070", "SEL-015"), backend(TRITON, sinks=False)),
    Fault("fa on any gpu", ("CAP-100",), backend(FA, only_on=None)),
    Fault("fa on any gpu, without aiter", ("CAP-102",), backend(FA, only_on=None), cells=NO_AITER),
    Fault("triton_attn on cdna only", ("CAP-101",), backend(TRITON, only_on="gfx9")),
    Fault(
        "head size 80 dropped",
        ("CAP-010", "SEL-012"),
        backend(ROCM, head_sizes=lambda sizes: sizes - {80}),
    ),
    Fault("head size 31 accepted", ("CAP-010",), backend(TRITON, min_head_size=31)),
    Fault("fp8 cache dropped", ("CAP-030",), backend(ROCM, kv_cache_dtypes=lambda d: d - FP8)),
    Fault("fa takes float32", ("CAP-020",), backend(FA, dtypes=lambda d: d | {"float32"})),
    Fault("block size unchecked", ("CAP-040", "CAP-041", "SEL-018"), block_size_unchecked),
    Fault(
        "block size 32 rejected",
        ("CAP-042",),
        selector=wrong.with_reasons(wrong.block_32_rejected),
    ),
    Fault("triton_attn without mm prefix", ("CAP-050",), backend(TRITON, mm_prefix=False)),
    Fault("triton_attn takes mla only", ("CAP-060",), backend(TRITON, mla=True)),
    Fault(
        "rocm_attn takes cross-attention",
        ("CAP-111", "SEL-017"),
        backend(ROCM, attn_types=lambda types: types | {"encoder_decoder"}),
    ),
    Fault(
        "flex_attention takes encoders",
        ("CAP-110",),
        backend("FLEX_ATTENTION", attn_types=lambda types: types | {"encoder"}),
    ),
    Fault("per-head scales accepted", ("CAP-090",), backend(TRITON, per_head_quant_scales=True)),
    Fault("sparse on triton_mla", ("CAP-080",), backend("TRITON_MLA", sparse=True)),
    Fault(
        "sparse without mla accepted",
        ("SEL-031",),
        selector=wrong.with_reasons(wrong.sparse_without_mla),
    ),
)

RULES = (
    Fault("explicit replaced", ("SEL-041",), selector=wrong.with_decision(wrong.replaced)),
    Fault("explicit ignored", ("SEL-040",), selector=wrong.with_decision(wrong.ignored)),
    Fault(
        "explicit must be enabled",
        ("SEL-043",),
        selector=wrong.with_decision(wrong.must_be_enabled),
    ),
    Fault(
        "explicit must import",
        ("SEL-046", "SEL-047"),
        selector=wrong.with_reasons(wrong.aiter_must_import),
        cells=NO_AITER,
    ),
    Fault("explicit checked less", ("SEL-091", "CAP-071"), selector=wrong.ChecksExplicitLess),
    Fault("first reason only", ("SEL-042",), selector=wrong.with_reasons(wrong.first_reason)),
    Fault("reasons reversed", ("SEL-042",), selector=wrong.with_reasons(wrong.other_order)),
    Fault("a demand forgives", ("SEL-090",), selector=wrong.with_reasons(wrong.demand_forgives)),
    Fault("errors say nothing", ("SEL-042", "SEL-044"), selector=wrong.with_decision(wrong.silent)),
    Fault(
        "errors on explicit backends say nothing",
        ("SEL-042",),
        selector=wrong.with_decision(wrong.silent_of_explicit),
    ),
    Fault("last valid wins", ("SEL-010", "SEL-012"), selector=wrong.with_decision(wrong.last_wins)),
    Fault(
        "never an error", ("SEL-044", "SEL-045"), selector=wrong.with_decision(wrong.never_fails)
    ),
)

REMOVED = (
    Fault(
        "removed variable moves candidates",
        ("REM-004",),
        selector=wrong.moved_by(REMOVED_VARIABLE, "0"),
    ),
    Fault(
        "removed variable set to nothing moves candidates",
        ("REM-004",),
        selector=wrong.moved_by(REMOVED_VARIABLE, ""),
    ),
    Fault(
        "removed variable read inside rocm_attn",
        ("REM-005",),
        selector=wrong.ReadsRemovedVariableInside,
    ),
    Fault("removed variable registered", ("REM-001",), variables={REMOVED_VARIABLE: None}),
    Fault("removed variable readable", ("REM-002",), unregistered={REMOVED_VARIABLE: "True"}),
    Fault(
        "removed variable in a shell script",
        ("REM-003",),
        files={**PACKAGE, "vllm/tools/run.sh": SETS_IT},
    ),
    Fault(
        "removed variable in a CI script",
        ("REM-006",),
        files={**CHECKOUT, ".buildkite/run.sh": SETS_IT},
    ),
    Fault(
        "removed variable in the docs",
        ("REM-007",),
        files={**CHECKOUT, "docs/rocm.md": f"Set `{REMOVED_VARIABLE}`.\n"},
    ),
    Fault(
        "unrelated variable moves candidates",
        ("REM-009",),
        selector=wrong.moved_by(wrong.UNRELATED, "1"),
    ),
    Fault(
        "another removed variable registered again",
        ("REM-010",),
        variables={"VLLM_ATTENTION_BACKEND": None},
    ),
    Fault(
        "another removed variable read again",
        ("REM-010",),
        files={**PACKAGE, "vllm/old.py": READS_IT},
    ),
    Fault(
        "variable behind an accessor without a caller",
        ("REM-011",),
        variables={"VLLM_ROCM_DEAD": "True"},
        files={**CHECKOUT, **DEAD_FLAG},
    ),
    Fault(
        "hip kernel without fp8",
        ("CAP-230",),
        files={**CHECKOUT, "csrc/rocm/attention.cu": 'if (kv_cache_dtype == "auto") {}\n'},
    ),
)

INNER = (
    Fault(
        "inner choice ignores sinks",
        ("PAG-004", "PAG-013"),
        selector=wrong.with_paged_question(lambda question: replace(question, sinks=False)),
    ),
    Fault("inner choice takes any ratio", ("PAG-003",), inner("gfx9", gqa_ratio=(1, 64))),
    Fault("inner choice takes ratio 2 on rdna", ("PAG-012",), inner("gfx1x", gqa_ratio=(2, 16))),
    Fault("inner choice takes any length", ("PAG-003",), inner("gfx9", max_seq_len=1 << 30)),
    Fault("inner choice takes head 64 on rdna", ("PAG-011",), inner("gfx1x", head_sizes={64, 128})),
    Fault("inner choice takes head 256", ("PAG-002",), inner("gfx9", head_sizes={64, 128, 256})),
    Fault("inner choice refuses alibi", ("PAG-005",), inner("gfx9", alibi=False)),
    Fault("inner choice without block 32", ("PAG-001",), inner("gfx9", block_sizes={16})),
    Fault("inner choice without bf16 on rdna", ("PAG-010",), inner("gfx1x", dtypes={"float16"})),
    Fault(
        "inner choice reads the removed variable",
        ("PAG-020",),
        selector=wrong.ReadsRemovedVariableInside,
    ),
)

VISION = (
    Fault("vision prefers flash_attn", ("VIT-004",), flash_attn_first),
    Fault("vision without aiter", ("VIT-001", "VIT-004"), vision(0, only_on="gfx1x")),
    Fault("vision without flash_attn", ("VIT-006",), vision(1, when=())),
    Fault("vision flash_attn takes float32", ("VIT-003",), vision(1, dtypes=None)),
    Fault("vision on rdna unasked", ("VIT-005",), vision(2, when=("flash_attn",)), cells=NO_AITER),
    Fault("vision backend ignored", ("VIT-007",), selector=wrong.IgnoresVisionBackend),
    Fault("vision takes any backend", ("VIT-008",), selector=wrong.TakesAnyVisionBackend),
)

FAULTS = (
    *CANDIDATES,
    *FLAGS,
    *CAPABILITIES,
    *RULES,
    *(replace(fault, suites=REMOVAL) for fault in REMOVED),
    *INNER,
    *VISION,
)
