"""Faults put into a copy of vLLM 0.33.0's kernels, and the tier's problem that shows each."""

from __future__ import annotations

from dataclasses import dataclass

RELEASE = "0.33.0"

OPS = "vllm/v1/attention/ops"
UNIFIED = f"{OPS}/triton_unified_attention.py"
HELPERS = f"{OPS}/triton_attention_helpers.py"
PAGED = f"{OPS}/chunked_prefill_paged_decode.py"
PREFILL = f"{OPS}/prefix_prefill.py"
LATENT = f"{OPS}/triton_decode_attention.py"
WRITE = f"{OPS}/triton_reshape_and_cache_flash.py"
SEGMENTED = f"{OPS}/segmented_attention.py"
PACKED_WRITE = f"{OPS}/triton_turboquant_store.py"
PACKED = f"{OPS}/triton_turboquant_decode.py"
DIFFKV = f"{OPS}/triton_unified_attention_diffkv.py"


@dataclass(frozen=True)
class KernelFault:
    """Text of a kernel's file that is replaced, where it stands first.

    ``caught_by``: a backend, and what stands in the id of the tier's problem of that backend that
    shows the fault.
    """

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, str]
    tier: str = "quick"

    def put_into(self, source: str) -> str:
        """The file's text with the fault.

        Raises:
            AssertionError: the file does not have the text.
        """
        assert self.old in source, f"{self.file} has no {self.old!r}"
        return source.replace(self.old, self.new, 1)


OF_UNIFIED = (
    KernelFault(
        "what was summed is not rescaled",
        UNIFIED,
        "        acc = acc * alpha[:, None]\n",
        "",
        ("TRITON_ATTN", "-prefill-edges-"),
    ),
    KernelFault(
        "the last key of a prefix is not loaded",
        UNIFIED,
        "tile_mask = seq_offset < max_seq_prefix_len\n",
        "tile_mask = seq_offset < max_seq_prefix_len - 1\n",
        ("TRITON_ATTN", "-exact-table-"),
    ),
    KernelFault(
        "the last segment is left out",
        UNIFIED,
        "act_num_segments = cdiv_fn(seq_len, tiles_per_segment * TILE_SIZE)",
        "act_num_segments = cdiv_fn(seq_len, tiles_per_segment * TILE_SIZE) - 1",
        ("TRITON_ATTN", "-segments-h6x2-"),
    ),
    KernelFault(
        "values are multiplied by the keys' scale",
        UNIFIED,
        "V = _cast_kv_tile(V_load, Q, v_scale, KV_QUANT_MODE)",
        "V = _cast_kv_tile(V_load, Q, k_scale, KV_QUANT_MODE)",
        ("TRITON_ATTN", "-fp8-scales-"),
    ),
    KernelFault(
        "every segment has the sink",
        HELPERS,
        "load_sinks = (not IS_3D) or (segm_idx_or_0 == 0)",
        "load_sinks = True",
        ("TRITON_ATTN", "-segments-h6x2-"),
    ),
    KernelFault(
        "a window is one key wider",
        HELPERS,
        "sw_left = (query_abs_pos - seq_offset) < SLIDING_WINDOW",
        "sw_left = (query_abs_pos - seq_offset) <= SLIDING_WINDOW",
        ("TRITON_ATTN", "-window-edge-h8x2-d80-b16-bf16-"),
    ),
    KernelFault(
        "a prefix range ends a key early",
        HELPERS,
        "& (seq_offset[None, :] <= range_end)",
        "& (seq_offset[None, :] < range_end)",
        ("TRITON_ATTN", "-prefix-edge-h2x2-d64-b16-bf16-win10-"),
    ),
    KernelFault(
        "a soft cap does not scale back",
        HELPERS,
        "    return x * (1.0 - 2.0",
        "    return (1.0 - 2.0",
        ("TRITON_ATTN", "-speculative-"),
    ),
    KernelFault(
        "the last key is hidden where attention is not causal",
        HELPERS,
        "    else:\n        seq_mask = seq_offset[None, :] < seq_len\n",
        "    else:\n        seq_mask = seq_offset[None, :] < seq_len - 1\n",
        ("TRITON_ATTN", "-not-causal-"),
    ),
    KernelFault(
        "ALiBi's root is measured from the first query",
        HELPERS,
        "relative_pos = seq_offset - (context_len + query_pos[:, None])",
        "relative_pos = seq_offset - (context_len + 0 * query_pos[:, None])",
        ("TRITON_ATTN", "-extend-h8x1-d160-b48-fp16-cap-alibi-sqrt-sinks-"),
        "standard",
    ),
)

