"""The lists of pages that AITER's MLA kernels read, and the schedule that aiter is asked for.

These kernels see a cache of one token a page, whatever its blocks are, so a request's list names
every one of its tokens. ROCM_AITER_MLA_SPARSE has a list for each query token, of the keys that
were chosen for it (https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/mla/rocm_aiter_mla.py#L1498).
"""

from __future__ import annotations

from collections.abc import Iterator

from conformance.suites.metadata.batches import zip_rows
from conformance.suites.metadata.built import Built, Finding, difference, gaps, shown, sums
from conformance.suites.metadata.requests_split import split_of
from conformance.worker.metadata_contract import Fields, PlannedCall

PAGES, PADDING, SCHEDULE = "MET-007", "MET-012", "MET-014"
# The schedule's buffers as metadata names them, and as aiter's function does.
BUFFERS = {
    "work_meta_data": "work_metadata_ptrs",
    "work_indptr": "work_indptr",
    "work_info_set": "work_info_set",
    "reduce_indptr": "reduce_indptr",
    "reduce_final_map": "reduce_final_map",
    "reduce_partial_map": "reduce_partial_map",
}


def pages(built: Built) -> Iterator[Finding]:
    """MET-007 and MET-012: the lists of pages, of requests or of query tokens."""
    if built.has("decode.paged_kv_indptr"):
        yield from _of_requests(built)
    if built.has("paged_kv_indptr"):
        yield from _of_tokens(built)


def _of_requests(built: Built) -> Iterator[Finding]:
    batch, count = built.placed.batch, split_of(built).extends
    real = min(count, len(batch.queries))
    ends, queries = built.numbers("decode.paged_kv_indptr"), built.numbers("decode.qo_indptr")
    for path, found in (("decode.paged_kv_indptr", ends), ("decode.qo_indptr", queries)):
        if len(found) != count + 1:
            yield built.finding(PAGES, "pages", path, f"has {len(found)} elements, not {count + 1}")
            return
    lens = gaps(ends)
    tokens = gaps(queries)
    if lens[:real] != batch.seq_lens[:real]:
        what = f"gives requests {shown(lens[:real])} pages, not {shown(batch.seq_lens[:real])}"
        yield built.finding(PAGES, "pages", "decode.paged_kv_indptr", what)
    if tokens[:real] != batch.query_lens[:real]:
        what = f"gives requests {shown(tokens[:real])} tokens, not {shown(batch.query_lens[:real])}"
        yield built.finding(PAGES, "pages", "decode.qo_indptr", what)
    for path, found in (("decode.paged_kv_indptr", lens), ("decode.qo_indptr", tokens)):
        if min(found[real:], default=0) < 0:
            yield built.finding(PADDING, "padding", path, "goes back in rows of padding")
    if queries[-1] > batch.all_tokens:
        what = f"reaches token {queries[-1]} of {batch.all_tokens}"
        yield built.finding(PADDING, "padding", "decode.qo_indptr", what)
    listed = built.numbers("decode.paged_kv_indices")
    if len(listed) < ends[-1]:
        what = f"has room for {len(listed)} of {ends[-1]} pages"
        yield built.finding(PAGES, "buffer", "decode.paged_kv_indices", what)
        return
    for row in range(real):
        expected = [built.placed.slot(row, position) for position in range(batch.seq_lens[row])]
        if (found := listed[ends[row] : ends[row + 1]]) != expected and lens[row] == len(expected):
            what = f"of request {row} {difference(found, expected)}"
            yield built.finding(PAGES, "pages", "decode.paged_kv_indices", what)
            break
    if min(listed[ends[real] : ends[-1]], default=0) < 0:
        what = "has no page for a row of padding that has keys"
        yield built.finding(PADDING, "padding", "decode.paged_kv_indices", what)
    last = built.numbers("decode.paged_kv_last_page_len")
    if len(last) != count or set(last) - {1}:
        what = f"is {shown(last)}, not 1 for each of {count}"
        yield built.finding(PAGES, "pages", "decode.paged_kv_last_page_len", what)
    longest = max(batch.query_lens[:count])
    yield from built.unequal(PAGES, "length", "decode.max_qo_len", longest)


