"""The ``attend`` op: one problem's tensors through one backend, and what the backend touched.

The harness owns the memory. Every slot of a cache and every element of an output buffer holds
poison before the backend runs. Afterwards the harness finds out, without knowing a layout, which
elements of the cache were written (two caches with opposite contents agree exactly there), and
whether anything outside the output rows changed. Runs in the subject's own Python: torch and the
standard library only.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .compiler_crash import compiler_crash
from .contract import (
    AttendAnswer,
    AttendMessage,
    CompileProblemMessage,
    ProblemFields,
    lacks_memory,
)
from .errors import NoMemoryError, Refused, UnknownError, WorkerError
from .guarded_memory import Guarded, count_equal, fill, opposite
from .interfaces import (
    Batch,
    Dispatch,
    Geometry,
    KernelSubject,
    LatentPrefill,
    Layer,
    Paged,
    Scales,
    Scores,
    Varlen,
)

OUT_OF_MEMORY = (
    "the GPU ran out of memory: others use it, or too many processes share it; run with fewer (-n)"
)
FLOAT8 = {
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fnuz": torch.float8_e4m3fnuz,
    "fp8_e5m2": torch.float8_e5m2,
}
# Bits of a key's element and of a value's, and bytes besides, of what a slot has for a head: of
# TurboQuant's lengths, steps and least values (float16), and of scales per token and head.
PACKED = {
    "turboquant_k8v4": (8, 4, 4),
    "turboquant_4bit_nc": (4, 4, 6),
    "turboquant_k3v4_nc": (3, 4, 6),
    "turboquant_3bit_nc": (3, 3, 6),
    "ultraquant_4bit": (4, 4, 0),
    # Scales, and a key's block with a bit more for each of its 64 elements.
    "octave_k3v4": (3, 4, 10 + 8),
    "octave_k3v3": (3, 3, 10 + 8),
    "octave_k3v3_compact": (3, 3, 4),
    "int8_per_token_head": (8, 8, 8),
    "fp8_e4m3fn_per_token_head": (8, 8, 8),
    "fp8_e4m3fnuz_per_token_head": (8, 8, 8),
    "int4_per_token_head": (4, 4, 8),
    # Of DeepSeek-V4's window: 448 columns of 512 in fp8, 64 in bfloat16, and 8 bytes of scales.
    "fp8_e4m3fn_ds_mla": (8, 0, 64 + 8),
    "fp8_e4m3fnuz_ds_mla": (8, 0, 64 + 8),
}
BYTES = {"int8": torch.int8}  # what a cache of such rows is of, where its bytes are signed
GROUP = 32  # elements of UltraQuant that have a byte of scale in common
Results = dict[str, torch.Tensor]
# Attends into an output and, where it is asked for, a log-sum-exp.
Attending = Callable[[torch.Tensor, torch.Tensor | None], Dispatch]


@contextlib.contextmanager
def naming_lack_of_memory() -> Iterator[None]:
    """Turns every error that says that the GPU's memory is used up into :class:`NoMemoryError`."""
    try:
        yield
    except Exception as error:
        if lacks_memory(error):
            raise NoMemoryError(OUT_OF_MEMORY) from error
        raise


@naming_lack_of_memory()
def attend(subject: KernelSubject, message: AttendMessage | CompileProblemMessage) -> AttendAnswer:
    """Runs one problem; its outputs go to the file ``message["output"]``."""
    tensors: dict[str, torch.Tensor] = torch.load(
        message["tensors"], map_location=subject.device, weights_only=True
    )
    started = time.perf_counter()
    dispatch: list[str] = []
    violations: list[str] = []
    raised = trace = refused = ""
    try:
        run = Run(subject, message["problem"], tensors, dispatch, violations)
        results = run.results()
        subject.synchronize()
        computed = {name: tensor.cpu() for name, tensor in results.items()}
        torch.save(computed, Path(message["output"]))
    except Refused as reason:
        refused = str(reason)
    except WorkerError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        if unknown := subject.why_unknown(error):
            raise UnknownError(unknown) from error
        if crashed := compiler_crash(error):
            raise WorkerError(crashed) from error
        raised = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    finally:
        subject.release()
    seconds = time.perf_counter() - started
    return {
        "dispatch": list(dict.fromkeys(dispatch)),
        "violations": violations,
        "raised": raised,
        "trace": trace,
        "refused": refused,
        "seconds": seconds,
    }


