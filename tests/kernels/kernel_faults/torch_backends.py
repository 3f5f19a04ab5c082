"""Faults of the backends that are written in torch."""

from __future__ import annotations

from tests.kernels.kernel_faults.fault import one_edit
from tests.kernels.kernel_faults.problems import FLEX, decode, encoder, mixed, prefix, window

SDPA, FLASH = "TORCH_SDPA", "FLASH_ATTN"
FLEX_FILE, VIT = "backends/flex_attention.py", "backends/vit.py"

FAULTS = (
    one_edit(
        "FLEX: a token does not see itself",
        mixed(FLEX),
        FLEX_FILE,
        "mask_of.visible",
        "seen & (key_pos <= query_pos)",
        "seen & (key_pos < query_pos)",
    ),
    one_edit(
        "FLEX: the next key is seen",
        mixed(FLEX),
        FLEX_FILE,
        "mask_of.visible",
        "seen & (key_pos <= query_pos)",
        "seen & (key_pos <= query_pos + 1)",
    ),
    one_edit(
        "FLEX: the window is exclusive",
        window(FLEX),
        FLEX_FILE,
        "mask_of.visible",
        "(key_pos >= query_pos - left)",
        "(key_pos > query_pos - left)",
    ),
    one_edit(
        "FLEX: prefix ranges are exclusive",
        prefix(FLEX),
        FLEX_FILE,
        "mask_of.visible",
        "(p >= first) & (p <= last)",
        "(p >= first) & (p < last)",
    ),
    one_edit(
        "FLEX: a block that some queries see in part is left out",
        mixed(FLEX),
        FLEX_FILE,
        "key_blocks",
        "mask(query_pos[:, None], key_pos[None, :]).any()",
        "mask(query_pos[:, None], key_pos[None, :]).all()",
    ),
    one_edit(
        "FLEX: the last block of keys is left out",
        decode(FLEX),
        FLEX_FILE,
        "key_blocks",
        "range(0, num_keys, BLOCK)",
        "range(0, num_keys - BLOCK + 1, BLOCK)",
    ),
    one_edit(
        "FLEX: positions count from the block",
        window(FLEX),
        FLEX_FILE,
        "_rows.read",
        "block = table[positions // geometry.block_size]",
        "block = table[(positions - positions[:1]) // geometry.block_size]",
    ),
    one_edit(
        "FLEX: the window is open on the right",
        encoder(FLEX),
        FLEX_FILE,
        "mask_of.visible",
        "right >= 0",
        "right > 99",
    ),
    one_edit(
        "FLEX: heads of a group are dealt by modulo",
        prefix(FLEX),
        FLEX_FILE,
        "attend_block",
        'torch.einsum("grqk,kgd->qgrd", grouped, value).flatten(1, 2)',
        'torch.einsum("grqk,kgd->qrgd", grouped, value).flatten(1, 2)',
    ),
    one_edit(
        "SDPA: the default scale",
        encoder(SDPA),
        VIT,
        "TorchSdpa.attend_varlen",
        "torch.nn.functional.scaled_dot_product_attention(..., scale=scores.scale)",
        "torch.nn.functional.scaled_dot_product_attention(..., scale=None)",
    ),
    one_edit(
        "SDPA: an image sees those before it",
        encoder(SDPA),
        VIT,
        "TorchSdpa.attend_varlen",
        "slice(*keys[seq : seq + 2])",
        "slice(0, keys[seq + 1])",
    ),
    one_edit(
        "SDPA: a causal mask",
        encoder(SDPA),
        VIT,
        "TorchSdpa.attend_varlen",
        "torch.nn.functional.scaled_dot_product_attention(..., is_causal=scores.causal)",
        "torch.nn.functional.scaled_dot_product_attention(..., is_causal=True)",
    ),
    one_edit(
        "SDPA: rows without keys are not written",
        (SDPA, "no_keys"),
        VIT,
        "TorchSdpa.attend_varlen",
        "out[rows] = 0",
        "",
    ),
    one_edit(
        "FLASH_ATTN: the last key of every image is dropped",
        encoder(FLASH),
        "ops/varlen.py",
        "packed_kernel",
        "(tl.load(key_start_ptr + seq + 1) - key_row)",
        "(tl.load(key_start_ptr + seq + 1) - 1 - key_row)",
    ),
    one_edit(
        "FLASH_ATTN: keys begin where the queries do",
        (FLASH, "no_keys"),
        "ops/varlen.py",
        "packed_kernel",
        "key_row = tl.load(key_start_ptr + seq).to(tl.int64)",
        "key_row = start.to(tl.int64)",
    ),
)
