"""ROCM_AITER_TRITON_MLA: ROCM_AITER_MLA's decode with a Triton prefill.

https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/backends/mla/aiter_triton_mla.py
The prefill kernel reads the two parts of a key where they lie, without joining them
(:mod:`rocm_reference.ops.mla.prefill`).
"""

from __future__ import annotations

from rocm_reference.backends.rocm_aiter_mla import AiterMLA
from rocm_reference.ops.mla.prefill import AttendRows, attend_split


class AiterTritonMLA(AiterMLA):
    """The backend ROCM_AITER_TRITON_MLA."""

    name = "ROCM_AITER_TRITON_MLA"
    _attend_rows: AttendRows = staticmethod(attend_split)