class Run:
    """One problem on one backend."""

    def __init__(
        self,
        subject: KernelSubject,
        problem: ProblemFields,
        tensors: dict[str, torch.Tensor],
        dispatch: list[str],
        violations: list[str],
    ) -> None:
        self.problem = problem
        self.tensors = tensors
        self.backend = subject.backend(problem["backend"])
        self.backend.check(problem)
        self.device = subject.device
        self.rows: torch.Tensor | None = None
        self.dispatch = dispatch
        self.violations = violations
        self.geometry = geometry_of(problem)
        scales = Scales(k=problem["k_scale"], v=problem["v_scale"])
        self.layer = Layer(self.geometry, scores_of(problem, tensors), scales)

    def results(self) -> Results:
        return {
            "paged": self._paged,
            "mla": self._paged,
            "varlen": self._varlen,
            "mla_prefill": self._mla_prefill,
            "mla_sparse": self._paged,
            "indexer": self._indexer,
        }[self.problem["kind"]]()

    def _batch(self) -> Batch:
        lens = self.tensors["seq_lens"].tolist()
        queries = self.tensors["query_start_loc"].diff().tolist()
        return Batch(
            query_start_loc=self.tensors["query_start_loc"],
            seq_lens=self.tensors["seq_lens"],
            block_table=self.tensors["block_table"],
            max_query_len=max(queries, default=0),
            max_seq_len=max(lens, default=0),
            max_context_len=max((n - q for n, q in zip(lens, queries, strict=True)), default=0),
        )

    def _paged(self) -> Results:
        tensors, cache = self.tensors, self._filled_cache()

        def attended(out: torch.Tensor, lse: torch.Tensor | None) -> Dispatch:
            given = Paged(
                tensors["query"],
                tensors.get("key"),
                self._value(),
                cache,
                self._batch(),
                out,
                lse,
                # Only sparse problems have them.
                tensors.get("topk_indices"),
            )
            return self.backend.attend(given, self.layer)

        return self._guarded(attended)

    def _varlen(self) -> Results:
        tensors = self.tensors

        def attended(out: torch.Tensor, lse: torch.Tensor | None) -> Dispatch:
            given = Varlen(
                tensors["query"],
                tensors["keys"],
                tensors["values"],
                tensors["query_start_loc"],
                tensors["key_start_loc"],
                max(tensors["query_start_loc"].diff().tolist(), default=0),
                max(tensors["key_start_loc"].diff().tolist(), default=0),
                out,
                lse,
            )
            return self.backend.attend_varlen(given, self.layer)

        return self._guarded(attended)

    def _mla_prefill(self) -> Results:
        tensors, cache = self.tensors, self._filled_cache()

        def attended(out: torch.Tensor, lse: torch.Tensor | None) -> Dispatch:
            given = LatentPrefill(
                tensors["query"],
                tensors["key"],
                tensors["kv_b_proj"].transpose(1, 2),
                cache,
                self._batch(),
                out,
                lse,
            )
            return self.backend.prefill(given, self.layer)

        return self._guarded(attended)

    def _guarded(self, attended: Attending) -> Results:
        """Calls a backend with guarded outputs, and collects what it wrote to them."""
        out, lse = self._outputs()
        self.dispatch += attended(out.view, lse.view if lse else None)
        results = {"output": out.written()}
        if self.rows is not None:
            results["rows"] = self.rows
        self.violations += out.violations("the output")
        if lse is not None:
            results["lse"] = lse.written()[..., 0]
            self.violations += lse.violations("the log-sum-exp")
        return results

    def _indexer(self) -> Results:
        tensors, topk = self.tensors, self.problem["topk"]
        cache = self._allocate()
        for key, slots in (("context_key", "context_slots"), ("key", "slot_mapping")):
            if key in tensors:
                rows = tensors[key][:, 0]
                self.dispatch += self.backend.write_index(
                    rows, cache, tensors[slots], self.geometry
                )
        rows, tokens = tensors["query"], int(tensors["query_start_loc"][-1])
        chosen = Guarded(
            torch.empty((len(rows), 1, topk), dtype=torch.int32, device=self.device),
            tokens,
            1,
            topk,
            self.problem["poison"],
        )
        self.dispatch += self.backend.select(
            tensors["query"], tensors["weights"], cache, self._batch(), chosen.view[:, 0]
        )
        self.violations += chosen.violations("the selection")
        return {"indices": chosen.written()[:, 0]}

    def _value(self) -> torch.Tensor | None:
        """New values; MLA's are the first columns of its keys."""
        value, key = self.tensors.get("value"), self.tensors.get("key")
        if value is None and key is not None and self.problem["kind"] != "paged":
            return key[..., : self.problem["v_head_size"]]
        return value

    def _filled_cache(self) -> torch.Tensor:
        """A poisoned cache with context and new keys in it; checks what else was written."""
        cache, twin = self._allocate(), self._allocate()
        opposite(cache, twin)
        for stored in (cache, twin):
            self._write(stored)
        self._check_written(cache, twin)
        slots = [self.tensors.get(name) for name in ("context_slots", "slot_mapping")]
        given = torch.cat([each for each in slots if each is not None])
        self.rows = self.backend.stored_rows(cache, given[given >= 0], self.geometry)
        return cache

    def _allocate(self) -> torch.Tensor:
        blocks, pad = self.problem["num_blocks"], self.problem["block_pad"]
        # A backend goes on with the cache that it allocated last: the real one.
        meta = torch.device("meta")
        more = self.backend.allocate(blocks + 1, self.geometry, meta).shape if pad else None
        cache = self.backend.allocate(blocks, self.geometry, self.device)
        if more is not None:
            cache = self.backend.pad_blocks(cache, more, pad)
        filling = self.backend.filling or self.problem["cache_filling"]
        fill(cache, filling or self.problem["poison"])
        return cache

    def _write(self, cache: torch.Tensor) -> None:
        tensors = self.tensors
        context = tensors["context_key"]
        value = tensors.get("context_value")
        if value is None:
            value = context[..., : self.problem["v_head_size"]]
        rows = [(context, value, tensors["context_slots"])]
        new = self._value()
        if "key" in tensors and new is not None:
            rows.append((tensors["key"], new, tensors["slot_mapping"]))
        for key, values, slots in rows:
            self.dispatch += self.backend.write(key, values, cache, slots, self.layer)

    def _check_written(self, cache: torch.Tensor, twin: torch.Tensor) -> None:
        slots = [self.tensors["context_slots"], self.tensors.get("slot_mapping")]
        count = sum(int((s >= 0).sum()) for s in slots if s is not None)
        size = self.problem["key_size"]
        if self.problem["kind"] == "paged":
            size += self.problem["v_head_size"]
        if self.geometry.packing:
            size = packed_bytes(self.geometry.packing, self.problem["head_size"])
        expected = count * self.problem["num_kv_heads"] * size
        written = count_equal(cache, twin)
        if written != expected:
            self.violations.append(
                f"the cache write stored {written} elements where {count} slots hold {expected}"
            )

    def _outputs(self) -> tuple[Guarded, Guarded | None]:
        p = self.problem
        rows, tokens = len(self.tensors["query"]), int(self.tensors["query_start_loc"][-1])
        heads, size, poison = p["num_heads"], p["v_head_size"], p["poison"]
        shape = (rows, heads + p["row_pad"], size + p["head_pad"])
        dtype, device = self.geometry.dtype, self.device
        out = Guarded(torch.empty(shape, dtype=dtype, device=device), tokens, heads, size, poison)
        if not p["wants_lse"]:
            return out, None
        sums = torch.empty((rows, heads + p["row_pad"], 1), dtype=torch.float32, device=device)
        lse = Guarded(sums, tokens, heads, 1, poison)
        lse.view = lse.view[..., 0]
        return out, lse


