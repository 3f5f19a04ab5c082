"""The GPU that a vLLM is told it runs on."""

from __future__ import annotations

from functools import cache

import torch

from conformance.config import RunConfig
from conformance.matrix.targets import target
from conformance.problems.encodings import in_encoding
from conformance.problems.features import features
from conformance.problems.problem import Problem
from conformance.problems.tiers import tier_named

# By the cache's encoding, because vLLM stores fp8 as its GPU does.
BY_CACHE = dict.fromkeys(("fp8_e4m3fn", "fp8_e4m3fn_per_token_head", "fp8_e4m3fn_ds_mla"), "gfx950")
USUAL = "gfx942"


def shown_gpu(config: RunConfig, problem: Problem | None = None) -> str:
    """The target that a vLLM is shown for a problem; "" on a GPU of another vendor."""
    if config.device == "gpu" and config.wrap and config.targets:
        return config.targets[0]
    if config.device == "gpu":
        return real_gpu()
    _, colon, rest = config.device.partition(":")
    if colon:
        return rest.partition(",")[0]
    if problem is not None and (shown := features()[problem.backend].shown_to(problem.kind)):
        return shown
    if problem is None or tier_named(config.tier).one_target:
        return USUAL  # see shows_one_gpu
    return BY_CACHE.get(problem.kv_cache_dtype, USUAL)


def shows_one_gpu(config: RunConfig) -> bool:
    """Whether the tier shows a vLLM the same GPU whatever a cache's encoding."""
    return config.device == "interpreter" and tier_named(config.tier).one_target


def as_shown(config: RunConfig, problem: Problem) -> Problem:
    """A problem in the fp8 of the GPU that its backend is shown."""
    return in_encoding(problem, target(shown_gpu(config, problem)).fp8)


@cache
def real_gpu() -> str:
    """The AMD GPU of this machine; "" where torch sees none."""
    if torch.version.hip is None or not torch.cuda.is_available():
        return ""
    name: str = torch.cuda.get_device_properties(0).gcnArchName
    return name.partition(":")[0]
