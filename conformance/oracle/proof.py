"""Evidence for the bound: correct kernels of many forms, run on many problems.

The kernels are written in torch, in the problem's dtype with float32 sums; on a GPU, 16-bit
products run on its matrix units. None may exceed the bound (a false alarm), and errors should come
close to it (a loose bound would miss faults). The table shows both.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from conformance.oracle.arithmetic import Arithmetic
from conformance.oracle.attention import Operands, Piece, pieces, sequences
from conformance.oracle.bound import bound as bound_of
from conformance.oracle.bound import inputs_of
from conformance.problems.problem import Problem
from conformance.problems.tensors import dtype_of, materialise

SAMPLES = 512  # elements sampled per problem, for the percentiles
LOG2E = 1.4426950408889634
PROVEN = Arithmetic(partial_roundings=1)


@dataclass
class Evidence:
    """The results of one kernel in one dtype."""

    dtype: str
    kernel: str
    problems: int = 0
    alarms: list[str] = field(default_factory=list)
    largest: float = 0.0
    ratios: list[torch.Tensor] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """A percentile of error/bound over the sampled elements that are not exactly zero."""
        ratios = torch.cat(self.ratios).float().cpu()
        return torch.sort(ratios).values[int(share * (len(ratios) - 1))].item()

    def summary(self) -> dict[str, str | int | float]:
        """A row of the table: percentiles and maximum of error/bound."""
        return {
            "dtype": self.dtype,
            "kernel": self.kernel,
            "problems": self.problems,
            "false alarms": len(self.alarms),
            "median": self.percentile(0.5),
            "99 %": self.percentile(0.99),
            "largest": self.largest,
        }


def prove(count: int, device: str = "cpu", seed: int = 0) -> list[Evidence]:
    """Runs ``count`` problems, each with a kernel drawn from the seed and with the plain one."""
    found: dict[tuple[str, str], Evidence] = {}
    for index in range(count):
        draw = random.Random(f"{seed}/{index}")
        problem = proof_problem(draw, index)
        for name in ("plain", draw.choice([*KERNELS])):
            evidence = found.setdefault(
                (problem.dtype, name), Evidence(dtype=problem.dtype, kernel=name)
            )
            _try(problem, name, draw, device, evidence)
    return [found[key] for key in sorted(found)]


def _try(problem: Problem, name: str, draw: random.Random, device: str, evidence: Evidence) -> None:
    """Runs one kernel on one problem."""
    tensors = materialise(problem, device)
    evidence.problems += 1
    worst = torch.zeros((), dtype=torch.float64, device=device)
    arithmetic = PROVEN if name == "merged" else Arithmetic()
    for s, operands in sequences(problem, tensors):
        inputs, cast = inputs_of(problem, operands, arithmetic), as_computed(problem, operands)
        for piece in pieces(problem, tensors, s, operands):
            limit, lse_limit = bound_of(problem, piece, inputs, arithmetic)
            output, lse = attend(problem, piece, cast, name, draw)
            ratio = _ratio(output, piece.output, limit)
            worst = torch.stack([worst, ratio.max(), _ratio(lse, piece.lse, lse_limit).max()]).max()
            sample = ratio[limit > 0]
            evidence.ratios.append(sample[:: max(1, len(sample) // SAMPLES)].float())
    largest = worst.item()
    evidence.largest = max(evidence.largest, largest)
    if not largest <= 1:
        evidence.alarms.append(f"{problem.id}: {largest:.4g}")


def _ratio(got: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    ratio = torch.where(got == expected, 0.0, (got.double() - expected).abs() / limit)
    return ratio.nan_to_num(math.inf, math.inf)


@dataclass(frozen=True)
class Cast:
    """Keys [G, N, D] and values [G, N, V] in the problem's dtype, as a kernel holds them."""

    key: torch.Tensor
    value: torch.Tensor


def as_computed(problem: Problem, operands: Operands) -> Cast:
    """Dequantised to the dtype; MLA's are projected up in it."""
    dtype = dtype_of(problem)
    key, value = operands.key.to(dtype), operands.value.to(dtype)
    if operands.latent is not None and operands.projection is not None:
        latent = operands.latent.to(dtype).expand(problem.num_heads, -1, -1)
        up = dot(latent, operands.projection.to(dtype).transpose(1, 2)).to(dtype)
        nope = problem.head_size - problem.rope_size
        key, value = torch.cat([up[..., :nope], key[..., nope:]], -1), up[..., nope:]
    return Cast(key, value)


