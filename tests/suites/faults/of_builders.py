"""Faults put into the metadata builders of a copy of vLLM 0.33.0, and what must name each."""

from __future__ import annotations

from dataclasses import dataclass

RELEASE = "0.33.0"
SERIES = "0.33"

CHECKS = "vllm/v1/attention/backend.py"
BACKENDS = "vllm/v1/attention/backends"
UTILS = f"{BACKENDS}/utils.py"
ROCM_ATTN = f"{BACKENDS}/rocm_attn.py"
AITER_FA = f"{BACKENDS}/rocm_aiter_fa.py"
TRITON = f"{BACKENDS}/triton_attn.py"
OCTAVE = f"{BACKENDS}/rocm_octave_attn.py"
AITER_MLA = f"{BACKENDS}/mla/rocm_aiter_mla.py"
SPARSE = f"{BACKENDS}/mla/rocm_aiter_mla_sparse.py"
MLA = "vllm/model_executor/layers/attention/mla_attention.py"


@dataclass(frozen=True)
class BuilderFault:
    """Text of a file that is replaced; ``caught_by`` must find something new in ``backend``."""

    name: str
    backend: str
    path: str
    old: str
    new: str
    caught_by: str


FAULTS = (
    BuilderFault(
        "the last page of every list, without its offset",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "block_ids * KERNEL_BLOCK_SIZE + offset_in_block",
        "block_ids * KERNEL_BLOCK_SIZE",
        "MET-007",
    ),
    BuilderFault(
        "a longest query one short",
        "ROCM_ATTN",
        ROCM_ATTN,
        "max_query_len = common_attn_metadata.max_query_len\n",
        "max_query_len = common_attn_metadata.max_query_len - 1\n",
        "MET-003",
    ),
    BuilderFault(
        "lengths that a graph does not see",
        "ROCM_ATTN",
        ROCM_ATTN,
        "        seq_lens = common_attn_metadata.seq_lens\n",
        "        seq_lens = common_attn_metadata.seq_lens.clone()\n",
        "MET-013",
    ),
    BuilderFault(
        "slots without their cast",
        "TRITON_ATTN",
        TRITON,
        "        slot_mapping = common_attn_metadata.slot_mapping\n",
        "        slot_mapping = common_attn_metadata.slot_mapping.int()\n",
        "MET-016",
    ),
    BuilderFault(
        "tables of one block less",
        "ROCM_ATTN",
        ROCM_ATTN,
        "        block_table_tensor = common_attn_metadata.block_table_tensor\n",
        "        block_table_tensor = common_attn_metadata.block_table_tensor[:, :-1]\n",
        "MET-004",
    ),
    BuilderFault(
        "padding given a key in the batch itself",
        "TRITON_ATTN",
        TRITON,
        "        seq_lens = common_attn_metadata.seq_lens\n",
        "        seq_lens = common_attn_metadata.seq_lens.clamp_(min=1)\n",
        "MET-017",
    ),
    BuilderFault(
        "partial results for half the requests",
        "TRITON_ATTN",
        TRITON,
        "max_num_tokens_3d = max_num_seqs_3d * max_query_len_3d\n",
        "max_num_tokens_3d = max_num_seqs_3d // 2\n",
        "MET-015",
    ),
    BuilderFault(
        "a decode of as many tokens as the threshold is a prefill",
        "TURBOQUANT",
        UTILS,
        "        is_prefill = query_lens > decode_threshold\n",
        "        is_prefill = query_lens >= decode_threshold\n",
        "MET-005",
    ),
    BuilderFault(
        "tokens of decodes up to the last decode",
        "TURBOQUANT",
        UTILS,
        "num_decode_tokens = query_start_loc[first_prefill].item()",
        "num_decode_tokens = query_start_loc[first_prefill - 1].item()",
        "MET-005",
    ),
    BuilderFault(
        "one going-on too many",
        "ROCM_AITER_FA",
        UTILS,
        "    num_extends = first_prefill - num_decodes\n",
        "    num_extends = first_prefill - num_decodes + 1\n",
        "MET-005",
    ),
    BuilderFault(
        "each request's chunk as large as the workspace",
        "ROCM_AITER_FA",
        AITER_FA,
        "max_context_chunk = _CP_TOKENS_PER_ITER_ROCM // num_extends",
        "max_context_chunk = _CP_TOKENS_PER_ITER_ROCM",
        "MET-006",
    ),
    BuilderFault(
        "a window that ends before its queries",
        "ROCM_AITER_FA",
        AITER_FA,
        "query_lens_for_extend + self.aot_sliding_window[0] + 1,",
        "query_lens_for_extend,",
        "MET-006",
    ),
    BuilderFault(
        "a workspace for half a head",
        "ROCM_AITER_FA",
        AITER_FA,
        "[2, _CP_TOKENS_PER_ITER_ROCM, self.num_heads_kv, self.headdim],",
        "[2, _CP_TOKENS_PER_ITER_ROCM, self.num_heads_kv, self.headdim // 2],",
        "MET-015",
    ),
    BuilderFault(
        "an implementation that divides by no heads",
        "ROCM_AITER_FA",
        AITER_FA,
        "self.num_queries_per_kv = self.num_heads // self.num_kv_heads",
        "self.num_queries_per_kv = self.num_heads // (self.num_kv_heads - 2)",
        "MET-002",
    ),
    BuilderFault(
        "a list's ends in a tensor of the batch's own",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "            paged_kv_indptr = self.paged_kv_indptr[: 1 + num_kernel_reqs]\n",
        "",
        "MET-013",
    ),
    BuilderFault(
        "sums of lengths without their cast",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "seq_lens_for_kernel.cumsum(dim=0, dtype=torch.int32)",
        "seq_lens_for_kernel.cumsum(dim=0)",
        "MET-016",
    ),
    BuilderFault(
        "lists as long as one request",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "        max_num_pages = max_num_reqs * max_num_pages_per_req\n",
        "        max_num_pages = max_num_pages_per_req\n",
        "MET-007",
    ),
    BuilderFault(
        "a schedule for single tokens",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "            self._mtp_decode_qlen,\n            self._num_attention_heads,\n",
        "            1,\n            self._num_attention_heads,\n",
        "MET-014",
    ),
    BuilderFault(
        "padded rows that begin at 0 again",
        "ROCM_AITER_MLA",
        AITER_MLA,
        "            0,\n            (num_reqs + 1) * qlen,\n            step=qlen,",
        "            (num_reqs + 1) * qlen,\n            0,\n            step=-qlen,",
        "MET-012",
    ),
    BuilderFault(
        "tables of prefills from the first row",
        "TRITON_MLA",
        MLA,
        "block_table=block_table_tensor[reqs_start:, ...],",
        "block_table=block_table_tensor[:num_prefills, ...],",
        "MET-005",
    ),
    BuilderFault(
        "every chunk from the beginning",
        "TRITON_MLA",
        MLA,
        "            starts_flat.extend(plan.starts)\n",
        "            starts_flat.extend([0] * num_requests)\n",
        "MET-006",
    ),
    BuilderFault(
        "a schedule that is kept for other lengths",
        "ROCM_AITER_MLA_SPARSE",
        SPARSE,
        "            if metadata_key != self._prev_metadata_key:\n",
        "            if self._prev_metadata_key is None:\n",
        "MET-014",
    ),
    BuilderFault(
        "lists of keys shifted by a token",
        "ROCM_AITER_MLA_SPARSE",
        SPARSE,
        "out=self.paged_kv_indptr[1 : num_tokens + 1]",
        "out=self.paged_kv_indptr[0:num_tokens]",
        "MET-007",
    ),
    BuilderFault(
        "every token the first request's",
        "ROCM_AITER_MLA_SPARSE",
        SPARSE,
        "            np.arange(seg_lengths.shape[0], dtype=np.int32), seg_lengths\n",
        "            np.zeros(seg_lengths.shape[0], dtype=np.int32), seg_lengths\n",
        "MET-008",
    ),
    BuilderFault(
        "a key less than a token sees",
        "ROCM_OCTAVE",
        OCTAVE,
        "klen = md.seq_lens.to(torch.int32)[r] - q_lens[r] + (idx - qsl[r]) + 1",
        "klen = md.seq_lens.to(torch.int32)[r] - q_lens[r] + (idx - qsl[r])",
        "MET-008",
    ),
    BuilderFault(
        "tokens of padding with keys",
        "ROCM_OCTAVE",
        OCTAVE,
        "md.q_to_klen.copy_(torch.where(req < num_reqs, klen, 0))",
        "md.q_to_klen.copy_(klen)",
        "MET-012",
    ),
    BuilderFault(
        "a draft of the first request alone",
        "ROCM_ATTN",
        CHECKS,
        "            common_attn_metadata=common_attn_metadata,\n            fast_build=True,",
        "            common_attn_metadata=common_attn_metadata.unpadded(1, 1),\n"
        "            fast_build=True,",
        "MET-011",
    ),
    BuilderFault(
        "a threshold one short of a verification",
        "ROCM_AITER_FA",
        CHECKS,
        "                    max_decode_query_len(self.vllm_config),\n",
        "                    max_decode_query_len(self.vllm_config) - 1,\n",
        "MET-010",
    ),
    BuilderFault(
        "a builder that asks for a name that is not there",
        "TURBOQUANT",
        f"{BACKENDS}/turboquant_attn.py",
        "            is_prefill=(cam.max_query_len > 1),\n",
        "            is_prefill=(cam.longest_query > 1),\n",
        "MET-001",
    ),
)
