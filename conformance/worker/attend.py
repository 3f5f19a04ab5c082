"""The ``attend`` op: one problem's tensors through one backend, and what the backend touched.

The harness owns the memory. Every slot of a cache and every element of an output buffer holds
poison before the backend runs; afterwards the harness tells, without knowing a layout, which
elements of the cache were written (two caches with opposite fillings agree exactly there) and
whether anything outside the output rows changed. Runs in the subject's own Python: torch and the
standard library only.
"""

import contextlib
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .contract import lacks_memory
from .wire import Message, NoMemoryError

OUT_OF_MEMORY = (
    "the GPU ran out of memory: others use it, or too many processes share it; run with fewer (-n)"
)
CHUNK = 1 << 28  # bytes compared at a time
FLOAT8 = {
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fnuz": torch.float8_e4m3fnuz,
    "fp8_e5m2": torch.float8_e5m2,
}


class Refused(Exception):  # noqa: N818 - no error: the subject does not claim this
    """A problem that a backend is not made for, or that cannot run here; the message says why."""


class Contestant:
    """What a subject offers to the harness, with ``rocm_reference.attention``'s arguments."""

    device = torch.device("cpu")

    def synchronize(self) -> None:
        """Waits for the device, so that its errors show in the problem that made them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Gives the memory that a problem took back to those who share the device."""
        if self.device.type == "cuda":
            # After an error of the device's own nothing can be given back.
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()

    def backend(self, name: str) -> Any:
        """An object with ``allocate``, ``write``, ``attend`` and so on, as far as it has them.

        It may have ``check(problem)``, which raises :class:`Refused`; so may all the others.
        """
        raise NotImplementedError

    def seam(self) -> Any:
        """A namespace with ``Geometry``, ``Batch``, ``Scores`` and ``Scales``."""
        raise NotImplementedError


@contextlib.contextmanager
def lack_of_memory_told() -> Iterator[None]:
    """Makes a :class:`NoMemoryError` of whatever says that the GPU's memory is used up."""
    try:
        yield
    except Exception as error:
        if lacks_memory(error):
            raise NoMemoryError(OUT_OF_MEMORY) from error
        raise


@lack_of_memory_told()
def attend(contestant: Contestant, message: Message) -> Message:
    """Runs one problem; outputs go to the file ``message["output"]``.

    The answer has ``dispatch`` (kernels that ran), ``violations`` (sentences about what was
    touched and must not be), ``raised`` and ``trace`` (the backend's error, or empty),
    ``refused`` (why the backend is not to be given the problem, or empty), and ``seconds``.
    """
    problem = SimpleNamespace(**message["problem"])
    tensors = torch.load(message["tensors"], map_location=contestant.device, weights_only=True)
    started = time.perf_counter()
    dispatch: list[str] = []
    violations: list[str] = []
    raised = trace = refused = ""
    try:
        run = _Run(contestant, problem, SimpleNamespace(**tensors), dispatch, violations)
        results = run.results()
        contestant.synchronize()
        made = {name: tensor.cpu() for name, tensor in results.items()}
        torch.save(made, Path(message["output"]))
    except Refused as reason:
        refused = str(reason)
    except Exception as error:
        if lacks_memory(error):
            raise
        raised = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    finally:
        contestant.release()
    seconds = time.perf_counter() - started
    return {
        "dispatch": list(dict.fromkeys(dispatch)),
        "violations": violations,
        "raised": raised,
        "trace": trace,
        "refused": refused,
        "seconds": seconds,
    }


