"""What each backend's builder is asked: layers that the backend takes, and batches for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from conformance.suites.metadata.batches import (
    ORDINARY,
    Batch,
    Placed,
    cascades,
    graphs,
    placed,
    random_batches,
    speculative,
)
from conformance.worker.metadata_contract import LayerFields, StepFields
from vllm_editions import Backend, load_edition

CAPTURED = [1, 2, 4, 8, 16]
DRAFTS = 3
SPARSE_KEYS = 64
LATENT = 576
# Not a power of two, so that a size that is rounded up is told from one that is not.
HEADS, KV_HEADS = 24, 2


@dataclass(frozen=True)
class Step:
    """One call of the builder; ``role`` says what it is for: the first word of a question."""

    call: str
    placed: Placed
    draft: int = 0

    def fields(self) -> StepFields:
        return {"call": self.call, "draft_index": self.draft, "batch": self.placed.described()}


@dataclass(frozen=True)
class Question:
    """Steps that one builder goes through, for one layer.

    ``role``: ordinary, speculative, cascade, drafting, update, or graph: then the first step is a
    capture, and the others are replays of it.
    """

    role: str
    layer: LayerFields
    steps: tuple[Step, ...]


def base_layer(name: str, edition: str) -> LayerFields:
    """A layer that a backend takes, as large as a small model's."""
    backend = load_edition(edition).backends[name]
    latent = backend.mla
    head = LATENT if latent and not backend.head_sizes else _head_size(backend)
    block = _block_size(name, backend)
    return {
        "num_heads": 16 if latent else HEADS,
        "num_kv_heads": 1 if latent else KV_HEADS,
        "head_size": head,
        "model_head_size": head,
        "model_kv_heads": 1 if latent else KV_HEADS,
        "block_size": block,
        "dtype": "bfloat16",
        "kv_cache_dtype": _cache_dtype(backend),
        "window": 0,
        "graphs": False,
        "capture_sizes": CAPTURED,
        "speculative": 0,
        "max_reqs": 32,
        "max_tokens": 256,
        "max_len": max(256, 4 * block),
        "topk": SPARSE_KEYS,
        "at_once": 0,
    }


def _head_size(backend: Backend) -> int:
    return 128 if not backend.head_sizes or 128 in backend.head_sizes else max(backend.head_sizes)


def _block_size(name: str, backend: Backend) -> int:
    """The first that it takes; AITER's MLA has one token a block."""
    if backend.mla and name.startswith("ROCM_AITER"):
        return 1
    return min(backend.block_sizes, default=16)


def _cache_dtype(backend: Backend) -> str:
    return "auto" if "auto" in backend.kv_cache_dtypes else min(backend.kv_cache_dtypes)


def questions(name: str, edition: str, tier: str, seed: int) -> Iterator[Question]:
    """Everything a builder is asked; other tiers than quick add layers and random batches."""
    layer = base_layer(name, edition)
    backend = load_edition(edition).backends[name]
    yield _asked("ordinary", layer, ORDINARY, seed)
    # Contexts longer than a workspace.
    yield _asked("ordinary", {**layer, "at_once": 64}, ORDINARY[-2:], seed)
    yield _asked("cascade", layer, cascades(layer), seed)
    yield _other_head(layer, backend, seed)
    drafting: LayerFields = {**layer, "speculative": DRAFTS}
    yield _asked("speculative", drafting, speculative(DRAFTS), seed)
    yield _drafts(drafting, seed)
    yield _update(layer, seed)
    yield from _graphs({**layer, "graphs": True}, seed)
    yield from _graphs({**drafting, "graphs": True}, seed)
    if layer["block_size"] == 1:
        yield _asked("ordinary", {**layer, "block_size": 16}, ORDINARY, seed)
    if not backend.mla:
        yield _asked("ordinary", {**layer, "window": 24}, ORDINARY[-4:], seed)
    if "fp8" in backend.kv_cache_dtypes:
        yield _asked("ordinary", {**layer, "kv_cache_dtype": "fp8"}, ORDINARY[-4:], seed)
    if tier == "quick":
        return
    yield _asked("ordinary", layer, tuple(random_batches(40, layer, seed)), seed)
    for size in [size for size in (32, 64) if _takes(backend, size)]:
        yield _asked("ordinary", {**layer, "block_size": size}, ORDINARY, seed)
    for drafts in (1, 7):
        yield _asked("speculative", {**layer, "speculative": drafts}, speculative(drafts), seed)
    yield from _graphs({**layer, "graphs": True, "capture_sizes": [3, 5, 32]}, seed)


def _takes(backend: Backend, size: int) -> bool:
    return any(size % known == 0 for known in backend.block_sizes) and len(backend.block_sizes) == 1


def _asked(role: str, layer: LayerFields, batches: Sequence[Batch], seed: int) -> Question:
    return Question(role, layer, tuple(Step("build", placed(b, layer, seed)) for b in batches))


def _other_head(layer: LayerFields, backend: Backend, seed: int) -> Question:
    """A layer whose heads are larger than the model's configuration says, as some models' are."""
    larger = [size for size in sorted(backend.head_sizes or (256,)) if size > layer["head_size"]]
    if backend.mla or not larger:
        return _asked("ordinary", layer, ORDINARY[:1], seed)
    other: LayerFields = {**layer, "head_size": larger[-1], "num_kv_heads": 2 * KV_HEADS}
    return _asked("ordinary", other, ORDINARY[-2:], seed)


def _drafts(layer: LayerFields, seed: int) -> Question:
    """A draft model: a step for every draft token, each a token later than the one before."""
    first = Batch("before drafting", (4, 4, 4), (10, 40, 61))
    steps = [Step("build", placed(first, layer, seed))]
    for index in range(DRAFTS):
        contexts = tuple(context + 4 + index for context in first.contexts)
        batch = Batch(f"draft {index}", (1,) * 3, contexts)
        steps.append(Step("draft", placed(batch, layer, seed), index))
    return Question("drafting", layer, tuple(steps))


def _update(layer: LayerFields, seed: int) -> Question:
    """The same batch with the tables of another group of layers."""
    batch = ORDINARY[-2]
    steps = (
        Step("build", placed(batch, layer, seed)),
        Step("update", placed(batch, layer, seed + 1)),
    )
    return Question("update", layer, steps)


def _graphs(layer: LayerFields, seed: int) -> Iterator[Question]:
    for batches in graphs(layer):
        capture, *replays = (placed(batch, layer, seed) for batch in batches)
        steps = [Step("capture", capture), *(Step("build", each) for each in replays)]
        yield Question("graph", layer, tuple(steps))


def with_steps(question: Question, count: int) -> Question:
    """The question with its first steps alone."""
    return replace(question, steps=question.steps[:count])
