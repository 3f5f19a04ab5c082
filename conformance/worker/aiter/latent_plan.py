"""Which workgroup takes which part of a latent decode, as aiter plans it for persistent kernels.

On a GPU a kernel of aiter's makes the plan, ``kn_get_mla_metadata_v1_2`` of
``csrc/kernels/mla/metadata/v1_2_device.cuh``, and another merges the parts, ``kn_mla_reduce_v1`` of
``csrc/kernels/mla/reduce.cu`` (https://github.com/ROCm/aiter/tree/main/csrc/kernels/mla). Both are
repeated here, with the numbers that vLLM hands over: 16 keys a block, ``fast_mode``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..errors import Refused

BLOCK = 16  # keys
# What a piece costs besides its keys, in blocks.
_OVERHEAD = 16
# The rows (query tokens times heads) that a workgroup takes, and heads that a kernel takes as such.
_ROWS, _NATIVE_HEADS, _GROUP = 128, (16, 128), 16
_NO_PART = -1
_PADDING = 0


@dataclass
class Plan:
    """The tensors that ``mla_decode_fwd`` takes, all int32; ``meta`` has addresses of two of them.

    ``starts`` [workgroups + 1]: the pieces of each. ``pieces`` [N, 8]: sequence, first row of the
    partial outputs or -1, first and last query token, first and last key, keys after it, padding.
    ``groups`` [tokens + 1], ``places`` [tokens, 2], ``parts``: which partial rows are merged into
    which query tokens; a group without any is written by its kernel.
    """

    starts: torch.Tensor
    pieces: torch.Tensor
    groups: torch.Tensor
    places: torch.Tensor
    parts: torch.Tensor
    meta: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        addresses = [self.starts.data_ptr(), self.pieces.data_ptr()]
        self.meta = torch.tensor(addresses, dtype=torch.int64)

    def merge(self, partial: torch.Tensor, sums: torch.Tensor, out: torch.Tensor) -> None:
        """Merges partial outputs [N, 1, H, V] by their log-sum-exp [N, 1, H, 1] into ``out``."""
        bounds = self.groups.tolist()
        for place, low, high in zip(self.places.tolist(), bounds, bounds[1:], strict=False):
            for token in range(place[0], place[1] if high > low else place[0]):
                rows = self.parts[low:high].long() + token - place[0]
                weights = sums[rows, 0].softmax(0)
                out[token] = (weights * partial[rows, 0]).sum(0).to(out.dtype)


def plan(lens: list[int], heads: int, tokens: int, workgroups: int) -> Plan:
    """The plan for sequences of so many keys, each with ``tokens`` query tokens.

    Raises:
        Refused: the heads are none that aiter plans for, or a sequence's rows take workgroups.
    """
    ratio = 1
    if heads not in _NATIVE_HEADS and heads % _GROUP == 0 and heads < max(_NATIVE_HEADS):
        ratio = heads // _GROUP
    elif heads not in _NATIVE_HEADS:
        raise Refused(f"aiter plans no latent decode of {heads} heads")
    if heads * tokens > _ROWS:
        raise Refused(f"the plan of {heads} heads and {tokens} query tokens is not repeated here")
    batches = [(n, sum(lens[:s])) for s, n in enumerate(lens) for _ in range(ratio)]
    blocks = sum(-(-n // BLOCK) for n, _ in batches) + len(batches) * _OVERHEAD
    payload = -(-blocks // workgroups) + _OVERHEAD
    pieces: list[tuple[int, ...]] = []
    starts, groups, places, parts = [0], [0], list[tuple[int, int]](), list[int]()
    at = done = rows = 0
    split: list[int] = []
    for _ in range(workgroups):
        left = payload
        while at < len(batches):
            keys, first = batches[at]
            remaining = -(-keys // BLOCK) - done
            last_piece = left >= remaining + _OVERHEAD
            taken = remaining if last_piece else left - _OVERHEAD
            if taken <= 0 and not last_piece:
                break
            begin = first + done * BLOCK
            end = min(begin + taken * BLOCK, first + keys)
            whole = last_piece and not split
            queries = (at * tokens, (at + 1) * tokens)
            part = _NO_PART if whole else rows
            pieces.append((at, part, *queries, begin, end, first + keys - end, _PADDING))
            if not whole:
                split.append(rows)
                rows += tokens
            if not last_piece:
                done += taken
                break
            parts += split
            groups.append(len(parts))
            places.append(queries)
            left -= remaining + _OVERHEAD
            at, done, split = at + 1, 0, []
        starts.append(len(pieces))
    return Plan(
        *(torch.tensor(each, dtype=torch.int32) for each in (starts, pieces, groups, places, parts))
    )