class _Run:
    """One problem on one backend."""

    def __init__(
        self,
        contestant: Contestant,
        problem: Any,
        tensors: Any,
        dispatch: list[str],
        violations: list[str],
    ) -> None:
        self.problem = problem
        self.tensors = tensors
        self.backend = contestant.backend(problem.backend)
        if hasattr(self.backend, "check"):
            self.backend.check(problem)
        self.device = contestant.device
        self.seam = contestant.seam()
        self.dispatch = dispatch
        self.violations = violations
        dtype = getattr(torch, problem.dtype)
        latent = problem.kind == "mla_prefill"
        self.geometry = self.seam.Geometry(
            num_heads=problem.num_heads,
            num_kv_heads=problem.num_kv_heads,
            head_size=problem.key_size,
            v_head_size=problem.latent_rank if latent else problem.v_head_size,
            dtype=dtype,
            cache_dtype=FLOAT8.get(problem.kv_cache_dtype, dtype),
            block_size=problem.block_size,
        )
        self.scales = self.seam.Scales(k=problem.k_scale, v=problem.v_scale)
        self.scores = self.seam.Scores(
            scale=problem.softmax_scale,
            causal=problem.causal,
            window=tuple(problem.window),
            soft_cap=problem.soft_cap,
            alibi_slopes=self._optional("alibi_slopes"),
            alibi_sqrt=problem.alibi == "sqrt",
            sinks=self._optional("sinks"),
            mm_prefix=self._optional("mm_prefix"),
        )

    def results(self) -> dict[str, torch.Tensor]:
        return {
            "paged": self._paged,
            "mla": self._paged,
            "varlen": self._varlen,
            "mla_prefill": self._mla_prefill,
            "mla_sparse": self._mla_sparse,
            "indexer": self._indexer,
        }[self.problem.kind]()

    def _optional(self, name: str) -> Any:
        return getattr(self.tensors, name, None)

    def _batch(self) -> Any:
        lens = self.tensors.seq_lens.tolist()
        queries = self.tensors.query_start_loc.diff().tolist()
        return self.seam.Batch(
            query_start_loc=self.tensors.query_start_loc,
            seq_lens=self.tensors.seq_lens,
            block_table=self.tensors.block_table,
            max_query_len=max(queries, default=0),
            max_seq_len=max(lens, default=0),
            max_context_len=max((n - q for n, q in zip(lens, queries, strict=True)), default=0),
        )

    def _paged(self, **selected: Any) -> dict[str, torch.Tensor]:
        return self._attended(
            self.backend.attend,
            self.tensors.query,
            self._optional("key"),
            self._value(),
            self._filled_cache(),
            self._batch(),
            self.geometry,
            self.scores,
            self.scales,
            **selected,
        )

    def _mla_sparse(self) -> dict[str, torch.Tensor]:
        return self._paged(selected=self.tensors.topk_indices)

    def _varlen(self) -> dict[str, torch.Tensor]:
        tensors = self.tensors
        return self._attended(
            self.backend.attend_varlen,
            tensors.query,
            tensors.keys,
            tensors.values,
            tensors.query_start_loc,
            tensors.key_start_loc,
            max(tensors.query_start_loc.diff().tolist(), default=0),
            max(tensors.key_start_loc.diff().tolist(), default=0),
            self.geometry,
            self.scores,
        )

    def _mla_prefill(self) -> dict[str, torch.Tensor]:
        return self._attended(
            self.backend.prefill,
            self.tensors.query,
            self.tensors.key,
            self.tensors.kv_b_proj.transpose(1, 2),
            self._filled_cache(),
            self._batch(),
            self.geometry,
            self.scores,
            self.scales,
        )

    def _attended(self, method: Any, *inputs: Any, **options: Any) -> dict[str, torch.Tensor]:
        """Calls a backend's method with guarded outputs after its inputs; collects what it made."""
        out, lse = self._outputs()
        self.dispatch += method(*inputs, out.view, lse.view if lse else None, **options)
        return self._collect(out, lse)

    def _indexer(self) -> dict[str, torch.Tensor]:
        cache = self.backend.allocate(self.problem.num_blocks, self.geometry, self.device)
        fill(cache, self.problem.poison)
        for key, slots in (("context_key", "context_slots"), ("key", "slot_mapping")):
            if self._optional(key) is not None:
                rows = getattr(self.tensors, key)[:, 0]
                self.dispatch += self.backend.write_index(
                    rows, cache, getattr(self.tensors, slots), self.geometry
                )
        rows, tokens = self.tensors.query.shape[0], int(self.tensors.query_start_loc[-1])
        shape = (rows, 1, self.problem.topk)
        chosen = Guarded(
            torch.empty(shape, dtype=torch.int32, device=self.device),
            tokens,
            1,
            self.problem.topk,
            self.problem.poison,
        )
        self.dispatch += self.backend.select(
            self.tensors.query,
            self.tensors.weights,
            cache,
            self._batch(),
            chosen.view[:, 0],
        )
        self.violations += chosen.violations("the selection")
        return {"indices": chosen.written()[:, 0]}

    def _value(self) -> Any:
        """New values; MLA's are the first columns of its keys."""
        value = self._optional("value")
        key = self._optional("key")
        if value is None and key is not None and self.problem.kind != "paged":
            return key[..., : self.problem.v_head_size]
        return value

    def _filled_cache(self) -> torch.Tensor:
        """A poisoned cache with context and new keys in it; tells what was written besides."""
        cache, twin = self._allocate(), self._allocate()
        torch.bitwise_not(as_bytes(cache), out=as_bytes(twin))
        for stored in (cache, twin):
            self._write(stored)
        self._check_written(cache, twin)
        return cache

    def _allocate(self) -> torch.Tensor:
        cache: torch.Tensor = self.backend.allocate(
            self.problem.num_blocks, self.geometry, self.device
        )
        # A backend that computes with unused slots on purpose is shown numbers there.
        filling = getattr(self.backend, "filling", "") or self.problem.cache_filling
        fill(cache, filling or self.problem.poison)
        return cache

    def _write(self, cache: torch.Tensor) -> None:
        tensors = self.tensors
        value = self._optional("context_value")
        if value is None:
            value = tensors.context_key[..., : self.problem.v_head_size]
        rows = [(tensors.context_key, value, tensors.context_slots)]
        if self._optional("key") is not None:
            rows.append((tensors.key, self._value(), tensors.slot_mapping))
        for key, values, slots in rows:
            self.dispatch += self.backend.write(
                key, values, cache, slots, self.geometry, self.scales
            )

    def _check_written(self, cache: torch.Tensor, twin: torch.Tensor) -> None:
        tensors = self.tensors
        slots = [tensors.context_slots, self._optional("slot_mapping")]
        count = sum(int((s >= 0).sum()) for s in slots if s is not None)
        size = self.problem.key_size
        if self.problem.kind == "paged":
            size += self.problem.v_head_size
        expected = count * self.problem.num_kv_heads * size
        pairs = zip(
            torch.split(as_bytes(cache), CHUNK), torch.split(as_bytes(twin), CHUNK), strict=True
        )
        size_of = cache.dtype.itemsize
        written = sum(int((a == b).view(-1, size_of).all(1).sum()) for a, b in pairs)
        if written != expected:
            self.violations.append(
                f"the cache write stored {written} elements where {count} slots hold {expected}"
            )

    def _outputs(self) -> tuple["Guarded", "Guarded | None"]:
        p = self.problem
        rows = self.tensors.query.shape[0]
        tokens = int(self.tensors.query_start_loc[-1])
        heads, size = p.num_heads, p.v_head_size
        shape = (rows, heads + p.row_pad, size + p.head_pad)
        dtype, device = self.geometry.dtype, self.device
        out = Guarded(torch.empty(shape, dtype=dtype, device=device), tokens, heads, size, p.poison)
        if not p.wants_lse:
            return out, None
        sums = torch.empty((rows, heads + p.row_pad, 1), dtype=torch.float32, device=device)
        lse = Guarded(sums, tokens, heads, 1, p.poison)
        lse.view = lse.view[..., 0]
        return out, lse

    def _collect(self, out: "Guarded", lse: "Guarded | None") -> dict[str, torch.Tensor]:
        found = {"output": out.written()}
        self.violations += out.violations("the output")
        if lse is not None:
            found["lse"] = lse.written()[..., 0]
            self.violations += lse.violations("the log-sum-exp")
        return found


