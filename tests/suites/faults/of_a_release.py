"""Faults put into a copy of vLLM 0.33.0, each in its own source, and what must name each."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.matrix.requests import AITER, MHA, Platform

RELEASE = "0.33.0"
SERIES = "0.33"

ROCM = "vllm/platforms/rocm.py"
CHECKS = "vllm/v1/attention/backend.py"
BACKENDS = "vllm/v1/attention/backends"
ROCM_ATTN = f"{BACKENDS}/rocm_attn.py"
UNIFIED = f"{BACKENDS}/rocm_aiter_unified_attn.py"
AITER_FA = f"{BACKENDS}/rocm_aiter_fa.py"
TRITON = f"{BACKENDS}/triton_attn.py"
TRITON_MLA = f"{BACKENDS}/mla/triton_mla.py"
OCTAVE = f"{BACKENDS}/rocm_octave_attn.py"
SEGMENTED = f"{BACKENDS}/rocm_segmented_attn.py"
ULTRAQUANT = f"{BACKENDS}/ultraquant_attn.py"
TURBOQUANT = f"{BACKENDS}/turboquant_attn.py"

BOTH = {AITER: "1", MHA: "1"}
MI300 = Platform.make("gfx942", aiter=True, env=BOTH)
MI300_OFF = Platform.make("gfx942", aiter=True, env={AITER: "0", MHA: "1"})
MI300_NO_MHA = Platform.make("gfx942", aiter=True, env={AITER: "1", MHA: "0"})
MI250 = Platform.make("gfx90a", aiter=True, env=BOTH)
PLAIN = Platform.make("gfx90a", env={AITER: "0", MHA: "1"})
RDNA3 = Platform.make("gfx1100", env={AITER: "0", MHA: "1"})
RDNA4 = Platform.make("gfx1201", aiter=True, env=BOTH)


@dataclass(frozen=True)
class ReleaseFault:
    """Text of a file that is replaced; ``caught_by`` must fail on the platform ``on``."""

    name: str
    path: str
    old: str
    new: str
    caught_by: str
    on: Platform = PLAIN


def appended(backend: str) -> str:
    return f"    backends.append(AttentionBackendEnum.{backend})\n"


def answers(method: str, answer: str) -> tuple[str, str]:
    """A method of a backend's class that says the other of yes and no."""
    other = "False" if answer == "True" else "True"
    head = f"    def {method}(cls) -> bool:\n"
    return f"{head}        return {answer}\n", f"{head}        return {other}\n"