OF_PAGED_2D = (
    KernelFault(
        "the last key is not seen",
        PAGED,
        "seq_mask = seq_offset[None, :] < boundary",
        "seq_mask = seq_offset[None, :] + 1 < boundary",
        ("ROCM_ATTN", "-large-pages-h8x2-d80-"),
    ),
    KernelFault(
        "a tile's slots are counted in tiles, not in blocks",
        PAGED,
        "internal_offsets = abs_token_idx % PHYSICAL_BLOCK_SIZE",
        "internal_offsets = abs_token_idx % BLOCK_SIZE",
        ("ROCM_ATTN", "-block-edge-h2x2-d80-b48-"),
    ),
    KernelFault(
        "what was summed is not rescaled",
        PAGED,
        "        acc = acc * alpha[:, None]\n",
        "",
        ("ROCM_ATTN", "-block-edge-h2x2-d80-b48-"),
    ),
    KernelFault(
        "unused slots of the last tile are loaded",
        PAGED,
        "        if j == num_blocks - 1:\n",
        "        if j == num_blocks:\n",
        ("ROCM_ATTN", "-block-edge-h2x2-d80-b48-"),
    ),
    KernelFault(
        "a window is one key wider",
        PAGED,
        "(context_len - seq_offset) < SLIDING_WINDOW",
        "(context_len - seq_offset) <= SLIDING_WINDOW",
        ("ROCM_ATTN", "-window-edge-"),
    ),
    KernelFault(
        "ALiBi favours what is far",
        PAGED,
        "S += alibi_slope[:, None] * (seq_offset - context_len)",
        "S += alibi_slope[:, None] * (context_len - seq_offset)",
        ("ROCM_ATTN", "-large-pages-h8x2-d64-"),
    ),
    KernelFault(
        "keys are not multiplied by their scale",
        PAGED,
        "K = (K_load.to(tl.float32) * tl.load(k_scale)).to(Q.dtype)",
        "K = K_load.to(Q.dtype)",
        ("ROCM_ATTN", "-decode-h8x2-d256-"),
    ),
)

OF_PREFIX_PREFILL = (
    KernelFault(
        "a query does not see itself",
        PREFILL,
        "attn_mask = valid_kv & (offs_m[:, None] >= (start_n + offs_n[None, :]))",
        "attn_mask = valid_kv & (offs_m[:, None] > (start_n + offs_n[None, :]))",
        ("ROCM_ATTN", "-large-pages-h8x2-d80-"),
    ),
    KernelFault(
        "the key behind the context counts",
        PREFILL,
        '(start_n + offs_bs_n[None, :]) < cur_batch_ctx_len, qk, float("-inf")',
        '(start_n + offs_bs_n[None, :]) <= cur_batch_ctx_len, qk, float("-inf")',
        ("ROCM_ATTN", "-large-pages-h8x2-d80-"),
    ),
    KernelFault(
        "the context's sum is not rescaled",
        PREFILL,
        "        acc = acc * alpha[:, None]\n\n        # update acc\n        if KV_FROM_CACHE:",
        "        # update acc\n        if KV_FROM_CACHE:",
        ("ROCM_ATTN", "-not-causal-"),
    ),
    KernelFault(
        "two queries are taken for a decode",
        PREFILL,
        "if SKIP_DECODE and cur_batch_query_len == 1:",
        "if SKIP_DECODE and cur_batch_query_len <= 2:",
        ("ROCM_ATTN", "-extend-h8x2-d64-b48-bf16-"),
        "standard",
    ),
    KernelFault(
        "a window shows one key more of the context",
        PREFILL,
        "                < SLIDING_WINDOW,\n                qk,",
        "                <= SLIDING_WINDOW,\n                qk,",
        ("ROCM_ATTN", "-window-edge-"),
    ),
    KernelFault(
        "the last tile of keys is left out where attention is not causal",
        PREFILL,
        "q_len_pad = (cur_batch_query_len + BLOCK_N - 1) // BLOCK_N * BLOCK_N",
        "q_len_pad = cur_batch_query_len // BLOCK_N * BLOCK_N",
        ("ROCM_ATTN", "-not-causal-"),
    ),
    KernelFault(
        "ALiBi counts new keys from the first",
        PREFILL,
        "    alibi_start_k = cur_batch_ctx_len\n",
        "    alibi_start_k = 0\n",
        ("ROCM_ATTN", "-large-pages-h8x2-d64-"),
    ),
)