def _of_tokens(built: Built) -> Iterator[Finding]:
    """A page is a chosen key; a token sees no more of them than it has keys."""
    topk = built.layer["topk"]
    yield from built.unequal(PAGES, "length", "topk_tokens", topk)
    tokens = built.sparse_tokens
    for path, least in (("paged_kv_indptr", tokens + 1), ("qo_indptr", tokens + 1)):
        if len(built.numbers(path)) < least:
            yield built.finding(PAGES, "pages", path, f"has fewer than {least} elements")
            return
    if (starts := built.numbers("qo_indptr")) != list(range(len(starts))):
        yield built.finding(PAGES, "pages", "qo_indptr", f"is {shown(starts)}: a query is a token")
    if set(built.numbers("paged_kv_last_page_len")) - {1}:
        yield built.finding(PAGES, "pages", "paged_kv_last_page_len", "is not 1 throughout")
    # Elements of the buffer from the first on, not of the view: what a kernel can write.
    room = built.seen("paged_kv_indices").get("room", 0)
    if room < tokens * topk:
        what = f"has room for {room} of {tokens * topk} keys"
        yield built.finding(PAGES, "buffer", "paged_kv_indices", what)
    if "paged_kv_indptr_rest" in built.fields:
        return  # the layer fills it in, once keys are chosen
    keys = [
        min(topk, context + token + 1)
        for queries, context in zip_rows(built.placed.batch)
        for token in range(queries)
    ]
    expected, found = sums(keys[:tokens]), built.numbers("paged_kv_indptr")
    if found[: len(expected)] != expected:
        what = difference(found[: len(expected)], expected)
        yield built.finding(PAGES, "pages", "paged_kv_indptr", what)
    if set(found[len(expected) :]) - {expected[-1]}:
        yield built.finding(PADDING, "padding", "paged_kv_indptr", "goes on in tokens of padding")


def schedule(built: Built) -> Iterator[Finding]:
    """MET-014: the schedule in the metadata is the one that was planned for this batch."""
    unread = "decode.has_persistent_metadata"
    if not built.has("work_meta_data") or (built.has(unread) and not built.number(unread)):
        return
    plans = [call for call in built.planned if call["function"] == "plan"]
    if not plans:
        yield built.finding(SCHEDULE, "schedule", "work_meta_data", "was never planned")
        return
    where = "decode." if built.has("decode.qo_indptr") else ""
    arguments = plans[-1]["arguments"]
    for mine, theirs in (
        ("qo_indptr", "seqlens_qo_indptr"),
        ("paged_kv_indptr", "seqlens_kv_indptr"),
        ("paged_kv_last_page_len", "kv_last_page_lens"),
    ):
        told, path = arguments.get(theirs, {}).get("value"), f"{where}{mine}"
        if built.has(path) and told != built.seen(path).get("value"):
            yield built.finding(SCHEDULE, "schedule", path, "is not what was planned for")
    for mine, theirs in BUFFERS.items():
        if not built.has(mine):
            yield built.finding(SCHEDULE, "schedule", mine, "is missing")
        elif arguments.get(theirs, {}).get("address") != built.seen(mine).get("address"):
            yield built.finding(SCHEDULE, "schedule", mine, f"is not what was planned as {theirs}")
    yield from _asked_sizes(built, plans[-1])


def _asked_sizes(built: Built, plan: PlannedCall) -> Iterator[Finding]:
    """Whether the buffers were made for a plan as large, of the same heads."""
    sizes = [call for call in built.planned if call["function"] == "sizes"]
    if not sizes:
        return
    asked, arguments = sizes[0]["arguments"], plan["arguments"]
    for path, most, least in (
        ("batch_size", _told(asked, "batch_size"), _requests(arguments)),
        ("max_seqlen_qo", _told(asked, "max_seqlen_qo"), _told(arguments, "max_seqlen_qo")),
    ):
        if most < least:
            what = f"{path}: buffers are for {most}, the plan has {least}"
            yield built.finding(SCHEDULE, "buffer", "work_meta_data", what)
    heads = _told(asked, "num_head_qo"), _told(arguments, "num_heads_per_head_k")
    if heads[0] != heads[1]:
        what = f"buffers are for {heads[0]} heads, the plan has {heads[1]}"
        yield built.finding(SCHEDULE, "buffer", "work_meta_data", what)
    if heads[1] < built.layer["num_heads"]:
        what = f"the plan has {heads[1]} heads, the layer {built.layer['num_heads']}"
        yield built.finding(SCHEDULE, "schedule", "work_meta_data", what)


def _told(arguments: Fields, name: str) -> int:
    value = arguments.get(name, {}).get("value")
    return value if isinstance(value, int) else 0


def _requests(arguments: Fields) -> int:
    value = arguments.get("seqlens_qo_indptr", {}).get("value")
    return len(value) - 1 if isinstance(value, list) else 0
