"""aiter's prefills in assembly: ``fmha_v3`` over packed sequences, forward.

vLLM's ROCM_AITER_FA and, on gfx950, ROCM_AITER_MLA prefill with ``aiter.flash_attn_varlen_func``,
which takes these kernels for what :func:`why_not` lets through and CK's for all else. What its host
code does is repeated here: ``csrc/py_itfs_cu/asm_mha_varlen_fwd.cu`` for the arguments,
``hsa/<target>/fmha_v3_fwd/codegen.py`` for the file and the grid
(https://github.com/ROCm/aiter/tree/main/hsa/gfx942/fmha_v3_fwd).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import Refused
from ..interfaces import Scores
from ..targets import target_facts
from .code_objects import CodeObjects

VALUE_SIZE = 128
# Heads of 192 elements, MLA's, have kernels on gfx950 only.
_HEAD_SIZES = {"gfx942": (128,), "gfx950": (128, 192)}
# The folder of a gfx942 with so many compute units.
_FOLDERS = {304: "MI300/", 80: "MI308/", 64: "MI308/"}
# How bfloat16 is rounded on gfx942 unless a caller says otherwise: ties away from 0.
_ROUNDING = {"gfx942": "_rtna", "gfx950": ""}
_LONGEST_TUNED = 16384  # query tokens


@dataclass(frozen=True)
class Packed:
    """Sequences one after another: ``query`` [T, H, D], ``key`` [K, G, D], ``value`` [K, G, V]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    query_lens: list[int]
    key_lens: list[int]


def why_not(target: str, scores: Scores, head_size: int, value_size: int, kind: torch.dtype) -> str:
    """What keeps aiter from taking a kernel in assembly, so that it takes CK's; "" if nothing.

    Its ``can_impl_fmha_v3_fwd``, and what vLLM passes on besides.
    """
    has = {
        "a window": max(scores.window) >= 0 and scores.window != (-1, 0),
        "ALiBi": scores.alibi_slopes is not None,
        "sinks": scores.sinks is not None,
        "a soft cap": scores.soft_cap != 0,
        "prefix ranges": scores.mm_prefix is not None,
        f"{str(kind).removeprefix('torch.')}": kind != torch.bfloat16,
        f"heads of {head_size} and {value_size} elements": value_size != VALUE_SIZE
        or head_size not in _HEAD_SIZES[target],
    }
    named = [name for name, there in has.items() if there]
    return (
        f"with {', '.join(named)} aiter prefills by CK, which no driver here runs" if named else ""
    )


def attend_packed(
    objects: CodeObjects, given: Packed, scale: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Attention by one launch: the output [T, H, V], the log-sum-exp [T, H], and what ran.

    Causal: each sequence's last query token sees its last key.
    """
    query, key, value = (each.contiguous() for each in (given.query, given.key, given.value))
    tokens, heads, size = query.shape
    longest = max(given.query_lens)
    causal = causal and longest > 1
    rows = 256 if size == VALUE_SIZE else 128
    tuned = 3 if causal and (heads % 8 or longest > _LONGEST_TUNED) else 5
    out = torch.full((tokens, heads, VALUE_SIZE), math.nan, dtype=query.dtype)
    sums = torch.full((heads, tokens), math.nan)
    starts = [torch.tensor([0, *n]).cumsum(0).int() for n in (given.query_lens, given.key_lens)]

    def steps(tensor: torch.Tensor) -> tuple[int, int, int]:
        """Bytes from token to token, head to head, and sequence to sequence, which has none."""
        return tensor.stride(0) * tensor.itemsize, tensor.stride(1) * tensor.itemsize, 0

    token_step, *other_steps = steps(query)
    tiles = -(-longest // rows)
    file, symbol = file_for(objects.target, size, causal=causal)
    ran = objects.launch(
        file,
        symbol,
        (heads, len(given.query_lens), -(-tiles // 2) if causal else tiles),
        (
            *(out, query, key, value, sums),
            float(scale),
            *(longest, token_step, rows * token_step, *other_steps, heads // key.shape[1]),
            *(*steps(key), tuned, 1, max(given.key_lens), size, VALUE_SIZE, heads),
            *(*steps(value), *steps(out)),
            *starts,
            sums.stride(0) * sums.itemsize,
            *starts,
        ),
    )
    return out, sums.T, ran


def file_for(target: str, head_size: int, *, causal: bool) -> tuple[str, str]:
    """The file for packed sequences, and its kernel.

    Raises:
        Refused: aiter has none for a device with so many compute units.
    """
    sizes = "hd128" if head_size == VALUE_SIZE else f"hd{head_size}_hd{VALUE_SIZE}"
    name = f"{sizes}_bf16{'_causal' if causal else ''}{_ROUNDING[target]}_group"
    kernel = f"fmha_fwd_{name}"
    folder = ""
    if target == "gfx942":
        units = target_facts(target).compute_units
        if units not in _FOLDERS:
            raise Refused(f"aiter has no fmha_v3 for a gfx942 with {units} compute units")
        folder = _FOLDERS[units]
    return f"fmha_v3_fwd/{folder}fwd_{name}.co", f"_ZN5aiter{len(kernel)}{kernel}E"


def attend_after_contexts(
    objects: CodeObjects,
    new: Packed,
    contexts: list[tuple[torch.Tensor, torch.Tensor] | None],
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """New tokens [T, H, D] over themselves and, where a sequence has one, a context before them.

    As vLLM does it: two launches, whose outputs are merged by their log-sum-exp. It merges with a
    kernel of its own, and takes a long context in parts; here torch merges, and a context is one
    part. ``contexts``: keys [K, G, D] and values [K, G, V] of each sequence, or None.
    """
    out, sums, ran = attend_packed(objects, new, scale, causal=True)
    named = [ran]
    rows = torch.split(torch.arange(len(out)), new.query_lens)
    with_one = [(at, each) for at, each in zip(rows, contexts, strict=True) if each is not None]
    if with_one:
        at = torch.cat([place for place, _ in with_one])
        before = Packed(
            new.query[at],
            torch.cat([key for _, (key, _) in with_one]),
            torch.cat([value for _, (_, value) in with_one]),
            [len(place) for place, _ in with_one],
            [len(key) for _, (key, _) in with_one],
        )
        part, part_sums, ran = attend_packed(objects, before, scale, causal=False)
        total = torch.logaddexp(sums[at], part_sums)
        weights = [(each - total).exp()[..., None] for each in (sums[at], part_sums)]
        out[at] = (weights[0] * out[at].float() + weights[1] * part.float()).to(out.dtype)
        sums[at] = total
        named += [ran, "harness torch_gather", "harness torch_merge"]
    return out, sums, named