OF_LATENT_DECODE = (
    KernelFault(
        "the first split is left out",
        LATENT,
        "for split_kv_id in range(0, NUM_KV_SPLITS):",
        "for split_kv_id in range(1, NUM_KV_SPLITS):",
        ("TRITON_MLA", "-mla-block-edge-h5x1-"),
    ),
    KernelFault(
        "rotary columns are left out",
        LATENT,
        "                qk += tl.dot(qpe, kpe.to(qpe.dtype))\n",
        "                pass\n",
        ("TRITON_MLA", "-mla-block-edge-h5x1-"),
    ),
    KernelFault(
        "rotary columns are not multiplied by the scale",
        LATENT,
        "kpe = (kpe.to(tl.float32) * ks).to(qpe.dtype)",
        "kpe = kpe.to(qpe.dtype)",
        ("TRITON_MLA", "-mla-fp8-scales-h8x1-"),
    ),
    KernelFault(
        "heads beyond sixteen are the first again",
        LATENT,
        "cur_head = cur_head_id * VALID_BLOCK_H + tl.arange(0, BLOCK_H)",
        "cur_head = cur_head_id * 0 + tl.arange(0, BLOCK_H)",
        ("TRITON_MLA", "-mla-heads-h17x1-"),
    ),
    KernelFault(
        "weights of merged splits are not rescaled",
        LATENT,
        "e_sum = e_sum * old_scale + exp_logic",
        "e_sum = e_sum + exp_logic",
        ("TRITON_MLA", "-mla-block-edge-h5x1-"),
    ),
    KernelFault(
        "a single head reads the first sequence's pages",
        LATENT,
        "                + stride_req_to_tokens_b * cur_batch_req_idx\n",
        "",
        ("TRITON_MLA", "-mla-block-edge-h1x1-d576-b32-fp16-"),
        "standard",
    ),
)

OF_CACHE_WRITES = (
    KernelFault(
        "keys are multiplied by their scale",
        WRITE,
        "key_load / tl.load(k_scale)",
        "key_load * tl.load(k_scale)",
        ("TRITON_ATTN", "-fp8-scales-"),
    ),
    KernelFault(
        "values are divided by the keys' scale",
        WRITE,
        "value_tile = value_load / tl.load(v_scale)",
        "value_tile = value_load / tl.load(k_scale)",
        ("TRITON_ATTN", "-fp8-scales-"),
    ),
    KernelFault(
        "tokens are stored a slot too far",
        WRITE,
        "block_offset = slot_idx % block_size",
        "block_offset = (slot_idx + 1) % block_size",
        ("TRITON_ATTN", "-exact-table-"),
    ),
    KernelFault(
        "packs of a key are one too far",
        WRITE,
        "+ (cur_dim // x) * dim_stride_k\n",
        "+ ((cur_dim // x + 1) % (head_size // x)) * dim_stride_k\n",
        ("ROCM_ATTN", "-block-edge-h2x2-d80-b48-"),
    ),
    KernelFault(
        "values of another size are stored over keys",
        WRITE,
        "tgt_idx + head_size_k + tile_offs",
        "tgt_idx + tile_offs",
        ("TRITON_ATTN_DIFFKV", "-block-edge-"),
    ),
)

OF_SEGMENTED = (
    KernelFault(
        "parts are a tile too short",
        SEGMENTED,
        "segment = tl.cdiv(span, SPLITS * BN) * BN\n",
        "segment = (span // (SPLITS * BN)) * BN\n",
        ("ROCM_SEGMENTED_ATTN", "-split-behind-a-prefill-"),
    ),
    KernelFault(
        "a window is one key wider",
        SEGMENTED,
        "prefix + qpos[:, None] - WINDOW",
        "prefix + qpos[:, None] - WINDOW - 1",
        ("ROCM_SEGMENTED_ATTN", "-window-edge-h6x2-d64-b16-fp16-win0-"),
    ),
    KernelFault(
        "queries see the next key",
        SEGMENTED,
        "(ns[None, :] <= prefix + qpos",
        "(ns[None, :] <= 1 + prefix + qpos",
        ("ROCM_SEGMENTED_ATTN", "-prefill-edges-"),
    ),
    KernelFault(
        "values are not multiplied by their scale",
        SEGMENTED,
        "* v_scale\n                    )",
        "* 1.0\n                    )",
        ("ROCM_SEGMENTED_ATTN", "-fp8-scales-"),
    ),
    KernelFault(
        "the weights of parts are not divided by",
        SEGMENTED,
        " / tl.sum(weights, 0)",
        "",
        ("ROCM_SEGMENTED_ATTN", "-split-behind-a-prefill-"),
    ),
)