ORDER = (
    ReleaseFault(
        "fa above rocm_attn",
        ROCM,
        "        backends.append(AttentionBackendEnum.ROCM_AITER_FA)\n",
        "        backends.insert(0, AttentionBackendEnum.ROCM_AITER_FA)\n",
        "SEL-224",
        MI300,
    ),
    ReleaseFault(
        "unified above all",
        ROCM,
        "        backends.append(AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        "        backends.insert(0, AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        "SEL-223",
        MI300_OFF,
    ),
    ReleaseFault(
        "turboquant above triton",
        ROCM,
        appended("TRITON_ATTN") + appended("TURBOQUANT"),
        appended("TURBOQUANT") + appended("TRITON_ATTN"),
        "SEL-221",
    ),
    ReleaseFault(
        "octave below ultraquant",
        ROCM,
        appended("ROCM_OCTAVE") + appended("ULTRAQUANT"),
        appended("ULTRAQUANT") + appended("ROCM_OCTAVE"),
        "SEL-222",
        RDNA3,
    ),
    ReleaseFault("no ultraquant", ROCM, appended("ULTRAQUANT"), "", "SEL-221", MI250),
    ReleaseFault(
        "unified not first on rdna4",
        ROCM,
        "        backends.insert(0, AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        "        backends.append(AttentionBackendEnum.ROCM_AITER_UNIFIED_ATTN)\n",
        "SEL-229",
        RDNA4,
    ),
    ReleaseFault(
        "triton mla before aiter's",
        ROCM,
        "                AttentionBackendEnum.ROCM_AITER_MLA,\n"
        "                AttentionBackendEnum.TRITON_MLA,\n",
        "                AttentionBackendEnum.TRITON_MLA,\n"
        "                AttentionBackendEnum.ROCM_AITER_MLA,\n",
        "SEL-020",
        MI300,
    ),
    ReleaseFault(
        "sparse falls back to triton mla",
        ROCM,
        "        return [AttentionBackendEnum.ROCM_AITER_MLA_SPARSE]\n",
        "        return [AttentionBackendEnum.ROCM_AITER_MLA_SPARSE,"
        " AttentionBackendEnum.TRITON_MLA]\n",
        "SEL-030",
    ),
)

CAPABILITY = (
    ReleaseFault(
        "unified takes prefixes",
        UNIFIED,
        "        # Not implemented\n        return False\n",
        "        return True\n",
        "CAP-217",
        MI300,
    ),
    ReleaseFault(
        "rocm_attn takes prefixes",
        ROCM_ATTN,
        "        # Not implemented\n        return False\n",
        "        return True\n",
        "CAP-217",
    ),
    ReleaseFault(
        "unified takes float32",
        UNIFIED,
        "supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16]",
        "supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, "
        "torch.float32]",
        "CAP-216",
        MI300,
    ),
    ReleaseFault(
        "unified without kv connectors",
        UNIFIED,
        *answers("supports_kv_connector", "True"),
        "CAP-207",
        MI300,
    ),
    ReleaseFault("fa without sinks", AITER_FA, *answers("supports_sink", "True"), "CAP-213", MI300),
    ReleaseFault(
        "triton is causal alone", TRITON, *answers("supports_non_causal", "True"), "CAP-202"
    ),
    ReleaseFault("triton without rswa", TRITON, *answers("supports_rswa", "True"), "CAP-211"),
    ReleaseFault(
        "triton is not batch invariant",
        TRITON,
        *answers("supports_batch_invariance", "True"),
        "CAP-204",
    ),
    ReleaseFault(
        "rocm_attn without windows",
        ROCM_ATTN,
        *answers("supports_sliding_window", "True"),
        "CAP-208",
    ),
    ReleaseFault(
        "octave everywhere",
        OCTAVE,
        "            get_rdna_version() == 3 or get_cdna_version() == 3\n",
        "            get_rdna_version() >= 0\n",
        "CAP-220",
    ),
    ReleaseFault(
        "segmented on cdna",
        SEGMENTED,
        "        if not is_rdna():\n"
        '            return "ROCM_SEGMENTED_ATTN requires AMD RDNA GPUs on ROCm"\n',
        "",
        "CAP-219",
    ),
    ReleaseFault(
        "ultraquant takes float16",
        ULTRAQUANT,
        'supported_kv_cache_dtypes: ClassVar[list[CacheDType]] = ["ultraquant_4bit"]\n',
        'supported_kv_cache_dtypes: ClassVar[list[CacheDType]] = ["ultraquant_4bit"]\n\n'
        "    @classmethod\n    def supports_dtype(cls, dtype):\n        return True\n\n",
        "CAP-221",
    ),
    ReleaseFault(
        "triton mla without dcp",
        TRITON_MLA,
        "    supports_dcp: bool = True\n",
        "    supports_dcp: bool = False\n",
        "CAP-210",
    ),
    ReleaseFault(
        "pcp is not checked",
        CHECKS,
        "        if use_pcp and not cls.supports_pcp():\n",
        "        if False:\n",
        "CAP-209",
    ),
    ReleaseFault(
        "kv connectors are not checked",
        CHECKS,
        "        if use_kv_connector and not cls.supports_kv_connector():\n",
        "        if False:\n",
        "CAP-205",
    ),
)

CONTEXT = (
    ReleaseFault(
        "kv connector keeps rocm_attn",
        ROCM,
        "    if not use_kv_connector:\n",
        "    if True:\n",
        "SEL-227",
    ),
    ReleaseFault(
        "encoder-decoder models keep rocm_attn",
        ROCM,
        "        if is_encoder_decoder and",
        "        if False and",
        "SEL-228",
    ),
    ReleaseFault(
        "the run is not looked at",
        ROCM,
        "    return cache_config is not None and str(cache_config.cache_dtype).startswith(\n"
        '        "turboquant_"\n    )\n',
        "    return False\n",
        "SEL-245",
    ),
    ReleaseFault(
        "no giving way for the kv dtype",
        ROCM,
        "                [_KV_CACHE_DTYPE_REASON],\n",
        "",
        "SEL-243",
    ),
    ReleaseFault(
        "gives way whatever the reasons",
        ROCM,
        "            if not is_packed_kv_fallback:\n",
        "            if not (is_packed_kv_fallback or layer_is_turboquant):\n",
        "SEL-244",
    ),
)

LAYOUT = (
    ReleaseFault(
        "rocm_attn reads turboquant's layout",
        ROCM_ATTN,
        "        return (KVCacheLayout.LHBNC, KVCacheLayout.LBHNC)\n",
        "        return (KVCacheLayout.LHBNC, KVCacheLayout.LBHNC, KVCacheLayout.LBNHC)\n",
        "SEL-245",
    ),
    ReleaseFault(
        "turboquant reads rocm_attn's layout",
        TURBOQUANT,
        "        return (KVCacheLayout.LBNHC,)\n",
        "        return (KVCacheLayout.LBNHC, KVCacheLayout.LBHNC)\n",
        "SEL-245",
    ),
    ReleaseFault(
        "layouts are not compared",
        ROCM,
        "    return not set(layouts).isdisjoint(turboquant_layouts)\n",
        "    return True\n",
        "SEL-245",
    ),
)

VARIABLE = (
    ReleaseFault(
        "fa by the flag of mla",
        ROCM,
        "    if rocm_aiter_ops.is_mha_enabled():\n        backends",
        "    if rocm_aiter_ops.is_mla_enabled():\n        backends",
        "SEL-225",
        MI300_NO_MHA,
    ),
    ReleaseFault(
        "unified asks whether aiter is enabled",
        ROCM,
        "    if is_aiter_found_and_supported():\n        backends",
        "    if is_aiter_found_and_supported() and rocm_aiter_ops.is_enabled():\n        backends",
        "SEL-223",
        MI300_OFF,
    ),
)

FAULTS = (*ORDER, *CAPABILITY, *CONTEXT, *LAYOUT, *VARIABLE)
