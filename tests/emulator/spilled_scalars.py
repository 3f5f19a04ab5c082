"""Runs a vLLM release's kernel_paged_attention_2d where it spills scalar registers, on gfx942.

vLLM 0.33 has a comment that in earlier forms of this kernel the compiler replaces the stride of the
output's heads by another scalar that was spilled. Every variant here is compiled by the installed
Triton and executed; the strides of the output are such that a wrong one is written elsewhere:

    python -m tests.emulator.spilled_scalars 0.30.0

Another Triton is asked by putting it on PYTHONPATH, where ``pip install --target FOLDER
triton==3.8.0`` has put it.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conformance.subjects.vllm.environment import prepare

TARGET = "isa:gfx942"
BUFFERS = "AMDGCN_USE_BUFFER_OPS"
FILE = "vllm/v1/attention/ops/chunked_prefill_paged_decode.py"
KERNEL = "kernel_paged_attention_2d"
STRIDES = (
    *("block_table_stride", "query_stride_0", "query_stride_1", "output_stride_0"),
    *("output_stride_1", *(f"stride_k_cache_{n}" for n in range(4))),
    *(f"stride_v_cache_{n}" for n in range(3)),
)
KV_HEADS, SEQUENCES = 2, (41, 10)
# Of the output: elements between heads and between tokens that belong to neither.
HEAD_GAP, TOKEN_GAP = 24, 40
UNTOUCHED = 7.0
_READ_BACK = re.compile(r"(v_readlane_b32 s\d+, v\d+, )(\d+)")
FP8 = torch.float8_e4m3fnuz
# The largest error beside that of the rounding to the output's type, as a share of the largest
# value: a head that is written with another stride is as wrong as a value can be.
SHARE = 0.05


@dataclass(frozen=True)
class Variant:
    """What decides the code.

    ``group``: query heads for each KV head. ``far``: the code is for tensors beyond 2 GiB, which no
    buffer instruction reaches; Triton looks at the size of what it is given, unless it is told.
    """

    head: int
    group: int
    fp8: bool
    far: bool
    block: int = 32

    def __str__(self) -> str:
        kind = "fp8" if self.fp8 else "fp16"
        size = "large" if self.far else "small"
        return f"heads of {self.head}, {self.group} a KV head, {kind}, {size} cache"


VARIANTS = tuple(
    Variant(head, group, fp8, far)
    for far in (False, True)
    for head in (192, 256)
    for group in (32, 16)
    for fp8 in ((False,) if far else (False, True))
)


@dataclass(frozen=True)
class Tensors:
    """``query`` [T, H, D]; caches as vLLM has them on ROCm; the rest as the kernel takes it."""

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    sinks: torch.Tensor
    slopes: torch.Tensor
    table: torch.Tensor


def tensors_of(variant: Variant) -> Tensors:
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    heads, blocks = KV_HEADS * variant.group, 4
    each = 16 if variant.fp8 else 8
    stored = FP8 if variant.fp8 else torch.float16
    return Tensors(
        query=normal(len(SEQUENCES), heads, variant.head).half(),
        keys=normal(blocks, KV_HEADS, variant.head // each, variant.block, each).to(stored),
        values=normal(blocks, KV_HEADS, variant.head, variant.block).to(stored),
        sinks=normal(heads),
        slopes=0.02 * torch.rand(heads, generator=draw),
        table=torch.tensor([[3, 1], [2, 0]], dtype=torch.int32),
    )


def expected(variant: Variant, tensors: Tensors) -> torch.Tensor:
    """Attention of each sequence's last token, in float64: [T, H, D]."""
    rows = []
    for number, length in enumerate(SEQUENCES):
        blocks = tensors.table[number].long()
        # [KV heads, D, tokens]
        keys = tensors.keys[blocks].double().permute(1, 2, 4, 0, 3).flatten(3).flatten(1, 2)
        values = tensors.values[blocks].double().permute(1, 2, 0, 3).flatten(2)
        of = torch.arange(KV_HEADS).repeat_interleave(variant.group)
        query = tensors.query[number].double()
        scores = torch.einsum("hd,hdn->hn", query, keys[of][..., :length]) / math.sqrt(variant.head)
        places = torch.arange(length) - (length - 1)
        scores = scores + tensors.slopes.double()[:, None] * places
        weights = torch.cat([scores, tensors.sinks.double()[:, None]], 1).softmax(1)[:, :length]
        rows.append(torch.einsum("hn,hdn->hd", weights, values[of][..., :length]))
    return torch.stack(rows)


def load_kernel(release: str, folder: Path) -> Any:
    """The kernel, and what it calls, from the release's file: the rest needs all of vLLM.

    It is compiled for strides of any value, not for multiples of 16 alone.
    """
    decorated = f"@triton.jit(do_not_specialize={STRIDES})"
    source = (prepare(release).root.parent / FILE).read_text(encoding="utf-8")
    tree = ast.parse(source)
    parts = ["import triton\nimport triton.language as tl\n\n\nclass float8_info:\n"]
    parts.append("    min = -240.0\n    max = 240.0\n")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            decorator = decorated if node.name == KERNEL else "@triton.jit"
            parts.append(f"\n\n{decorator}\n" + "\n".join(lines) + "\n")
    path = folder / "kernel_of_release.py"
    path.write_text("".join(parts), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, KERNEL)