def attend(
    problem: Problem, piece: Piece, cast: Cast, name: str, draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece's output [G, M, V] in the dtype, and its log-sum-exp [G, M, 1] in float32."""
    keys = piece.seen.shape[-1]
    query = piece.query.to(dtype_of(problem))
    state = KERNELS[name] if name != "plain" else _plain
    return state(problem, piece, query, Cast(cast.key[:, :keys], cast.value[:, :keys]), draw)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A batched matrix product summed in float32, on a GPU by its matrix units."""
    if a.is_cuda and a.dtype != torch.float32 and min(*a.shape, *b.shape) > 0:
        return torch.bmm(a.contiguous(), b.contiguous(), out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


def _logits(
    problem: Problem, piece: Piece, query: torch.Tensor, key: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    """Float32 logits of the keys at ``where``; -inf for masked ones."""
    logit = dot(query, key.transpose(1, 2)) * problem.softmax_scale
    if problem.soft_cap:
        up, down = (torch.exp(sign * logit / problem.soft_cap) for sign in (1, -1))
        logit = problem.soft_cap * ((up - down) / (up + down))
    if piece.bias is not None and piece.slope is not None:
        distance = (piece.bias / piece.slope)[..., where].round(decimals=9).float()
        logit = logit + piece.slope.float() * distance
    return logit.masked_fill(~piece.seen[:, where], -math.inf)


@dataclass
class State:
    """Online softmax: running maximum, sum and accumulator of a part, all float32."""

    top: torch.Tensor
    total: torch.Tensor
    accumulator: torch.Tensor

    @staticmethod
    def empty(piece: Piece) -> State:
        top = torch.full_like(piece.top, -math.inf, dtype=torch.float32)
        return State(top, torch.zeros_like(top), torch.zeros_like(piece.output).float())

    def add(self, logit: torch.Tensor, value: torch.Tensor, base2: bool) -> None:
        """Adds a tile: logits [G, M, t] and values [G, t, V]."""
        top = torch.maximum(self.top, logit.amax(-1, keepdim=True))
        still = torch.where(top == -math.inf, 0.0, top)
        weight, rescale = _exp(logit - still, base2), _exp(self.top - still, base2)
        self.total = self.total * rescale + weight.sum(-1, keepdim=True)
        self.accumulator = self.accumulator * rescale + dot(weight.to(value.dtype), value)
        self.top = top

    def add_sink(self, piece: Piece) -> None:
        if piece.sink is not None:
            top = torch.maximum(self.top, piece.sink.float())
            rescale = torch.exp(self.top - top)
            self.total = self.total * rescale + torch.exp(piece.sink.float() - top)
            self.accumulator, self.top = self.accumulator * rescale, top

    def finish(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The part's output (float32) and log-sum-exp."""
        empty = self.total == 0
        output = torch.where(empty, 0.0, self.accumulator / torch.where(empty, 1.0, self.total))
        return output, self.top + torch.log(self.total)


def _exp(x: torch.Tensor, base2: bool) -> torch.Tensor:
    return torch.exp2(x * LOG2E) if base2 else torch.exp(x)


def _plain(
    problem: Problem, piece: Piece, query: torch.Tensor, cast: Cast, draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """All keys in one step."""
    state = State.empty(piece)
    every = torch.arange(cast.key.shape[1], device=query.device)
    if len(every):
        state.add(_logits(problem, piece, query, cast.key, every), cast.value, draw.random() < 0.5)
    state.add_sink(piece)
    output, lse = state.finish()
    return output.to(query.dtype), lse


def _tiles(keys: int, tile: int, order: str, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Tiles of keys as (first, end), in some order."""
    starts = list(range(0, keys, tile))
    if order == "backward":
        starts.reverse()
    elif order == "random":
        draw.shuffle(starts)
    for start in starts:
        yield start, min(start + tile, keys)


def _run_part(
    problem: Problem,
    piece: Piece,
    query: torch.Tensor,
    cast: Cast,
    part: tuple[int, int],
    draw: random.Random,
) -> State:
    """Online softmax over the keys of a part."""
    state, base2 = State.empty(piece), draw.random() < 0.5
    tile = draw.choice([16, 32, 64, 128, 512])
    order = draw.choice(["forward", "backward", "random"])
    for first, end in _tiles(part[1] - part[0], tile, order, draw):
        where = torch.arange(part[0] + first, part[0] + end, device=query.device)
        logit = _logits(problem, piece, query, cast.key[:, where], where)
        state.add(logit, cast.value[:, where], base2)
    return state


def _tiled(
    problem: Problem, piece: Piece, query: torch.Tensor, cast: Cast, draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles in some order, with the sink first or last."""
    state = _run_part(problem, piece, query, cast, (0, cast.key.shape[1]), draw)
    state.add_sink(piece)
    output, lse = state.finish()
    return output.to(query.dtype), lse


def _parts(keys: int, draw: random.Random) -> list[tuple[int, int]]:
    """A sequence cut into parts of at least 128 keys, except the last."""
    size = draw.choice([128, 144, 256, 512])
    return [(first, min(first + size, keys)) for first in range(0, max(keys, 1), size)]


def _split(
    problem: Problem, piece: Piece, query: torch.Tensor, cast: Cast, draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts computed independently and reduced together by their maxima."""
    parts = [
        _run_part(problem, piece, query, cast, part, draw)
        for part in _parts(cast.key.shape[1], draw)
    ]
    top = torch.stack([part.top for part in parts]).amax(0)
    still = torch.where(top == -math.inf, 0.0, top)
    scales = [torch.exp(part.top - still) for part in parts]
    both = list(zip(parts, scales, strict=True))
    total = torch.stack([part.total * scale for part, scale in both]).sum(0)
    state = State(top, total, torch.stack([p.accumulator * scale for p, scale in both]).sum(0))
    state.add_sink(piece)
    output, lse = state.finish()
    return output.to(query.dtype), lse


def _merged(
    problem: Problem, piece: Piece, query: torch.Tensor, cast: Cast, draw: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts in sequence, outputs merged by log-sum-exp; the first one is in the dtype."""
    output, lse = State.empty(piece).finish()
    for index, part in enumerate(_parts(cast.key.shape[1], draw)):
        new, new_lse = _run_part(problem, piece, query, cast, part, draw).finish()
        if index == 0:
            output, lse = new.to(query.dtype).float(), new_lse
            continue
        top = torch.maximum(lse, new_lse)
        top = torch.where(top == -math.inf, 0.0, top)
        old_weight, new_weight = torch.exp(lse - top), torch.exp(new_lse - top)
        total = old_weight + new_weight
        safe = torch.where(total == 0, 1.0, total)
        output = output * (old_weight / safe) + new * (new_weight / safe)
        lse = top + torch.log(total)
    if piece.sink is not None:
        top = torch.maximum(lse, piece.sink.float())
        weight = torch.exp(lse - top)
        total = weight + torch.exp(piece.sink.float() - top)
        output, lse = output * (weight / total), top + torch.log(total)
    return output.to(query.dtype), lse


Kernel = Callable[
    [Problem, Piece, torch.Tensor, Cast, random.Random], tuple[torch.Tensor, torch.Tensor]
]
KERNELS: dict[str, Kernel] = {"tiled": _tiled, "split": _split, "merged": _merged}


def proof_problem(draw: random.Random, index: int) -> Problem:
    """A problem of any kind, small enough to run thousands in minutes."""
    kind = draw.choices(["paged", "varlen", "mla", "mla_prefill"], [12, 3, 2, 1])[0]
    latent = kind in ("mla", "mla_prefill")
    kv_heads = 1 if latent else draw.choice([1, 2])
    group = draw.choice([1, 2, 3, 4, 7, 8])
    size = draw.choice([32, 64, 80, 96, 128, 160, 256])
    rows = draw.choice([1, 1, 2, 17, 40])
    context = draw.choice([0, 5, 63, 128, 300, 700, 1500 // min(rows, 3)])
    context = context if kind != "varlen" else 0
    fp8 = kind != "varlen" and draw.random() < 0.25
    large, window = draw.random() < 0.15, draw.choice([(-1, -1), (-1, -1), (100, 0), (16, 0)])
    cap = draw.choice([0.0, 0.0, 0.0, 3.0, 30.0])
    position = draw.randrange(context + rows)
    return Problem(
        kind=kind,  # type: ignore[arg-type]  # random.choices gives plain strings
        backend="",
        id=f"proof-{index}",
        seed=draw.randrange(2**31),
        query_lens=(rows,),
        context_lens=(context,),
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        head_size={"mla": 576, "mla_prefill": 192}.get(kind, size),
        v_head_size={"mla": 512, "mla_prefill": 128}.get(kind, size),
        dtype=draw.choice(["float16", "float16", "bfloat16", "bfloat16", "float32"]),
        kv_cache_dtype=draw.choice(["fp8_e4m3fn", "fp8_e4m3fnuz", "fp8_e5m2"]) if fp8 else "auto",
        causal=kind != "varlen" or draw.random() < 0.5,
        window=window if not latent else (-1, -1),
        soft_cap=cap if not latent and not large else 0.0,
        alibi=draw.choice(["none", "none", "linear", "sqrt"]) if kind == "paged" else "none",
        sinks=draw.random() < 0.2,
        k_scale=draw.choice([0.03, 0.0625]) if fp8 else 1.0,
        v_scale=draw.choice([0.02, 0.0625]) if fp8 else 1.0,
        large_logits=large,
        dominant=((0, position),) if draw.random() < 0.3 else (),
    )
