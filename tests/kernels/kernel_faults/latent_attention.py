"""Faults of latent attention: decode, prefill, the sparse form and its indexer."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import one_edit
from tests.kernels.kernel_faults.problems import (
    AITER,
    AITER_TRITON,
    MLA,
    latent,
    latent_prefill,
    sparse,
)

COMMON, PAGES, INDEX = "ops/mla/common.py", "ops/mla/pages.py", "ops/mla/index.py"
WORKERS, PREFILL, MLA_FILE = "ops/mla/workers.py", "ops/mla/prefill.py", "backends/triton_mla.py"

DECODE = (
    one_edit(
        "MLA: logits without the rope part",
        latent(MLA),
        COMMON,
        "attend_tiles",
        "tl.dot(query_rope, tl.trans(rope), dot, input_precision='ieee')",
        "tl.dot(query_rope * 0, tl.trans(rope), dot, input_precision='ieee')",
    ),
    one_edit(
        "MLA: values begin 64 columns late and end in the rope part",
        latent(MLA),
        COMMON,
        "attend_tiles",
        "update(..., latent)",
        "update(..., decode(tl.load(rows + ROPE + columns, "
        "mask=stored[:, None], other=0), query.dtype, FORMAT))",
    ),
    one_edit(
        "MLA: the first split is dropped",
        latent(MLA),
        MLA_FILE,
        "latent_kernel",
        "first = segment * per_segment",
        "first = (segment + 1) * per_segment",
    ),
    one_edit(
        "MLA: splits leave out the rest of the division",
        latent(MLA),
        MLA_FILE,
        "latent_kernel",
        "tl.cdiv(tl.cdiv(last, TILE), SEGMENTS) * TILE",
        "last // TILE // SEGMENTS * TILE",
    ),
    one_edit(
        "MLA: the value has no scale",
        (MLA, "fp8_scales"),
        MLA_FILE,
        "TritonMLA.attend",
        "result_arguments(scores, scales.k, out, lse)",
        "result_arguments(scores, 1.0, out, lse)",
    ),
    one_edit(
        "MLA: a token sees the next one",
        latent(AITER, 3),
        COMMON,
        "attend_tiles",
        "seen & (key_pos[None, :] <= query_pos[:, None])",
        "seen & (key_pos[None, :] <= query_pos[:, None] + 1)",
    ),
    one_edit(
        "MLA: pages of the first block only",
        latent(AITER),
        PAGES,
        "expand_kernel",
        "table_ptr + seq * table_row + position // BLOCK_SIZE",
        "table_ptr + seq * table_row + position // BLOCK_SIZE * 0",
    ),
    one_edit(
        "MLA: every page is the first slot of its block",
        latent(AITER),
        PAGES,
        "expand_kernel",
        "position % BLOCK_SIZE * slot_pages",
        "position % BLOCK_SIZE * 0",
    ),
    one_edit(
        "MLA: the last part of a cut block is dropped",
        latent(AITER),
        WORKERS,
        "combine_cut_kernel",
        "after < workers",
        "after < workers - 1",
    ),
    one_edit(
        "MLA: the first part of a cut block is read from another block's place",
        latent(AITER),
        WORKERS,
        "combine_cut_kernel",
        "slot = 2 * (worker + after) + (after == 0).to(tl.int32)",
        "slot = 2 * (worker + after)",
    ),
)

PREFILLS = (
    one_edit(
        "MLA prefill: keys without the rope part",
        latent_prefill(MLA),
        PREFILL,
        "attend_joined",
        "keys[..., nope:] = rows.latent[:, None, nope - geometry.head_size :]",
        "keys[..., nope:] = 0",
    ),
    one_edit(
        "MLA prefill: the context is left out",
        latent_prefill(AITER),
        PREFILL,
        "prefill",
        "longest <= 0",
        "longest <= 2 ** 20",
    ),
    one_edit(
        "MLA prefill: the rope part is read from the latent one",
        latent_prefill(AITER_TRITON),
        PREFILL,
        "split_kernel",
        "latent_ptr + key_row * latent_row + RANK",
        "latent_ptr + key_row * latent_row",
    ),
    one_edit(
        "MLA prefill: a window over the context",
        latent_prefill(MLA),
        PREFILL,
        "prefill",
        "whole = replace(scores, causal=False)",
        "whole = replace(scores, causal=True, window=(8, 0))",
    ),
    one_edit(
        "MLA prefill: the value is the key's first half",
        latent_prefill(AITER_TRITON),
        PREFILL,
        "attend_split_tiles",
        "keys + NOPE",
        "keys",
    ),
    one_edit(
        "MLA prefill: rows without a context come out of the merge as zero",
        latent_prefill(AITER_TRITON),
        "ops/combine.py",
        "merge_kernel",
        "weight_a[:, None]",
        "tl.where(weight_b == 0.0, 0.0, weight_a)[:, None]",
    ),
)

SPARSES = (
    one_edit(
        "top-k: one too few",
        sparse("indexer"),
        INDEX,
        "select",
        "taken = min(wanted, columns)",
        "taken = min(wanted - 1, columns)",
    ),
    one_edit(
        "top-k: the smallest",
        sparse("indexer"),
        INDEX,
        "select",
        "logits.topk(taken, dim=1, sorted=False)",
        "logits.topk(taken, dim=1, sorted=False, largest=False)",
    ),
    one_edit(
        "top-k: a token does not choose itself",
        sparse("indexer"),
        INDEX,
        "logits_kernel",
        "num_keys = tl.load(seq_lens_ptr + seq) - after + 1",
        "num_keys = tl.load(seq_lens_ptr + seq) - after",
    ),
    one_edit(
        "top-k: heads without their weights",
        sparse("indexer"),
        INDEX,
        "logits_kernel",
        "tl.maximum(dot, 0.0) * weights[:, None].to(tl.float32)",
        "tl.maximum(dot, 0.0)",
    ),
    one_edit(
        "top-k: negative products count",
        sparse("indexer"),
        INDEX,
        "logits_kernel",
        "tl.maximum(dot, 0.0)",
        "dot",
    ),
    one_edit(
        "top-k: every key of a block with the scale of its first",
        sparse("indexer"),
        INDEX,
        "logits_kernel",
        "scales = scales_ptr + block * scales_block + slot",
        "scales = scales_ptr + block * scales_block + slot * 0",
    ),
    one_edit(
        "top-k: every key's scale is stored as one",
        sparse("indexer"),
        INDEX,
        "write_index_kernel",
        "tl.store(..., scale, mask=slot >= 0)",
        "tl.store(..., scale * 0 + 1.0, mask=slot >= 0)",
    ),
    one_edit(
        "sparse: -1 is read as the last slot",
        sparse("mla_sparse"),
        PAGES,
        "translate_kernel",
        "valid = (position >= 0) & (position < seq_len)",
        "position = tl.where(position < 0, seq_len - 1, position)\n"
        "valid = (lanes < K) & (position < seq_len)",
    ),
    one_edit(
        "sparse: the last choice is left out",
        sparse("mla_sparse"),
        PAGES,
        "translate_kernel",
        "lanes < K",
        "lanes < K - 1",
    ),
    one_edit(
        "sparse: positions are taken for slots",
        sparse("mla_sparse"),
        PAGES,
        "translate_kernel",
        "page = block * block_pages + position % BLOCK_SIZE * slot_pages",
        "page = block * 0 + position",
    ),
)

FAULTS = (*DECODE, *PREFILLS, *SPARSES)
