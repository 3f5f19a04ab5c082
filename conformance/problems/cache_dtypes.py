"""What an attention cache of a problem is stored in."""

from __future__ import annotations

from typing import Literal

FP8_CACHES = ("fp8_e4m3fn", "fp8_e4m3fnuz", "fp8_e5m2")
# A key and a value in one row of bytes: conformance/problems/octave_cache.py and packed_caches.py
# have their formats.
OCTAVE_CACHES = ("octave_k3v4", "octave_k3v3", "octave_k3v3_compact")
PACKED_CACHES = (
    *("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc"),
    "ultraquant_4bit",
    *OCTAVE_CACHES,
)
# ROCM_OCTAVE reads every key from the cache where no sequence of a batch has more query tokens.
OCTAVE_DECODES = 128
# Codes with a scale for each token and head: conformance/problems/head_scaled.py.
HEAD_SCALED_CACHES = (
    "int8_per_token_head",
    "fp8_e4m3fn_per_token_head",
    "fp8_e4m3fnuz_per_token_head",
    "int4_per_token_head",
)
# DeepSeek-V4's, in the encoding of its sliding window: conformance/problems/ds_mla.py.
DS_MLA_CACHES = ("fp8_e4m3fn_ds_mla", "fp8_e4m3fnuz_ds_mla")
BLOCK_OF_WINDOW = 256  # tokens of a block of such caches, whose chosen keys stand for several each
CacheDtype = Literal[
    "auto",
    "fp8_e4m3fn",
    "fp8_e4m3fnuz",
    "fp8_e5m2",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
    "ultraquant_4bit",
    "octave_k3v4",
    "octave_k3v3",
    "octave_k3v3_compact",
    "int8_per_token_head",
    "fp8_e4m3fn_per_token_head",
    "fp8_e4m3fnuz_per_token_head",
    "int4_per_token_head",
    "fp8_e4m3fn_ds_mla",
    "fp8_e4m3fnuz_ds_mla",
]
