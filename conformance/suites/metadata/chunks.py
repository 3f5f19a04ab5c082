"""Prefills whose contexts are gathered into a workspace, a chunk at a time.

Three forms of the same plan: a table of chunks by requests (MLA to 0.2x, ROCM_AITER_FA), a list of
chunks each of which has requests of its own (MLA later), and one gather of a sliding window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conformance.suites.metadata.built import Built, Finding, gaps, shown, sums
from conformance.suites.metadata.requests_split import split_of

CHUNKS = "MET-006"
KIND = "chunk"


@dataclass
class _Gathered:
    """Which positions of each request are gathered, in the order of the chunks."""

    spans: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, request: int, start: int, length: int) -> None:
        if length:
            self.spans.setdefault(request, []).append((start, start + length))

    def wrong(self, contexts: Sequence[int]) -> Iterator[str]:
        for request, context in enumerate(contexts):
            reached = 0
            for start, end in self.spans.get(request, []):
                if start != reached:
                    yield f"gathers request {request} from {start} after {reached}"
                reached = end
            if reached != context:
                yield f"gathers {reached} of {context} tokens of request {request}"


def findings(built: Built) -> Iterator[Finding]:
    """What is wrong with a batch's plan of chunks."""
    split, batch = split_of(built), built.placed.batch
    contexts = [s - q for s, q in zip(batch.seq_lens, batch.query_lens, strict=True)]
    extends = "extend_metadata.chunk_context_metadata"
    if built.below(extends):
        mine = contexts[split.extends : split.prompts]
        yield from _table(built, extends, mine)
        yield from _window(built, f"{extends}.swa_metadata", split.extends, split.prompts)
    of_mla = "prefill.chunked_context"
    if built.has("num_decodes") and built.below("prefill") and not built.has("num_extends"):
        mine = contexts[split.extends :]
        if any(mine) and not built.below(of_mla):
            yield built.finding(CHUNKS, KIND, of_mla, "is missing although there are contexts")
        elif built.has(f"{of_mla}.cu_seq_lens"):
            yield from _table(built, of_mla, mine)
        elif built.below(of_mla):
            yield from _list(built, of_mla, mine)


def _table(built: Built, path: str, contexts: Sequence[int]) -> Iterator[Finding]:
    """A plan with a row for each chunk and a column for each request."""
    name = "cu_seq_lens_chunk" if built.has(f"{path}.cu_seq_lens_chunk") else "cu_seq_lens"
    begins = "chunk_starts" if built.has(f"{path}.chunk_starts") else "starts"
    owners = "token_to_batch" if built.has(f"{path}.token_to_batch") else "token_to_seq"
    ends, starts = built.rows(f"{path}.{name}"), built.rows(f"{path}.{begins}")
    if len(ends) != len(starts):
        yield built.finding(
            CHUNKS, KIND, f"{path}.{begins}", f"has {len(starts)} chunks of {len(ends)}"
        )
        return
    gathered = _Gathered()
    room = _room(built, path)
    for number, (until, since) in enumerate(zip(ends, starts, strict=True)):
        lens = gaps(until)
        if len(lens) != len(contexts) or len(since) != len(contexts):
            yield built.finding(
                CHUNKS, KIND, f"{path}.{name}", f"is for {len(lens)} requests, not {len(contexts)}"
            )
            return
        for request, (start, length) in enumerate(zip(since, lens, strict=True)):
            gathered.add(request, start, length)
        yield from _chunk(built, path, number, lens, room)
        yield from _owners(built, f"{path}.{owners}", number, lens)
    for what in gathered.wrong(contexts):
        yield built.finding(CHUNKS, KIND, f"{path}.{begins}", what)
    yield from built.unequal(CHUNKS, KIND, f"{path}.num_chunks", len(ends))


def _chunk(
    built: Built, path: str, number: int, lens: Sequence[int], room: int
) -> Iterator[Finding]:
    """The totals of one chunk, and whether the workspace takes it."""
    total = sum(lens)
    if total > room:
        yield built.finding(
            CHUNKS, "buffer", f"{path}.workspace", f"has {room} rows for a chunk of {total} tokens"
        )
    for name, expected in (
        ("seq_tot", total),
        ("chunk_total_token", total),
        ("total_token_per_batch", total),
        ("max_seq_lens", max(lens)),
    ):
        found = built.numbers(f"{path}.{name}") if built.has(f"{path}.{name}") else None
        if found is not None and found[number : number + 1] != [expected]:
            yield built.finding(
                CHUNKS, KIND, f"{path}.{name}", f"is {shown(found)}, not {expected} for a chunk"
            )
    if built.has(f"{path}.seq_lens"):
        rows = built.rows(f"{path}.seq_lens")
        if number >= len(rows) or rows[number] != list(lens):
            yield built.finding(CHUNKS, KIND, f"{path}.seq_lens", "are not those of its sums")


