"""Lengths, block tables, slots, maps of tokens to requests, and the dtypes of all of them."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.suites.metadata.batches import zip_rows
from conformance.suites.metadata.built import Built, Finding, difference, shown, sums

LENGTHS, TABLES, MAPS, CASCADE, DTYPES, LEFT_ALONE = (
    *("MET-003", "MET-004", "MET-008", "MET-009", "MET-016", "MET-017"),
)
INT32 = (
    *("query_start_loc", "seq_lens", "block_table", "cu_seq_lens", "cu_seq_lens_chunk"),
    *("qo_indptr", "paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len"),
    *("req_id_per_token", "q_to_req", "q_to_klen", "prefix_kv_lens", "suffix_kv_lens"),
    *("cu_prefix_query_lens", "swa_block_table", "swa_seq_lens", "swa_cu_seqlens"),
)


def lengths(built: Built) -> Iterator[Finding]:
    """MET-003: what the whole batch is told to be."""
    batch = built.placed.batch
    for path, expected in (
        ("num_reqs", batch.rows),
        ("num_actual_tokens", batch.all_tokens),
        ("query_start_loc_cpu", batch.starts),
        ("seq_lens_cpu", batch.seq_lens),
    ):
        yield from built.unequal(LENGTHS, "length", path, expected)
    most = built.layer["max_reqs"]
    yield from _rows(built, "query_start_loc", batch.starts, most + 1)
    yield from _rows(built, "seq_lens", batch.seq_lens, most)
    if built.call != "draft":
        yield from built.unequal(LENGTHS, "length", "num_actual_kv_tokens", sum(batch.seq_lens))
    for path, lens in (("max_query_len", batch.query_lens), ("max_seq_len", batch.seq_lens)):
        if built.has(path) and built.number(path) < max(lens):
            got = built.number(path)
            yield built.finding(LENGTHS, "length", path, f"is {got}, less than {max(lens)}")
    if built.has("is_prefill") and built.number("is_prefill") != int(max(batch.query_lens) > 1):
        yield built.finding(LENGTHS, "length", "is_prefill", "does not say what the batch is")
    if built.has("causal") and built.number("causal") != 1:
        yield built.finding(LENGTHS, "length", "causal", "is no longer what the batch says")


def _rows(built: Built, path: str, expected: list[int], most: int) -> Iterator[Finding]:
    """A value a row. A buffer for as many rows as there can be has them first: FLEX_ATTENTION's."""
    found = built.numbers(path)
    whole = len(found) == most
    if built.has(path) and (found[: len(expected)] if whole else found) != expected:
        yield built.finding(LENGTHS, "length", path, difference(found, expected))


def tables(built: Built) -> Iterator[Finding]:
    """MET-004: where keys and values lie."""
    flat = [block for row in built.table for block in row]
    yield from built.unequal(TABLES, "table", "block_table", flat)
    yield from built.unequal(TABLES, "table", "slot_mapping", built.placed.slots)
    yield from built.unequal(TABLES, "table", "block_size", built.layer["block_size"])


def maps(built: Built) -> Iterator[Finding]:
    """MET-008: the request, and the keys, of every token."""
    rows = list(zip_rows(built.placed.batch))
    owners = [row for row, (queries, _) in enumerate(rows) for _ in range(queries)]
    keys = [context + token + 1 for queries, context in rows for token in range(queries)]
    for path, expected in (
        ("req_id_per_token", owners),
        ("q_to_req", owners),
        ("doc_ids", owners),
        ("q_to_klen", keys),
    ):
        if not built.has(path):
            continue
        real = built.sparse_tokens if path == "req_id_per_token" else len(expected)
        if built.numbers(path)[:real] != expected[:real]:
            what = f"is {shown(built.numbers(path))}, not {shown(expected[:real])} for the tokens"
            yield built.finding(MAPS, "map", path, what)
    # Tokens of padding must not have keys, and belong to a request that is there.
    padding = slice(len(owners), built.placed.batch.all_tokens)
    if built.has("q_to_klen") and any(built.numbers("q_to_klen")[padding]):
        yield built.finding(MAPS, "padding", "q_to_klen", "gives keys to tokens of padding")
    for path in ("req_id_per_token", "doc_ids"):
        outside = built.has(path) and any(
            not 0 <= row < len(rows) for row in built.numbers(path)[padding]
        )
        if outside:
            yield built.finding(MAPS, "padding", path, "names requests that are not there")


def cascade(built: Built) -> Iterator[Finding]:
    """MET-009: what all requests share, and what each has besides."""
    batch = built.placed.batch
    yield from built.unequal(CASCADE, "cascade", "use_cascade", int(batch.prefix > 0))
    yield from built.unequal(CASCADE, "cascade", "common_prefix_len", batch.prefix)
    if not batch.prefix:
        return
    rest = [length - batch.prefix for length in batch.seq_lens]
    for path, expected in (
        ("cu_prefix_query_lens", sums([batch.real_tokens])),
        ("prefix_kv_lens", [batch.prefix]),
        ("suffix_kv_lens", rest),
    ):
        if path in built.fields and not built.has(path):
            yield built.finding(CASCADE, "cascade", path, "is missing")
        yield from built.unequal(CASCADE, "cascade", path, expected)


def dtypes(built: Built) -> Iterator[Finding]:
    """MET-016: what kernels read through pointers to int32, and slots through int64."""
    for path in built.ends(*INT32, "slot_mapping"):
        seen = built.seen(path)
        wanted = "int64" if path.endswith("slot_mapping") else "int32"
        if "dtype" in seen and seen["dtype"] != wanted:
            yield built.finding(DTYPES, "dtype", path, f"is {seen['dtype']}, not {wanted}")


def left_alone(built: Built) -> Iterator[Finding]:
    """MET-017: the batch's own tensors after the call, which other layers' builders read."""
    batch = built.placed.batch
    for path, expected in (
        ("query_start_loc", batch.starts),
        ("seq_lens", batch.seq_lens),
        ("block_table_tensor", [block for row in built.table for block in row]),
        ("slot_mapping", built.placed.slots),
    ):
        found = built.given[path].get("value")
        if found != expected:
            yield built.finding(
                LEFT_ALONE, "input", path, "of the batch was changed by the builder"
            )
