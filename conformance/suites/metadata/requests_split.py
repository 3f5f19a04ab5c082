"""Which requests of a batch are decodes, goings-on, and new prompts; and what each part is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from conformance.suites.metadata.batches import zip_rows
from conformance.suites.metadata.built import Built, Finding, difference

SPLIT = "MET-005"
KIND = "split"


@dataclass(frozen=True)
class Split:
    """The first row of each part: decodes from 0, then ``extends``, then ``prompts``."""

    extends: int
    prompts: int
    rows: int


def split_of(built: Built) -> Split:
    """Decodes are the first requests with no more tokens than the threshold.

    Where decodes must be uniform, they have as many tokens as the first. Rows of padding go with
    the decodes, which is what a graph has.
    """
    threshold = 1 if built.threshold is None else built.threshold
    rows = list(zip_rows(built.placed.batch))
    first = rows[0][0]
    extends = 0
    for queries, _ in rows:
        alike = queries in (first, 0) or not built.uniform
        if queries > threshold or not alike:
            break
        extends += 1
    prompts = extends
    for _, context in rows[extends:]:
        if context == 0:
            break
        prompts += 1
    return Split(extends, prompts, len(rows))


def findings(built: Built) -> Iterator[Finding]:
    """What is wrong with the numbers of a split, and with the parts' own lengths and tables."""
    if not built.has("num_decodes"):
        return
    if built.call == "draft" and built.has("tree_attn_bias"):
        return  # a tree's root is drafted as a prefill, whatever its length
    split, starts = split_of(built), built.placed.batch.starts
    tokens = built.placed.batch.all_tokens
    in_three = built.has("num_extends")
    decoded = tokens if split.extends == split.rows else starts[split.extends]
    expected = {"num_decodes": split.extends, "num_decode_tokens": decoded}
    if in_three:
        extended = tokens if split.prompts == split.rows else starts[split.prompts]
        expected |= {
            "num_extends": split.prompts - split.extends,
            "num_extend_tokens": extended - decoded,
            "num_prefills": split.rows - split.prompts,
            "num_prefill_tokens": tokens - extended,
        }
    else:
        expected |= {
            "num_prefills": split.rows - split.extends,
            "num_prefill_tokens": tokens - decoded,
        }
    for path, value in expected.items():
        yield from built.unequal(SPLIT, KIND, path, value)
    prefills = split.prompts if in_three else split.extends
    for names, first, last in (
        (("decode", "decode_metadata"), 0, split.extends),
        (("extend_metadata",), split.extends, split.prompts),
        (("prefill", "prefill_metadata"), prefills, split.rows),
    ):
        for name in names:
            yield from _part(built, name, first, last)


def _part(built: Built, name: str, first: int, last: int) -> Iterator[Finding]:
    """What is wrong with one part's metadata, whose requests are the rows ``first`` to ``last``."""
    is_there = built.below(name)
    is_known = any(path == name or path.startswith(f"{name}.") for path in built.fields)
    # ROCM_AITER_MLA_SPARSE's lists are of tokens: it need not have parts of requests.
    is_known = is_known and not built.has("req_id_per_token")
    if is_known and is_there != (first < last):
        was = "is there" if is_there else "is missing"
        yield built.finding(SPLIT, KIND, name, f"{was} for {last - first} requests")
    if not is_there or first == last:
        return
    batch = built.placed.batch
    queries, lens = batch.query_lens[first:last], batch.seq_lens[first:last]
    starts = [start - batch.starts[first] for start in batch.starts[first : last + 1]]
    yield from built.unequal(SPLIT, KIND, f"{name}.query_start_loc", starts)
    yield from _lens(built, f"{name}.seq_lens", lens)
    yield from built.unequal(SPLIT, KIND, f"{name}.query_lens_cpu", queries)
    table = [block for row in built.table[first:last] for block in row]
    yield from built.unequal(SPLIT, "table", f"{name}.block_table", table)
    # An upper bound will do: kernels take it for the size of their grid.
    for path, least in ((f"{name}.max_query_len", queries), (f"{name}.max_seq_len", lens)):
        if built.has(path) and built.number(path) < max(least):
            got = built.number(path)
            yield built.finding(SPLIT, "length", path, f"is {got}, less than {max(least)}")
    path = f"{name}.min_query_len"
    if built.has(path) and built.number(path) > min(q for q in queries if q):
        yield built.finding(
            SPLIT, "length", path, f"is {built.number(path)}, more than a request's"
        )


def _lens(built: Built, path: str, lens: list[int]) -> Iterator[Finding]:
    """Of padding any length will do: a kernel may need a request to have keys."""
    if not built.has(path):
        return
    found, real = built.numbers(path), len(built.placed.batch.queries)
    if len(found) != len(lens) or found[:real] != lens[:real]:
        yield built.finding(SPLIT, KIND, path, difference(found, lens))