def packed_bytes(packing: str, head_size: int) -> int:
    """The bytes of a row that packs a key and a value of this size."""
    key_bits, value_bits, besides = PACKED[packing]
    if packing == "ultraquant_4bit":
        besides = 2 * -(-head_size // GROUP)
    return -(-head_size * key_bits // 8) + -(-head_size * value_bits // 8) + besides


def geometry_of(problem: ProblemFields) -> Geometry:
    dtype: torch.dtype = getattr(torch, problem["dtype"])
    packing = problem["kv_cache_dtype"] if problem["kv_cache_dtype"] in PACKED else ""
    latent = problem["kind"] == "mla_prefill"
    return Geometry(
        num_heads=problem["num_heads"],
        num_kv_heads=problem["num_kv_heads"],
        head_size=problem["key_size"],
        v_head_size=problem["latent_rank"] if latent else problem["v_head_size"],
        dtype=dtype,
        cache_dtype=BYTES.get(packing[:4], torch.uint8)
        if packing
        else FLOAT8.get(problem["kv_cache_dtype"], dtype),
        block_size=problem["block_size"],
        packing=packing,
    )


def scores_of(problem: ProblemFields, tensors: dict[str, torch.Tensor]) -> Scores:
    left, right = problem["window"]
    return Scores(
        scale=problem["softmax_scale"],
        causal=problem["causal"],
        window=(left, right),
        soft_cap=problem["soft_cap"],
        alibi_slopes=tensors.get("alibi_slopes"),
        alibi_sqrt=problem["alibi"] == "sqrt",
        sinks=tensors.get("sinks"),
        mm_prefix=tensors.get("mm_prefix"),
        prompt_lens=tensors.get("prompt_lens"),
        query_bias=tensors.get("query_bias"),
    )