OF_TURBOQUANT = (
    KernelFault(
        "values are counted from their largest",
        PACKED_WRITE,
        "zr_f16 = val_min.to(tl.float16)",
        "zr_f16 = val_max.to(tl.float16)",
        ("TURBOQUANT", "-packed-decode-h6x2-d64-b32-fp16-turboquant-3bit-nc-"),
    ),
    KernelFault(
        "values have a step too few",
        PACKED_WRITE,
        "v_scale = (val_max - val_min) / 15.0",
        "v_scale = (val_max - val_min) / 14.0",
        ("TURBOQUANT", "-packed-extend-"),
    ),
    KernelFault(
        "the highest bit of a key's index is lost",
        PACKED_WRITE,
        "packed = tl.sum((idx_pairs & 0xF) << shifts_4",
        "packed = tl.sum((idx_pairs & 0x7) << shifts_4",
        ("TURBOQUANT", "-packed-extend-"),
    ),
    KernelFault(
        "heads have one another's norms",
        PACKED_WRITE,
        "tl.load(Norms_ptr + pid)",
        "tl.load(Norms_ptr + token_idx)",
        ("TURBOQUANT", "-packed-decode-h8x2-d64-b16-bf16-turboquant-4bit-nc-"),
    ),
    KernelFault(
        "splits end too early",
        PACKED,
        "split_len = tl.cdiv(seq_len, NUM_KV_SPLITS)",
        "split_len = seq_len // NUM_KV_SPLITS",
        ("TURBOQUANT", "-packed-split-"),
    ),
    KernelFault(
        "a key's norm is not corrected",
        PACKED,
        "                c_vals = c_vals * c_inv_norm[:, None]\n",
        "                pass\n",
        ("TURBOQUANT", "-packed-decode-h8x2-d64-b16-bf16-turboquant-4bit-nc-"),
    ),
    KernelFault(
        "values have no zero point",
        PACKED,
        "values = v_idx * v_scales[:, None] + v_zeros[:, None]",
        "values = v_idx * v_scales[:, None]",
        ("TURBOQUANT", "-packed-decode-h6x2-d64-b32-fp16-turboquant-3bit-nc-"),
    ),
    KernelFault(
        "what is unpacked for a prefill has no zero point",
        PACKED,
        "v_vals = v_idx * v_scale + v_zero\n",
        "v_vals = v_idx * v_scale\n",
        ("TURBOQUANT", "-packed-continued-"),
    ),
    KernelFault(
        "what was summed is not rescaled",
        PACKED,
        "acc = acc * re_scale + tl.sum(p[:, None] * values, 0)",
        "acc = acc + tl.sum(p[:, None] * values, 0)",
        ("TURBOQUANT", "-packed-long-h1x1-d64-b64-bf16-turboquant-k8v4-"),
        "standard",
    ),
)

OF_DIFFKV = (
    KernelFault(
        "as many columns of values as of keys",
        DIFFKV,
        "HEAD_SIZE_V=head_size_v,\n        HEAD_SIZE_V_PADDED=triton.next_power_of_2(head_size_v),"
        "\n        USE_ALIBI",
        "HEAD_SIZE_V=head_size_qk,\n        HEAD_SIZE_V_PADDED=triton.next_power_of_2("
        "head_size_qk),\n        USE_ALIBI",
        ("TRITON_ATTN_DIFFKV", "-prefill-edges-"),
    ),
)

BY_KERNEL = {
    "unified": OF_UNIFIED,
    "paged 2D": OF_PAGED_2D,
    "prefix prefill": OF_PREFIX_PREFILL,
    "latent decode": OF_LATENT_DECODE,
    "cache writes": OF_CACHE_WRITES,
    "segmented": OF_SEGMENTED,
    "TurboQuant": OF_TURBOQUANT,
    "values of another size": OF_DIFFKV,
}