class Guarded:
    """A poisoned buffer [rows, heads, size] of which only [:tokens, :heads, :size] may change."""

    def __init__(
        self, buffer: torch.Tensor, tokens: int, heads: int, size: int, poison: str
    ) -> None:
        fill(buffer, poison)
        self._buffer = buffer
        self._before = buffer.clone()
        self._tokens = tokens
        self.view = buffer[:, :heads, :size]

    def written(self) -> torch.Tensor:
        """The rows that the backend owes, contiguous."""
        view = self.view if self.view.dim() == self._buffer.dim() else self.view[..., None]
        return view[: self._tokens].contiguous()

    def violations(self, name: str) -> list[str]:
        after, before = as_bytes(self._buffer), as_bytes(self._before)
        changed = (after != before).view(*self._buffer.shape, -1).any(-1)
        heads, size = self.view.shape[1], self.view.shape[2] if self.view.dim() > 2 else 1
        changed[: self._tokens, :heads, :size] = False
        if not bool(changed.any()):
            return []
        row, head, column = (int(i) for i in changed.nonzero()[0])
        return [
            f"{name} was written outside its rows: {int(changed.sum())} elements, the first at "
            f"row {row} of {self._tokens}, head {head} of {heads}, element {column} of {size}"
        ]


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor's memory, flat."""
    return tensor.view(-1).view(torch.uint8)


def fill(tensor: torch.Tensor, poison: str) -> None:
    """Fills with NaN, with infinity, or with the largest finite value (NaN where there is no
    infinity); with zeros for ``zero``."""
    dtype = tensor.dtype
    if not dtype.is_floating_point:
        tensor.fill_(torch.iinfo(dtype).max)
        return
    if poison == "zero":
        value = 0.0
    elif poison == "huge":
        value = torch.finfo(dtype).max
    elif poison == "inf" and dtype not in (torch.float8_e4m3fn, torch.float8_e4m3fnuz):
        value = float("inf")
    else:
        value = float("nan")
    pattern = torch.tensor([value], dtype=torch.float32).to(dtype).view(torch.uint8)
    as_bytes(tensor).view(-1, dtype.itemsize)[:] = pattern.to(tensor.device)
