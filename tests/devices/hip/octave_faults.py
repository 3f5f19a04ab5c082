"""ROCM_OCTAVE's HIP kernels on an emulated GPU, with faults planted in a scratch copy.

    python octave_faults.py RELEASE SCRATCH CACHE TARGET [FAULT...]

RELEASE is the unpacked source distribution; no faults named: all of them. Prints a JSON line for
each problem without a fault, and then for each fault: its name, the error over its bound, how many
bytes of the cache are wrong, and an error's text.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch

from conformance.devices import activate
from conformance.devices.hip.clang import find_clang
from conformance.devices.hip.kernels import HipCode
from conformance.devices.hip.operators import Operators
from conformance.oracle.arithmetic import OCTAVE_DECODE, Arithmetic, OctaveDecode
from conformance.oracle.judgement import judge, solve
from conformance.problems import octave_cache
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, materialise
from tests.devices.hip.attention_faults import Faulty

STORE = "csrc/attention/octave_attn.cu"
FORMAT = "csrc/attention/octave_format.cuh"
DECODE = "csrc/attention/octave_decode_mfma_cdna.cu"
PREFILL = "csrc/attention/octave_prefill_cdna.cu"
IDS = {"octave_k3v4": 4, "octave_k3v3": 3, "octave_k3v3_compact": 19}
MOST_PARTS = 4


@dataclass(frozen=True)
class Fault:
    """``good`` text, at its first place in the file, becomes ``bad``; ``problem`` shows it."""

    good: str
    bad: str
    file: str
    problem: str = "decode"


def problem_of(name: str) -> Problem:
    plain: dict[str, Any] = {
        "kind": "paged",
        "backend": "ROCM_OCTAVE",
        "seed": 5,
        "num_kv_heads": 2,
        "num_heads": 4,
        "head_size": 256,
        "v_head_size": 256,
        "new_tokens_from_cache": False,
        "dtype": "float16",
        "kv_cache_dtype": "octave_k3v3",
    }
    batches: dict[str, dict[str, Any]] = {
        "decode": {"query_lens": (1, 1), "context_lens": (20, 68), "dominant": ((1, 63),)},
        # The larger logits are, the more the roundings of a query count.
        "keen": {"query_lens": (1,), "context_lens": (40,), "scale": 0.25},
        "wide": {"query_lens": (1,), "context_lens": (17,), "kv_cache_dtype": "octave_k3v4"},
        "compact": {
            "query_lens": (1,),
            "context_lens": (17,),
            "kv_cache_dtype": "octave_k3v3_compact",
        },
        "verify": {"query_lens": (3, 2), "context_lens": (14, 33), "num_heads": 12},
        "portable": {"query_lens": (1, 3), "context_lens": (20, 14), "block_pad": 8},
        "prefill": {
            "query_lens": (129,),
            "context_lens": (33,),
            "num_heads": 1,
            "num_kv_heads": 1,
            "dominant": ((0, 31), (0, 33)),
        },
    }
    return Problem(id=name, **{**plain, **batches[name]})


PROBLEMS = ("decode", "keen", "wide", "compact", "verify", "portable", "prefill")


def judged(operators: Operators, problem: Problem, ran: list[str], unused: int = 0) -> Any:
    """``(error over its bound, wrong bytes)``; unused slots of the cache hold a byte."""
    tensors = materialise(problem)
    cache = _cache(operators, problem, tensors, unused)
    out = torch.full_like(tensors.query, math.nan)
    if max(problem.query_lens) > 128:
        _prefill(operators, problem, tensors, cache, out)
    else:
        _decode(operators, problem, tensors, cache, out)
    how = next((how for name, how in OCTAVE_DECODE.items() if name in ran), OctaveDecode())
    truth = solve(problem, tensors, Arithmetic(octave=how))
    expected = octave_cache.rows(tensors.keys, tensors.values, problem.kv_cache_dtype)
    stored = cache[_slots(problem, tensors)]
    wrong = int((stored[..., : expected.shape[-1]] != expected).sum())
    return judge(problem, truth, out).ratio, wrong


def _slots(problem: Problem, tensors: Tensors) -> Any:
    """Where each key is, as an index of a cache."""
    assert tensors.block_table is not None
    size, blocks, places = problem.block_size, [], []
    for sequence, count in enumerate(problem.seq_lens):
        position = torch.arange(count)
        blocks.append(tensors.block_table[sequence].long()[position // size])
        places.append(position % size)
    return torch.cat(blocks), slice(None), torch.cat(places)


def _signs() -> torch.Tensor:
    """The signs as the kernels take them: a bit each, set where it is -1."""
    bits = (octave_cache.signs() < 0).long().view(-1, 32)
    words = (bits << torch.arange(32)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def _cache(operators: Operators, problem: Problem, tensors: Tensors, unused: int) -> torch.Tensor:
    """A cache [blocks, G, slots, bytes] with all keys and values in it."""
    name, size = problem.kv_cache_dtype, problem.block_size
    row = octave_cache.FORMATS[name].row_bytes
    align = 4 if name.endswith("compact") else 8
    row = -(-row // align) * align
    step = problem.num_kv_heads * size * row + problem.block_pad
    flat = torch.full((problem.num_blocks * step,), unused, dtype=torch.uint8)
    shape = (problem.num_blocks, problem.num_kv_heads, size, row)
    cache = flat.as_strided(shape, (step, size * row, row, 1))
    blocks, _, places = _slots(problem, tensors)
    operators.call(
        "octave_cache_store",
        {
            "key": tensors.keys,
            "value": tensors.values,
            "cache": cache,
            "slot_mapping": blocks * size + places,
            "k_signs": _signs(),
            "v_signs": _signs(),
            "fmt": IDS[name],
        },
    )
    return cache


def _table(problem: Problem, tensors: Tensors) -> torch.Tensor:
    assert tensors.block_table is not None
    return tensors.block_table.clamp(0, problem.num_blocks - 1).contiguous()


def _decode(
    operators: Operators,
    problem: Problem,
    tensors: Tensors,
    cache: torch.Tensor,
    out: torch.Tensor,
) -> None:
    requests, lengths = [], []
    for sequence, count in enumerate(problem.query_lens):
        requests += [sequence] * count
        lengths += [problem.context_lens[sequence] + n + 1 for n in range(count)]
    shape = (problem.num_tokens, problem.num_heads, MOST_PARTS, octave_cache.HEAD_SIZE + 2)
    operators.call(
        "octave_decode",
        {
            "out": out,
            "query": tensors.query,
            "cache": cache,
            "block_table": _table(problem, tensors),
            "q_to_req": torch.tensor(requests, dtype=torch.int32),
            "q_to_klen": torch.tensor(lengths, dtype=torch.int32),
            "mid_o": torch.full(shape, math.nan),
            "k_signs": _signs(),
            "v_signs": _signs(),
            "sm_scale": problem.softmax_scale,
            "num_kv_splits": MOST_PARTS,
            "fmt": IDS[problem.kv_cache_dtype],
            "query_group": 4 if max(problem.query_lens) > 1 else 1,
            "use_wmma": True,
        },
    )


def _prefill(
    operators: Operators,
    problem: Problem,
    tensors: Tensors,
    cache: torch.Tensor,
    out: torch.Tensor,
) -> None:
    assert tensors.key is not None
    assert tensors.value is not None
    whole = problem.kv_cache_dtype.endswith("compact")
    given = {
        "q": (tensors.query, not whole),
        "k": (tensors.key, not whole),
        "v": (tensors.value, False),
    }
    rotated = {}
    for name, (x, blocks) in given.items():
        rotated[name] = x.half().clone().contiguous()
        turn = {"x": rotated[name], "signs": _signs(), "k_layout": blocks, "inverse": False}
        operators.call("octave_rotate", turn)
    made = torch.full_like(rotated["q"], math.nan)
    operators.call(
        "octave_prefill",
        {
            "out": made,
            **rotated,
            "cache": cache,
            "block_table": _table(problem, tensors),
            "cu_seqlens_q": tensors.query_start_loc,
            "seq_lens": tensors.seq_lens,
            "max_query_len": max(problem.query_lens),
            "sm_scale": problem.softmax_scale,
            "fmt": IDS[problem.kv_cache_dtype],
        },
    )
    back = {"x": made, "signs": _signs(), "k_layout": False, "inverse": True}
    operators.call("octave_rotate", back)
    out.copy_(made)


FAULTS = {
    "a codebook's entry is its neighbour": Fault("0xF2D3B181u", "0xF2D3B182u", FORMAT),
    "codes are cut to two bits": Fault(
        "hi |= (uint32_t)(c[i] >> 2) <<", "hi |= (uint32_t)(c[i] >> 3) <<", STORE
    ),
    "scales shrink what is stored": Fault(
        "num > 0.f ? ss / num * LUT_ONE", "num > 0.f ? num / ss * LUT_ONE", STORE
    ),
    "a middle is off": Fault("{-103.f, -62.f, -29.5f,", "{-103.f, -62.f, -31.f,", STORE),
    "values are not rotated as a whole": Fault(
        "rotate_full(v, lane, v_signs);", "rotate_k(v, lane, v_signs);", STORE
    ),
    "the slot of the next token": Fault(
        "(slot % block_size) * sct;", "((slot + 1) % block_size) * sct;", STORE
    ),
    "signs are left out": Fault("x[i] *= sign_of(k_signs, l32 * 8 + i);", "x[i] *= 1.0f;", DECODE),
    "queries have one byte": Fault("Sh[g][e] * 256 + Sl[g][e]", "Sh[g][e] * 256", DECODE, "keen"),
    "a query's second byte is as large as the first": Fault(
        "Sh[g][e] * 256 + Sl[g][e]", "Sh[g][e] * 256 + Sl[g][e] * 256", DECODE
    ),
    "the last tile is left out": Fault(
        "for (int base = start; base < end; base += 16) {",
        "for (int base = start; base + 16 < end; base += 16) {",
        DECODE,
    ),
    "a key past the end counts": Fault(
        "t < end && t < qlen;", "t <= end && t <= qlen;", DECODE, "verify"
    ),
    "a draft sees the next": Fault("t < end && t < qlen;", "t < end;", DECODE, "verify"),
    "the bias stays": Fault("corr = 128.0f *", "corr = 127.0f *", DECODE),
    "scales of another block": Fault("hi16(sa[e]) * dot(1, e)", "lo16(sb[e]) * dot(1, e)", DECODE),
    "parts are not weighed": Fault(
        "ms == -INFINITY ? 0.0f : __builtin_amdgcn_exp2f(ms - mg)",
        "ms == -INFINITY ? 0.0f : 1.0f",
        DECODE,
    ),
    "codes of four bits in another order": Fault(
        "s < 2 ? raw.x : raw.y;", "s < 2 ? raw.y : raw.x;", DECODE, "wide"
    ),
    "a row of the compact format": Fault(
        "OFF_SC = OFF_V + D * VBITS / 8;", "OFF_SC = OFF_V + D * VBITS / 8 - 2;", FORMAT, "compact"
    ),
    "the portable decode's last key is left out": Fault(
        "tok < kl ? sc", "tok + 1 < kl ? sc", STORE, "portable"
    ),
    "the portable decode's query is shared": Fault(
        "x[i] = to_f<QT>(qp[i]);", "x[i] = to_f<QT>(qp[i & 6]);", STORE, "portable"
    ),
    "a prefill sees a key ahead": Fault("kabs <= qtok", "kabs <= qtok + 1", PREFILL, "prefill"),
    "a prefill's context is a key short": Fault(
        "const int k_stop = min(ctx, k_begin + k_len);",
        "const int k_stop = min(ctx - 1, k_begin + k_len);",
        PREFILL,
        "prefill",
    ),
    "a prefill's context is not counted": Fault(
        "l += wp[D + 1] * wgt;", "l += 0.0f;", PREFILL, "prefill"
    ),
    "a prefill's queries go wrong at half a step": Fault(
        "(int)lrintf((float)x[s][e] * qinv)", "(int)((float)x[s][e] * qinv)", PREFILL, "prefill"
    ),
}


def main() -> None:
    release, scratch, cache = (Path(word) for word in sys.argv[1:4])
    target = sys.argv[4]
    torch.set_num_threads(1)
    shutil.copytree(release / "csrc", scratch / "csrc", dirs_exist_ok=True)
    driver = activate(f"isa:{target},poison,serial")
    clang, lanes = find_clang(), driver.name.facts.wave_size
    good = HipCode(release, target, lanes, clang, cache)
    code: Any = Faulty(good, HipCode(scratch, target, lanes, clang, cache))

    def run(problem: str, unused: int = 0) -> dict[str, Any]:
        ran: list[str] = []
        operators = Operators(code, driver, lambda kernel: ran.append(kernel.function))
        ratio, wrong, raised = math.inf, 0, ""
        try:
            ratio, wrong = judged(operators, problem_of(problem), ran, unused)
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
        ratio_text = str(ratio)
        return {"ratio": ratio_text, "wrong": wrong, "raised": raised, "kernels": ran}

    only = sys.argv[5:]
    for problem in PROBLEMS:
        told = {"name": "", "problem": problem, **run(problem)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    told = {"name": "unused", "problem": "decode", **run("decode", 0xFF)}
    sys.stdout.write(json.dumps(told) + "\n")
    for name, fault in FAULTS.items():
        if only and name not in only:
            continue
        path = scratch / fault.file
        text = path.read_text(encoding="utf-8")
        assert fault.good in text, name
        path.write_text(text.replace(fault.good, fault.bad, 1), encoding="utf-8")
        sys.stdout.write(json.dumps({"name": name, **run(fault.problem)}) + "\n")
        sys.stdout.flush()
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
