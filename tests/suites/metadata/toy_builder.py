"""An honest metadata builder of the tests' own, for answers without a vLLM: lists and numbers.

It makes what a builder of ROCM_AITER_MLA makes, with parts of others': per-token maps, cascade
attention, partial results, and with ``in_three`` the split and the chunks of ROCM_AITER_FA.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from conformance.suites.metadata.asked import Question, Step
from conformance.suites.metadata.batches import Placed, zip_rows
from conformance.suites.metadata.built import sums
from conformance.worker.contract import Value
from conformance.worker.metadata_contract import (
    Fields,
    MetadataAnswer,
    PlannedCall,
    Seen,
    StepAnswer,
)

WORKSPACE = 64


def answer(question: Question, *, in_three: bool = False) -> MetadataAnswer:
    """What an honest builder makes of a question's steps."""
    threshold = question.layer["speculative"] + 1
    made: MetadataAnswer = {
        "refused": "",
        "constructed": "",
        "built": "",
        "trace": "",
        "threshold": threshold,
        "uniform": False,
        "graphs": "UNIFORM_BATCH",
        "updates": True,
        "steps": [],
        "planned": [_sizes(question)],
    }
    for number, step in enumerate(question.steps):
        built = _Made(step, threshold, in_three=in_three).fields()
        made["steps"].append(_step(built))
        if "decode.qo_indptr" in built:
            made["planned"].append(_plan(number, built, question.layer["num_heads"]))
    return made


