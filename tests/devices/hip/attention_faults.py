"""vLLM's HIP kernels on an emulated MI300X, with faults planted in a scratch copy of their sources.

    python attention_faults.py RELEASE SCRATCH CACHE

RELEASE is the unpacked source distribution. Prints a JSON line for each fault, the first for none:
its name, the largest error over what the sources make without a fault, and an error's text.
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
from conformance.devices.hip.sources import Unit
from conformance.devices.triton.driver import Driver

TARGET, FP8 = "gfx942", torch.float8_e4m3fnuz
K_SCALE, V_SCALE = 0.5, 2.0
ATTENTION, CACHE = "csrc/rocm/attention.cu", "csrc/cache_kernels.cu"


@dataclass(frozen=True)
class Fault:
    """``good`` text, at its first place in the file, becomes ``bad``; ``problem`` shows it."""

    good: str
    bad: str
    problem: str = "decode"
    file: str = ATTENTION


FAULTS = {
    "a key past the end counts": Fault(
        "(local_token_idx + i < seq_len)\n                            ? __expf",
        "(local_token_idx + i <= seq_len)\n                            ? __expf",
    ),
    "the last key is dropped": Fault(
        "(local_token_idx + i < seq_len)\n                            ? __expf",
        "(local_token_idx + i + 1 < seq_len)\n                            ? __expf",
    ),
    "the maximum of half a wave": Fault(
        "mask >= 16; mask /= 2) {\n    qk_max", "mask >= 32; mask /= 2) {\n    qk_max"
    ),
    "the sum of half a wave": Fault(
        "mask >= 16; mask /= 2) {\n    exp_sum", "mask >= 32; mask /= 2) {\n    exp_sum"
    ),
    "no rescaling between waves": Fault(
        "warp_qk_max_exp[w] = __expf(warp_qk_max_exp[w] - partition_qk_max);",
        "warp_qk_max_exp[w] = 1.0f;",
    ),
    "weights not normalised": Fault("__fdividef(1.f, partition_exp_sum + 1e-6f)", "1.f"),
    "k scale swapped": Fault("scale2 *= *k_scale;", "scale2 *= *v_scale;", "fp8"),
    "v scale swapped": Fault("tmp_out *= *v_scale;", "tmp_out *= *k_scale;", "fp8"),
    "FNUZ read as OCP": Fault(
        "const auto f0 = __builtin_amdgcn_cvt_pk_f32_fp8(inp, false);",
        "const auto f0 = 2.0f * __builtin_amdgcn_cvt_pk_f32_fp8(inp, false);",
        "fp8",
    ),
    "a pair of fp8 swapped": Fault("ret[0] = f0[0];", "ret[0] = f0[1];", "fp8"),
    "another query head": Fault(
        "wg_start_head_idx + local_qhead_idx;", "wg_start_head_idx + (local_qhead_idx ^ 1);"
    ),
    "block table stride": Fault("seq_idx * max_num_blocks_per_seq;", "seq_idx * num_seq_blocks;"),
    "last partition dropped": Fault(
        "const int num_partitions = DIVIDE_ROUND_UP(seq_len, PARTITION_SIZE);",
        "const int num_partitions = MAX(seq_len / PARTITION_SIZE, 1);",
    ),
    "barrier before the values": Fault(
        "exp_sums[offset] = partition_exp_sum;\n  }\n\n  __syncthreads();",
        "exp_sums[offset] = partition_exp_sum;\n  }\n",
    ),
    "partitions not rescaled": Fault("expf(reg_max_logit[i] - max_logit)", "1.0f"),
    "values of a neighbour": Fault(
        "warpid * 16 + lane16id;\n    const cache_t* v_ptr2",
        "warpid * 16 + (lane16id ^ 1);\n    const cache_t* v_ptr2",
    ),
    "keys of the next slot": Fault(
        "const int kphysical_block_offset = klocal_token_idx % BLOCK_SIZE;",
        "const int kphysical_block_offset = (klocal_token_idx + 1) % BLOCK_SIZE;",
    ),
    "another softmax scale": Fault("float scale2 = scale;", "float scale2 = scale * 1.02f;"),
    "the wrong block of keys": Fault(
        "? kglobal_token_idx / BLOCK_SIZE", "? kglobal_token_idx / BLOCK_SIZE / 2"
    ),
    "the wrong block of values": Fault(
        "? vglobal_token_idx / BLOCK_SIZE", "? vglobal_token_idx / BLOCK_SIZE / 2"
    ),
    "every partition to the first": Fault(
        "partition_idx * HEAD_SIZE;\n      for", "0 * HEAD_SIZE;\n      for"
    ),
    "slot of the next token": Fault(
        "const int64_t block_offset = slot_idx % block_size;",
        "const int64_t block_offset = (slot_idx + 1) % block_size;",
        "write",
        CACHE,
    ),
    "values written with the key's scale": Fault(
        "float v_scale_val = (kv_dt == Fp8KVCacheDataType::kAuto) ? 0.f : *v_scale;",
        "float v_scale_val = (kv_dt == Fp8KVCacheDataType::kAuto) ? 0.f : *k_scale;",
        "write",
        CACHE,
    ),
    "a value short": Fault(
        "for (int i = 0; i < x; i++) {", "for (int i = 0; i < x - 1; i++) {", "write", CACHE
    ),
    "padding is written": Fault("if (slot_idx < 0)", "if (slot_idx < -1)", "write", CACHE),
}


class Faulty:
    """Host code of the release, kernels of the scratch copy: faults are in kernels alone."""

    def __init__(self, good: HipCode, scratch: HipCode) -> None:
        self._good, self._scratch = good, scratch
        self.target, self.lanes, self.clang = good.target, good.lanes, good.clang

    def host(self, operator: str) -> Path:
        return self._good.host(operator)

    def kernel(self, operator: str, symbol: str) -> tuple[Unit, str, str]:
        return self._scratch.kernel(operator, symbol)


def cache_of(
    rows: list[torch.Tensor], table: torch.Tensor, blocks: int, *, keys: bool, unused: float = 0.0
) -> Any:
    """Rows [tokens, G, D] of sequences in vLLM's cache of blocks of 16: keys [blocks, G, D/x, 16,
    x], values [blocks, G, D, 16], with ``unused`` in unused slots."""
    heads, size = rows[0].shape[1:]
    x = 16 // rows[0].element_size()
    flat = torch.full((blocks, 16, heads, size), unused).to(rows[0].dtype)
    for number, row in enumerate(rows):
        for token in range(len(row)):
            flat[int(table[number, token // 16]), token % 16] = row[token]
    if keys:
        return flat.view(blocks, 16, heads, size // x, x).permute(0, 2, 3, 1, 4).contiguous()
    return flat.permute(0, 2, 3, 1).contiguous()


def decode_error(
    operators: Operators,
    *,
    fp8: bool = False,
    lens: tuple[int, ...] = (17, 256, 300, 513),
    ratio: int = 8,
    unused: float = 0.0,
) -> float:
    """The largest error of a decode, ``ratio`` query heads on each of two KV heads.

    ``unused`` stands in unused slots of the values.
    """
    generator = torch.Generator().manual_seed(5)
    groups, size = 2, 128
    heads = ratio * groups
    query = torch.randn(len(lens), heads, size, generator=generator).half()
    kinds = FP8 if fp8 else torch.float16
    keys, values = (
        [(torch.randn(n, groups, size, generator=generator)).to(kinds) for n in lens]
        for _ in range(2)
    )
    counts = [math.ceil(n / 16) for n in lens]
    order = torch.randperm(sum(counts) + 3, generator=generator).to(torch.int32)
    table = order[: len(lens)].repeat(max(counts), 1).T.contiguous()
    at = 0
    for number, count in enumerate(counts):
        table[number, :count] = order[at : at + count]
        at += count
    parts = math.ceil(max(lens) / 256)
    sums = torch.full((len(lens), heads, parts), float("nan"))
    partial = torch.full((len(lens), heads, parts, size), float("nan")).half()
    out = torch.full((len(lens), heads, size), float("nan")).half()
    scale = size**-0.5
    caches = [
        cache_of(keys, table, len(order), keys=True),
        cache_of(values, table, len(order), keys=False, unused=unused),
    ]
    k_scale, v_scale = (K_SCALE, V_SCALE) if fp8 else (1.0, 1.0)
    operators.call(
        "paged_attention",
        {
            "out": out,
            "exp_sums": sums,
            "max_logits": sums.clone(),
            "tmp_out": partial,
            "query": query,
            "key_cache": caches[0],
            "value_cache": caches[1],
            "num_kv_heads": groups,
            "scale": scale,
            "block_tables": table,
            "seq_lens": torch.tensor(lens, dtype=torch.int32),
            "query_start_loc": torch.arange(len(lens) + 1, dtype=torch.int32),
            "block_size": 16,
            "max_seq_len": max(lens),
            "alibi_slopes": None,
            "kv_cache_dtype": "fp8" if fp8 else "auto",
            "k_scale": torch.tensor([k_scale]),
            "v_scale": torch.tensor([v_scale]),
            "fp8_out_scale": None,
            "mfma_type": "f16",
        },
    )
    worst = 0.0
    for number in range(len(lens)):
        k, v = (
            rows[number].double().repeat_interleave(ratio, 1) * factor
            for rows, factor in ((keys, k_scale), (values, v_scale))
        )
        weights = torch.einsum("hd,thd->ht", query[number].double(), k * scale).softmax(-1)
        exact = torch.einsum("ht,thd->hd", weights, v)
        error = (out[number].double() - exact).abs().max()
        worst = max(worst, float(error) if bool(error.isfinite()) else math.inf)
    return worst


def write_error(operators: Operators) -> float:
    """How many elements of a cache of fp8 are not what bfloat16 rows become; 1 more for none."""
    generator = torch.Generator().manual_seed(6)
    tokens, heads, size, blocks = 9, 3, 64, 4
    key, value = (
        torch.randn(tokens, heads, size, generator=generator).bfloat16() for _ in range(2)
    )
    slots = torch.randperm(blocks * 16, generator=generator)[:tokens]
    slots[4] = -1
    key_cache = torch.zeros(blocks, heads, size // 16, 16, 16, dtype=torch.uint8)
    value_cache = torch.zeros(blocks, heads, size, 16, dtype=torch.uint8)
    operators.call(
        "reshape_and_cache",
        {
            "key": key,
            "value": value,
            "key_cache": key_cache,
            "value_cache": value_cache,
            "slot_mapping": slots,
            "kv_cache_dtype": "fp8",
            "k_scale": torch.tensor([K_SCALE]),
            "v_scale": torch.tensor([V_SCALE]),
        },
    )
    kept = slots >= 0
    expected = [torch.zeros(blocks * 16, heads, size, dtype=torch.uint8) for _ in range(2)]
    for rows, made, scale in zip((key, value), expected, (K_SCALE, V_SCALE), strict=True):
        made[slots[kept]] = (rows[kept].float() / scale).to(FP8).view(torch.uint8)
    found = [
        key_cache.permute(0, 3, 1, 2, 4).reshape(-1, heads, size),
        value_cache.permute(0, 3, 1, 2).reshape(-1, heads, size),
    ]
    return 1.0 + sum(float((a != b).sum()) for a, b in zip(found, expected, strict=True))


def error_of(problem: str, code: Any, driver: Driver) -> float:
    """As the suite judges: with zeros from lanes that were off in a matrix product, if any were."""
    driver.collect()
    for driver.recorder.lanes_off in ("", "zero"):
        operators = Operators(code, driver, lambda _kernel: None)
        if problem == "write":
            error = write_error(operators)
        else:
            error = decode_error(operators, fp8=problem == "fp8")
        if not any(kernel["lanes_off"] for kernel in driver.collect()["kernels"]):
            break
    return error


def main() -> None:
    release, scratch, cache = (Path(word) for word in sys.argv[1:4])
    shutil.copytree(release / "csrc", scratch / "csrc", dirs_exist_ok=True)
    driver = activate(f"isa:{TARGET},poison,serial")
    clang, lanes = find_clang(), driver.name.facts.wave_size
    good = HipCode(release, TARGET, lanes, clang, cache)
    code: Any = Faulty(good, HipCode(scratch, TARGET, lanes, clang, cache))
    usual: dict[str, float] = {}
    for problem in ("decode", "fp8", "write"):
        usual[problem] = error_of(problem, code, driver)
    sys.stdout.write(json.dumps({"name": "", "usual": usual}) + "\n")
    for name, fault in FAULTS.items():
        path = scratch / fault.file
        text = path.read_text(encoding="utf-8")
        assert fault.good in text, name
        path.write_text(text.replace(fault.good, fault.bad, 1), encoding="utf-8")
        ratio, raised = math.inf, ""
        try:
            ratio = error_of(fault.problem, code, driver) / usual[fault.problem]
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(json.dumps({"name": name, "ratio": str(ratio), "raised": raised}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