def launch(kernel: Any, variant: Variant, tensors: Tensors) -> torch.Tensor:
    """Runs the kernel; the whole buffer of the output: [T, H * (D + gap) + gap]."""
    heads, size = tensors.query.shape[1], variant.head
    dtype = FP8 if variant.fp8 else torch.float16
    width = heads * (size + HEAD_GAP) + TOKEN_GAP
    buffer = torch.full((len(SEQUENCES), width), UNTOUCHED).to(dtype)
    one = torch.ones(1)
    given: dict[str, Any] = {
        "output_ptr": buffer,
        "query_ptr": tensors.query,
        "key_cache_ptr": tensors.keys,
        "value_cache_ptr": tensors.values,
        "sink_ptr": tensors.sinks,
        "block_tables_ptr": tensors.table,
        "seq_lens_ptr": torch.tensor(SEQUENCES, dtype=torch.int32),
        "alibi_slopes_ptr": tensors.slopes,
        "scale": 1 / math.sqrt(size),
        "k_scale": one,
        "v_scale": one,
        "out_scale_inv": one if variant.fp8 else 1.0,
        "num_query_heads": heads,
        "num_queries_per_kv": variant.group,
        "num_queries_per_kv_padded": max(16, variant.group),
        "block_table_stride": tensors.table.stride(0),
        "query_stride_0": tensors.query.stride(0),
        "query_stride_1": tensors.query.stride(1),
        "output_stride_0": buffer.stride(0),
        "output_stride_1": size + HEAD_GAP,
        "BLOCK_SIZE": variant.block,
        "PHYSICAL_BLOCK_SIZE": variant.block,
        "HEAD_SIZE": size,
        "HEAD_SIZE_PADDED": 1 << (size - 1).bit_length(),
        "USE_ALIBI_SLOPES": True,
        "SLIDING_WINDOW": 127,
        "x": tensors.keys.shape[4],
        **{f"stride_k_cache_{n}": tensors.keys.stride(n) for n in range(5)},
        **{f"stride_v_cache_{n}": tensors.values.stride(n) for n in range(4)},
        "filter_by_query_len": True,
        "query_start_len_ptr": torch.arange(len(SEQUENCES) + 1, dtype=torch.int32),
        "USE_SINKS": True,
        "USE_FP8": variant.fp8,
        "INTERLEAVED_V_PACK_FACTOR": 0,
    }
    taken = {name: value for name, value in given.items() if name in kernel.arg_names}
    kernel[(len(SEQUENCES), KV_HEADS)](**taken)
    return buffer


def wrong(variant: Variant, tensors: Tensors, buffer: torch.Tensor) -> str:
    """What is wrong with the buffer, in words, or ""."""
    heads, size = tensors.query.shape[1], variant.head
    rows = buffer.float()[:, : heads * (size + HEAD_GAP)]
    rows = rows.reshape(len(SEQUENCES), heads, size + HEAD_GAP)
    outside = int((rows[..., size:] != UNTOUCHED).sum())
    outside += int((buffer.float()[:, heads * (size + HEAD_GAP) :] != UNTOUCHED).sum())
    right = expected(variant, tensors)
    rounding = 2.0**-4 if variant.fp8 else 2.0**-10
    allowed = rounding * right.abs() + SHARE * right.abs().max()
    errors = (rows[..., :size].double() - right).abs()
    elements = int((~(errors <= allowed)).sum())
    parts = [f"{outside} elements written between heads"] if outside else []
    parts += [f"{elements} elements wrong, by up to {errors.max():.3g}"] if elements else []
    return "; ".join(parts)


def judge(
    release: str, variants: tuple[Variant, ...], rewrite: Any = None
) -> Iterator[tuple[Variant, int, str]]:
    """Each variant with the registers that its code spills, and what it writes wrong, or ""."""
    # Nothing may load Triton before.
    from conformance.devices import activate, collect  # noqa: PLC0415
    from conformance.devices.isa.machine import Violation  # noqa: PLC0415

    activate(TARGET, rewrite=rewrite)
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            os.environ[BUFFERS] = "0" if variant.far else "1"
            kernel = load_kernel(release, Path(folder))
            tensors = tensors_of(variant)
            try:
                text = wrong(variant, tensors, launch(kernel, variant, tensors))
            except Violation as error:
                text = str(error)
            ran = collect()
            spills = [entry["resources"]["sgpr_spills"] for entry in ran["kernels"]]
            text = "; ".join(filter(None, [text, *map(str, ran["violations"])]))
            yield variant, max(spills), text


def spoilt(text: str, _kernel: str) -> str:
    """Code that, behind its last matrix product, takes other scalars than were spilled there."""
    before, product, after = text.rpartition("v_mfma")
    return before + product + _READ_BACK.sub(lambda m: f"{m[1]}{int(m[2]) ^ 1}", after)


def main(release: str, first: str = "", how: str = "") -> None:
    """``first``: of the variants so many; ``how``: "spoilt" to see what a fault would look like."""
    variants = VARIANTS[: int(first)] if first else VARIANTS
    for variant, spills, text in judge(release, variants, spoilt if how == "spoilt" else None):
        import triton  # noqa: PLC0415 - not before the device is active

        of = f"vLLM {release}, Triton {triton.__version__}, {variant}"
        said = text or "every write is right"
        sys.stdout.write(f"{of}: {spills} scalar registers spilled; {said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