class _Made:
    """The fields of one step."""

    def __init__(self, step: Step, threshold: int, *, in_three: bool) -> None:
        self._step = step
        self._at: Placed = step.placed
        self._in_three = in_three
        batch = step.placed.batch
        rows = list(zip_rows(batch))
        self._decodes = next((i for i, (q, _) in enumerate(rows) if q > threshold), len(rows))
        later = rows[self._decodes :]
        self._extends = next((i for i, (_, c) in enumerate(later) if c == 0), len(later))
        self._prefills = self._decodes + (self._extends if in_three else 0)

    def fields(self) -> Fields:
        made = {**self._whole(), **self._maps(), **self._cascade(), **self._buffers()}
        made |= self._split()
        if self._decodes:
            made |= self._pages()
        return made

    def _whole(self) -> Fields:
        batch = self._at.batch
        return {
            "num_reqs": {"value": batch.rows},
            "num_actual_tokens": {"value": batch.all_tokens},
            "max_query_len": {"value": max(batch.query_lens)},
            "max_seq_len": {"value": max(batch.seq_lens)},
            "query_start_loc": ints("query_start_loc", batch.starts),
            "seq_lens": ints("seq_lens", batch.seq_lens),
            "block_table": grid("block_table", self._at.table),
            "slot_mapping": {**ints("slot_mapping", self._at.slots), "dtype": "int64"},
        }

    def _maps(self) -> Fields:
        batch = self._at.batch
        padding = batch.all_tokens - batch.real_tokens
        rows = list(enumerate(zip_rows(batch)))
        owners = [row for row, (queries, _) in rows for _ in range(queries)]
        keys = [context + i + 1 for _, (queries, context) in rows for i in range(queries)]
        return {
            "req_id_per_token": ints("req_id_per_token", [*owners, *[0] * padding]),
            "q_to_klen": ints("q_to_klen", [*keys, *[0] * padding]),
        }

    def _cascade(self) -> Fields:
        batch = self._at.batch
        made: Fields = {
            "use_cascade": {"value": batch.prefix > 0},
            "common_prefix_len": {"value": batch.prefix},
        }
        if batch.prefix:
            rest = [length - batch.prefix for length in batch.seq_lens]
            made |= {
                "cu_prefix_query_lens": ints("cu_prefix", [0, batch.real_tokens]),
                "prefix_kv_lens": ints("prefix", [batch.prefix]),
                "suffix_kv_lens": ints("suffix", rest),
            }
        return made

    def _buffers(self) -> Fields:
        layer = self._at.layer
        sizes = [layer["max_reqs"], layer["num_heads"], 16]
        return {
            "seq_threshold_3D": {"value": layer["max_reqs"]},
            "num_par_softmax_segments": {"value": 16},
            "softmax_segm_output": floats("out", [*sizes, layer["head_size"]]),
            "softmax_segm_max": floats("max", sizes),
            "softmax_segm_expsum": floats("sum", sizes),
            **{name: ints(name, [0]) for name in SCHEDULE},
        }

    def _split(self) -> Fields:
        batch = self._at.batch
        rows, tokens = batch.rows, batch.all_tokens
        first, last = self._decodes, self._prefills
        decoded = tokens if first == rows else batch.starts[first]
        extended = tokens if last == rows else batch.starts[last]
        made: Fields = {
            "num_decodes": {"value": first},
            "num_decode_tokens": {"value": decoded},
            "num_prefills": {"value": rows - last},
            "num_prefill_tokens": {"value": tokens - extended},
        }
        if self._in_three:
            made["num_extends"] = {"value": last - first}
            made["num_extend_tokens"] = {"value": extended - decoded}
            if last > first:
                path = "extend_metadata.chunk_context_metadata"
                made |= self._part("extend_metadata", first, last)
                made |= self._chunks(path, first, last, ("cu_seq_lens_chunk", "chunk_starts"))
                made |= self._window(f"{path}.swa_metadata", first, last)
        elif any(context for _, context in list(zip_rows(batch))[first:]):
            path = "prefill.chunked_context"
            made |= self._chunks(path, first, rows, ("cu_seq_lens", "starts"))
        name = "prefill_metadata" if self._in_three else "prefill"
        return made | (self._part(name, last, rows) if last < rows else {})

    def _part(self, name: str, first: int, last: int) -> Fields:
        batch = self._at.batch
        starts = [start - batch.starts[first] for start in batch.starts[first : last + 1]]
        return {
            f"{name}.query_start_loc": ints(f"{name}.starts", starts),
            f"{name}.max_query_len": {"value": max(batch.query_lens[first:last])},
            f"{name}.block_table": grid(f"{name}.table", self._at.table[first:last]),
        }

    def _chunks(self, path: str, first: int, last: int, names: tuple[str, str]) -> Fields:
        rows = list(zip_rows(self._at.batch))[first:last]
        most = WORKSPACE // len(rows)
        count = -(-max(context for _, context in rows) // most)
        starts = [[number * most] * len(rows) for number in range(count)]
        lens = [[min(most, max(0, context - start[0])) for _, context in rows] for start in starts]
        owners = [[row for row, n in enumerate(chunk) for _ in range(n)] for chunk in lens]
        width = max(map(len, owners))
        head = self._at.layer["head_size"]
        return {
            f"{path}.{names[0]}": grid(f"{path}.ends", [sums(chunk) for chunk in lens]),
            f"{path}.{names[1]}": grid(f"{path}.starts", starts),
            f"{path}.seq_tot": {"value": [sum(chunk) for chunk in lens]},
            f"{path}.max_seq_lens": {"value": [max(chunk) for chunk in lens]},
            f"{path}.token_to_seq": grid(
                f"{path}.owners", [[*row, *[0] * (width - len(row))] for row in owners]
            ),
            f"{path}.workspace": floats(f"{path}.workspace", [WORKSPACE, head]),
        }

    def _window(self, path: str, first: int, last: int) -> Fields:
        window, batch = self._at.layer["window"], self._at.batch
        if not window:
            return {}
        pairs = zip(batch.seq_lens[first:last], batch.query_lens[first:last], strict=True)
        lens = [min(seq, queries + window - 1) for seq, queries in pairs]
        seqs = batch.seq_lens[first:last]
        starts = [seq - length for seq, length in zip(seqs, lens, strict=True)]
        owners = [row for row, length in enumerate(lens) for _ in range(length)]
        return {
            f"{path}.swa_cu_seqlens": ints(f"{path}.ends", sums(lens)),
            f"{path}.swa_seq_starts": ints(f"{path}.starts", starts),
            f"{path}.swa_token_to_batch": ints(f"{path}.owners", owners),
            f"{path}.swa_total_tokens": {"value": sum(lens)},
            f"{path}.swa_max_seqlens": {"value": max(lens)},
        }

    def _pages(self) -> Fields:
        batch, count = self._at.batch, self._decodes
        lens = batch.seq_lens[:count]
        slots = [self._at.slot(row, i) for row, length in enumerate(lens) for i in range(length)]
        return {
            "decode.block_table": grid("block_table", self._at.table[:count]),
            "decode.seq_lens": ints("seq_lens", lens),
            "decode.qo_indptr": ints("qo_indptr", batch.starts[: count + 1]),
            "decode.paged_kv_indptr": ints("indptr", sums(lens)),
            "decode.paged_kv_indices": ints("indices", [*slots, *[0] * (4096 - len(slots))]),
            "decode.paged_kv_last_page_len": ints("last", [1] * count),
            "decode.max_qo_len": {"value": max(batch.query_lens[:count])},
        }


SCHEDULE = {
    "work_meta_data": "work_metadata_ptrs",
    "work_indptr": "work_indptr",
    "work_info_set": "work_info_set",
    "reduce_indptr": "reduce_indptr",
    "reduce_final_map": "reduce_final_map",
    "reduce_partial_map": "reduce_partial_map",
}


def ints(buffer: str, values: Sequence[int]) -> Seen:
    """A tensor of one axis at the beginning of a buffer that has a name."""
    elements: list[Value] = list(values)
    return {
        "value": elements,
        "shape": [len(values)],
        "dtype": "int32",
        "address": crc32(buffer.encode()),
        "room": 1 << 16,
    }


def grid(buffer: str, rows: Sequence[Sequence[int]]) -> Seen:
    flat = [each for row in rows for each in row]
    return {**ints(buffer, flat), "shape": [len(rows), len(rows[0])]}


def floats(buffer: str, shape: list[int]) -> Seen:
    return {"shape": shape, "dtype": "float32", "address": crc32(buffer.encode()), "room": 1 << 16}


def _step(fields: Fields) -> StepAnswer:
    given = {name: fields[name] for name in ("query_start_loc", "seq_lens", "slot_mapping")}
    given["block_table_tensor"] = fields["block_table"]
    return {"raised": "", "trace": "", "fields": fields, "given": dict(given)}


def _sizes(question: Question) -> PlannedCall:
    layer = question.layer
    asked: Fields = {
        "batch_size": {"value": layer["max_reqs"]},
        "max_seqlen_qo": {"value": layer["speculative"] + 1},
        "num_head_qo": {"value": layer["num_heads"]},
    }
    return {"step": -1, "function": "sizes", "arguments": asked}


def _plan(number: int, fields: Fields, heads: int) -> PlannedCall:
    told: Fields = {
        "seqlens_qo_indptr": fields["decode.qo_indptr"],
        "seqlens_kv_indptr": fields["decode.paged_kv_indptr"],
        "kv_last_page_lens": fields["decode.paged_kv_last_page_len"],
        "num_heads_per_head_k": {"value": heads},
        "max_seqlen_qo": fields["decode.max_qo_len"],
        **{theirs: fields[mine] for mine, theirs in SCHEDULE.items()},
    }
    return {"step": number, "function": "plan", "arguments": told}
