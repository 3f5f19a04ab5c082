"""What DeepSeek-V4's caches hold: keys in E4M3 with a power of two for every 64 columns.

Written from the format of release 0.33.0 (``fp8_ds_mla``):
https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/models/deepseek_v4/common/ops/cache_utils.py#L66

A key has 512 columns, and all of them are the value, too. The first 448 are codes of E4M3: of each
64, the scale is the least power of two with which the largest magnitude is no more than 448, and is
kept as its exponent plus 127, a byte behind the codes of all keys of a block. The last 64 columns
stay bfloat16. A group is scaled as if its largest magnitude were a ten-thousandth or more.

E4M3FNUZ, in which a cache may be on gfx942, goes to 224 in vLLM: then a scale is twice as large and
a code half as large. Both encodings have as many bits behind the point, and FNUZ's exponents begin
one lower; so a key reads the same from either.
"""

from __future__ import annotations

import torch

GROUP = 64  # columns that have a scale in common
CODED = 448  # columns in E4M3; the others are bfloat16
LARGEST = 448.0
LEAST = 1e-4  # the largest magnitude of a group that scales are made for
# Factors of groups, so that their scales differ; and which groups of keys are zeros.
FACTORS, EVERY_ZERO = (1.0, 0.25, 0.5, 0.0625, 1.0), 17


def spread(keys: torch.Tensor) -> torch.Tensor:
    """Keys [K, G, D] whose groups of columns differ in magnitude; some are 0."""
    groups = CODED // GROUP
    number = torch.arange(len(keys))[:, None] * 3 + torch.arange(groups) * 4
    factor = torch.tensor(FACTORS)[number % len(FACTORS)]
    factor = torch.where(number % EVERY_ZERO == EVERY_ZERO - 1, 0.0, factor)
    wide = torch.ones(len(keys), keys.shape[-1])
    wide[:, :CODED] = factor.repeat_interleave(GROUP, 1)
    return keys * wide[:, None].to(keys.dtype)


def stored(keys: torch.Tensor) -> torch.Tensor:
    """Keys [..., D] as attention reads them from a cache (float64)."""
    exact = keys.double()
    scale = scales(keys).repeat_interleave(GROUP, -1)
    codes = (exact[..., :CODED] / scale).float().to(torch.float8_e4m3fn).double()
    return torch.cat([codes * scale, exact[..., CODED:]], -1)


def scales(keys: torch.Tensor) -> torch.Tensor:
    """The scale of each group of columns [..., groups] (float64)."""
    largest = _largest(keys).clamp_min(LEAST)
    return torch.exp2(torch.ceil(torch.log2(largest / LARGEST)))


def settled(keys: torch.Tensor) -> torch.Tensor:
    """Keys [K, G, D] whose scales do not hang on the last place of a logarithm.

    Where the largest magnitude of a group is 448 times a power of two, kernels that take its
    logarithm may come out just above it: such a group becomes a little larger.
    """
    mantissa, _ = torch.frexp(_largest(keys))
    open_groups = (mantissa == LARGEST / 512).repeat_interleave(GROUP, -1)
    coded = keys[..., :CODED]
    larger = torch.where(open_groups, coded.double() * (1 + 2.0**-6), coded.double())
    return torch.cat([larger.to(keys.dtype), keys[..., CODED:]], -1)


def _largest(keys: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each group of columns [..., groups]."""
    coded = keys.double()[..., :CODED].abs()
    return coded.reshape(*coded.shape[:-1], CODED // GROUP, GROUP).amax(-1)
