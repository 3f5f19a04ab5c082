"""Memory that outlives a call: workspaces of builders, and tensors that a captured graph reads."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.suites.metadata.built import Built, Finding
from conformance.worker.metadata_contract import Seen

PERSISTENT, WORKSPACES = "MET-013", "MET-015"
# Read on the host, when metadata is built.
ON_THE_HOST = "_cpu"
# Of a prefill, which no graph has.
# FLEX_ATTENTION's, of which it makes its mask before the graph; the mask keeps places of its own.
OF_A_MASK = ("doc_ids", "num_blocks_per_seq", "logical_block_ids")
NO_GRAPH = ("prefill", "extend_metadata", "prefill_metadata")
PARTIALS = ("softmax_segm_output", "softmax_segm_max", "softmax_segm_expsum")


def persistent(captured: Built, replayed: Built) -> Iterator[Finding]:
    """MET-013: what was captured lies where it lay, with the shape that it had."""
    for path, before in captured.fields.items():
        if "address" not in before or path.endswith(ON_THE_HOST) or path.startswith(NO_GRAPH):
            continue
        if path in OF_A_MASK:
            continue
        if not replayed.has(path):
            yield replayed.finding(PERSISTENT, "stale", path, "was captured, and is missing")
            continue
        now = replayed.seen(path)
        if now.get("shape") != before.get("shape") and not _is_padded(replayed, before, now):
            what = f"was captured with shape {before.get('shape')}, and has {now.get('shape')}"
            yield replayed.finding(PERSISTENT, "stale", path, what)
        elif now.get("address") != before.get("address"):
            yield replayed.finding(PERSISTENT, "stale", path, "is not where it was captured")
    for path, before in captured.fields.items():
        is_number = isinstance(before.get("value"), int) and "address" not in before
        if is_number and path in ("num_decodes", "num_decode_tokens", "num_actual_tokens"):
            yield from replayed.unequal(PERSISTENT, "stale", path, captured.number(path))


def _is_padded(replayed: Built, before: Seen, now: Seen) -> bool:
    """Whether a view ends with the real rows; a graph reads on in the buffer behind them."""
    was, shape = before.get("shape", []), now.get("shape", [])
    fewer = len(was) == len(shape) and all(a >= b for a, b in zip(was, shape, strict=True))
    return replayed.placed.batch.reqs > 0 and fewer


def workspaces(built: Built) -> Iterator[Finding]:
    """MET-015: buffers are as wide as the layer's heads and head size, and have rows enough."""
    layer = built.layer
    wide = {f"{path}.workspace": layer["head_size"] for path in _gathering(built)}
    wide |= {f"{path}.swa_metadata.swa_workspace": layer["head_size"] for path in _gathering(built)}
    wide["softmax_segm_output"] = layer["head_size"]
    for path, least in wide.items():
        if built.has(path) and (got := built.shape(path)[-1]) < least:
            what = f"holds heads of {got}, the layer's have {least}"
            yield built.finding(WORKSPACES, "buffer", path, what)
    for path in PARTIALS:
        if not built.has(path):
            continue
        shape = built.shape(path)
        if shape[1] < layer["num_heads"]:
            what = f"is for {shape[1]} heads, the layer has {layer['num_heads']}"
            yield built.finding(WORKSPACES, "buffer", path, what)
        segments = built.number("num_par_softmax_segments")
        if shape[2] < segments:
            what = f"is for {shape[2]} segments of {segments}"
            yield built.finding(WORKSPACES, "buffer", path, what)
        rows = min(built.number("seq_threshold_3D"), layer["max_reqs"])
        if shape[0] < rows:
            what = f"has {shape[0]} rows for {rows} requests"
            yield built.finding(WORKSPACES, "buffer", path, what)
    for path in _gathering(built):
        shape = built.shape(f"{path}.workspace") if built.has(f"{path}.workspace") else []
        if len(shape) > 2 and shape[-2] < layer["num_kv_heads"]:
            what = f"is for {shape[-2]} KV heads, the layer has {layer['num_kv_heads']}"
            yield built.finding(WORKSPACES, "buffer", f"{path}.workspace", what)


def _gathering(built: Built) -> Iterator[str]:
    for path in ("extend_metadata.chunk_context_metadata", "prefill.chunked_context"):
        if built.below(path):
            yield path