def _owners(built: Built, path: str, number: int, lens: Sequence[int]) -> Iterator[Finding]:
    if not built.has(path):
        return
    rows = built.rows(path)
    expected = [request for request, length in enumerate(lens) for _ in range(length)]
    if number >= len(rows) or rows[number][: len(expected)] != expected:
        yield built.finding(CHUNKS, "map", path, f"of chunk {number} is not {shown(expected)}")


def _list(built: Built, path: str, contexts: Sequence[int]) -> Iterator[Finding]:
    """A plan in which each chunk names its own requests."""
    gathered = _Gathered()
    room, number = _room(built, path), 0
    while built.below(chunk := f"{path}.chunks.{number}"):
        first, last = built.numbers(f"{chunk}.request_slice")
        ends, starts = built.numbers(f"{chunk}.cu_seq_lens"), built.numbers(f"{chunk}.starts")
        lens = gaps(ends)
        if len(lens) != last - first or len(starts) != last - first:
            yield built.finding(CHUNKS, KIND, f"{chunk}.cu_seq_lens", "is not for its requests")
            return
        for request, (start, length) in enumerate(zip(starts, lens, strict=True), first):
            gathered.add(request, start, length)
        if sum(lens) > room:
            what = f"has {room} rows for a chunk of {sum(lens)} tokens"
            yield built.finding(CHUNKS, "buffer", f"{path}.workspace", what)
        yield from built.unequal(CHUNKS, KIND, f"{chunk}.seq_lens", lens)
        yield from built.unequal(CHUNKS, KIND, f"{chunk}.num_context_tokens", sum(lens))
        yield from built.unequal(CHUNKS, KIND, f"{chunk}.max_seq_len", max(lens))
        mine = [row for row, length in enumerate(lens) for _ in range(length)]
        yield from built.unequal(CHUNKS, "map", f"{chunk}.token_to_seq", mine)
        yield from _queries(built, chunk, first, last)
        number += 1
    for what in gathered.wrong(contexts):
        yield built.finding(CHUNKS, KIND, f"{path}.chunks", what)
    yield from built.unequal(CHUNKS, KIND, f"{path}.context_lens", contexts)


def _queries(built: Built, chunk: str, first: int, last: int) -> Iterator[Finding]:
    """Where the tokens of a chunk's requests are among those of all prefills."""
    split, batch = split_of(built), built.placed.batch
    starts = batch.starts[split.extends :]
    mine = [start - starts[first] for start in starts[first : last + 1]]
    yield from built.unequal(CHUNKS, "length", f"{chunk}.query_start_loc", mine)
    where = [starts[first] - starts[0], starts[last] - starts[0]]
    yield from built.unequal(CHUNKS, "length", f"{chunk}.token_slice", where)


def _room(built: Built, path: str) -> int:
    """Tokens that a workspace holds: [tokens, content], or [2, tokens, heads, head]."""
    shape = built.shape(f"{path}.workspace") if built.has(f"{path}.workspace") else []
    return shape[-3] if len(shape) > 2 else shape[0] if shape else 0


def _window(built: Built, path: str, first: int, last: int) -> Iterator[Finding]:
    """One gather of the last tokens of each request: all that its queries' windows see."""
    window = built.layer["window"]
    if not built.below(path):
        if window and built.below("extend_metadata"):
            yield built.finding(CHUNKS, KIND, path, "is missing for a layer with a window")
        return
    batch = built.placed.batch
    seqs, queries = batch.seq_lens[first:last], batch.query_lens[first:last]
    ends, starts = built.numbers(f"{path}.swa_cu_seqlens"), built.numbers(f"{path}.swa_seq_starts")
    lens = gaps(ends)
    if len(lens) != len(seqs):
        yield built.finding(CHUNKS, KIND, f"{path}.swa_cu_seqlens", "is not for its requests")
        return
    for request, (length, start) in enumerate(zip(lens, starts, strict=True)):
        seq, least = seqs[request], min(seqs[request], queries[request] + window - 1)
        if start + length != seq or length < least:
            what = f"gathers {start} to {start + length} of {seq} tokens; windows need {least}"
            yield built.finding(CHUNKS, KIND, f"{path}.swa_seq_starts", what)
    yield from built.unequal(CHUNKS, KIND, f"{path}.swa_seqlens", lens)
    yield from built.unequal(CHUNKS, KIND, f"{path}.swa_total_tokens", sum(lens))
    yield from built.unequal(CHUNKS, KIND, f"{path}.swa_max_seqlens", max(lens))
    owners = [request for request, length in enumerate(lens) for _ in range(length)]
    yield from built.unequal(CHUNKS, "map", f"{path}.swa_token_to_batch", owners)
    rows = built.shape(f"{path}.swa_workspace")
    if rows and rows[1] < sums(lens)[-1]:
        yield built.finding(CHUNKS, "buffer", f"{path}.swa_workspace", f"has {rows[1]} rows")
