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
        "dot = tl.dot(query_rope, tl.trans(rope), dot, input_precision",
        "dot = tl.dot(query_rope * 0, tl.trans(rope), dot, input_precision",
    ),
    one_edit(
        "MLA: values begin 64 columns late and end in the rope part",
        latent(MLA),
        COMMON,
        "update(acc, maximum, total, logits, latent)",
        "update(acc, maximum, total, logits, decode(tl.load(rows + ROPE + columns, "
        "mask=stored[:, None], other=0), query.dtype, FORMAT))",
    ),
    one_edit(
        "MLA: the first split is dropped",
        latent(MLA),
        MLA_FILE,
        "first = segment * per_segment",
        "first = (segment + 1) * per_segment",
    ),
    one_edit(
        "MLA: splits leave out the rest of the division",
        latent(MLA),
        MLA_FILE,
        "tl.cdiv(tl.cdiv(last, TILE), SEGMENTS) * TILE",
        "last // TILE // SEGMENTS * TILE",
    ),
    one_edit(
        "MLA: the value has no scale",
        (MLA, "fp8_scales"),
        MLA_FILE,
        "result_arguments(scores, scales.k, out, lse)",
        "result_arguments(scores, 1.0, out, lse)",
    ),
    one_edit(
        "MLA: a token sees the next one",
        latent(AITER, 3),
        COMMON,
        "seen & (key_pos[None, :] <= query_pos[:, None])",
        "seen & (key_pos[None, :] <= query_pos[:, None] + 1)",
    ),
    one_edit(
        "MLA: pages of the first block only",
        latent(AITER),
        PAGES,
        "table_ptr + seq * table_row + position // BLOCK_SIZE",
        "table_ptr + seq * table_row + position // BLOCK_SIZE * 0",
    ),
    one_edit(
        "MLA: every page is the first slot of its block",
        latent(AITER),
        PAGES,
        "position % BLOCK_SIZE * slot_pages\n    tl.store",
        "position % BLOCK_SIZE * 0\n    tl.store",
    ),
    one_edit(
        "MLA: the last part of a cut block is dropped",
        latent(AITER),
        WORKERS,
        "            after < workers,",
        "            after < workers - 1,",
    ),
    one_edit(
        "MLA: the first part of a cut block is read from another block's place",
        latent(AITER),
        WORKERS,
        "slot = 2 * (worker + after) + (after == 0).to(tl.int32)",
        "slot = 2 * (worker + after)",
    ),
)

PREFILLS = (
    one_edit(
        "MLA prefill: keys without the rope part",
        latent_prefill(MLA),
        PREFILL,
        "keys[..., nope:] = rows.latent[:, None, nope - geometry.head_size :]",
        "keys[..., nope:] = 0",
    ),
    one_edit(
        "MLA prefill: the context is left out",
        latent_prefill(AITER),
        PREFILL,
        "if longest <= 0:",
        "if longest <= 2**20:",
    ),
    one_edit(
        "MLA prefill: the rope part is read from the latent one",
        latent_prefill(AITER_TRITON),
        PREFILL,
        "latent_ptr + key_row * latent_row + RANK,",
        "latent_ptr + key_row * latent_row,",
    ),
    one_edit(
        "MLA prefill: a window over the context",
        latent_prefill(MLA),
        PREFILL,
        "whole = replace(scores, causal=False)",
        "whole = replace(scores, causal=True, window=(8, 0))",
    ),
    one_edit(
        "MLA prefill: the value is the key's first half",
        latent_prefill(AITER_TRITON),
        PREFILL,
        "load_tile(keys + NOPE + value_columns",
        "load_tile(keys + value_columns",
    ),
    one_edit(
        "MLA prefill: rows without a context come out of the merge as zero",
        latent_prefill(AITER_TRITON),
        "ops/combine.py",
        "mask=mask, other=0) * weight_a[:, None]",
        "mask=mask, other=0) * tl.where(weight_b == 0.0, 0.0, weight_a)[:, None]",
    ),
)

SPARSES = (
    one_edit(
        "top-k: one too few",
        sparse("indexer"),
        INDEX,
        "taken = min(wanted, columns)",
        "taken = min(wanted - 1, columns)",
    ),
    one_edit(
        "top-k: the smallest",
        sparse("indexer"),
        INDEX,
        "logits.topk(taken, dim=1, sorted=False)",
        "logits.topk(taken, dim=1, sorted=False, largest=False)",
    ),
    one_edit(
        "top-k: a token does not choose itself",
        sparse("indexer"),
        INDEX,
        "num_keys = tl.load(seq_lens_ptr + seq) - after + 1",
        "num_keys = tl.load(seq_lens_ptr + seq) - after",
    ),
    one_edit(
        "top-k: heads without their weights",
        sparse("indexer"),
        INDEX,
        "tl.maximum(dot, 0.0) * weights[:, None].to(tl.float32)",
        "tl.maximum(dot, 0.0)",
    ),
    one_edit(
        "top-k: negative products count",
        sparse("indexer"),
        INDEX,
        "tl.sum(tl.maximum(dot, 0.0) *",
        "tl.sum(dot *",
    ),
    one_edit(
        "top-k: every key of a block with the scale of its first",
        sparse("indexer"),
        INDEX,
        "scales = scales_ptr + block * scales_block + slot",
        "scales = scales_ptr + block * scales_block + slot * 0",
    ),
    one_edit(
        "top-k: every key's scale is stored as one",
        sparse("indexer"),
        INDEX,
        "slot % BLOCK_SIZE, scale, mask=slot >= 0)",
        "slot % BLOCK_SIZE, scale * 0 + 1.0, mask=slot >= 0)",
    ),
    one_edit(
        "sparse: -1 is read as the last slot",
        sparse("mla_sparse"),
        PAGES,
        "            valid = (position >= 0) & (position < seq_len)\n",
        "            position = tl.where(position < 0, seq_len - 1, position)\n"
        "            valid = (lanes < K) & (position < seq_len)\n",
    ),
    one_edit(
        "sparse: the last choice is left out",
        sparse("mla_sparse"),
        PAGES,
        "mask=lanes < K, other=-1",
        "mask=lanes < K - 1, other=-1",
    ),
    one_edit(
        "sparse: positions are taken for slots",
        sparse("mla_sparse"),
        PAGES,
        "page = block * block_pages + position % BLOCK_SIZE * slot_pages",
        "page = block * 0 + position",
    ),
)

FAULTS = (*DECODE, *PREFILLS, *SPARSES)
