"""The op ``metadata``: what the judge asks of a backend's metadata builder, and what it is told."""

from __future__ import annotations

from typing import Literal, TypedDict, final

from .contract import NumberedMessage, Value


class LayerFields(TypedDict):
    """An attention layer, and the engine around it, whose metadata builder is called.

    ``model_head_size`` and ``model_kv_heads`` are those of the model's configuration, which a layer
    may not share. ``window``: keys that a query sees, itself included (0: all). ``graphs``: whether
    the engine captures full graphs, of ``capture_sizes`` tokens. ``speculative``: draft tokens of a
    request. ``max_reqs``, ``max_tokens`` and ``max_len`` are the scheduler's limits. ``topk``: keys
    that sparse attention chooses. ``at_once``: tokens of a workspace for contexts (0: vLLM's own).
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    model_head_size: int
    model_kv_heads: int
    block_size: int
    dtype: str
    kv_cache_dtype: str
    window: int
    graphs: bool
    capture_sizes: list[int]
    speculative: int
    max_reqs: int
    max_tokens: int
    max_len: int
    topk: int
    at_once: int


class BatchFields(TypedDict):
    """A batch as vLLM's model runner describes it; rows of padding are at its end.

    ``query_start_loc`` has a value more than there are rows; ``slot_mapping`` one for each token,
    padding included. ``prefix``: tokens that all requests share, for cascade attention.
    """

    query_start_loc: list[int]
    seq_lens: list[int]
    block_table: list[list[int]]
    slot_mapping: list[int]
    max_query_len: int
    max_seq_len: int
    is_prefilling: list[bool]
    prefix: int


class StepFields(TypedDict):
    """One call of a builder.

    ``call``: build, capture (``build_for_cudagraph_capture``), draft (``build_for_drafting`` with
    ``draft_index``), or update (``update_block_table`` of the step before, with this batch's).
    """

    call: str
    draft_index: int
    batch: BatchFields


@final
class MetadataMessage(NumberedMessage):
    """Makes a backend's builder for a layer, and its implementation, and calls the builder."""

    op: Literal["metadata"]
    backend: str
    layer: LayerFields
    steps: list[StepFields]


class Seen(TypedDict, total=False):
    """A value of some metadata.

    ``value``: a number, a text, a list of numbers, or None. Of a tensor ``shape``, ``dtype``,
    ``address`` of its first element, ``room``: elements of its storage from there on, ``stride``,
    and ``value`` if it holds few integers or booleans: its elements, flat.
    """

    value: Value | list[Value]
    shape: list[int]
    stride: list[int]
    dtype: str
    address: int
    room: int


# Every value of some metadata by its path, such as ``decode.block_table``, ``chunks.0.starts``.
Fields = dict[str, Seen]


class PlannedCall(TypedDict):
    """A call of aiter that asks for the sizes of its schedule ("sizes"), or fills one ("plan").

    ``arguments`` by the names that aiter has for them.
    """

    step: int
    function: str
    arguments: Fields


class StepAnswer(TypedDict):
    """``raised`` and ``trace``: the builder's error, or empty. ``given``: the batch's tensors after
    the call. ``fields``: the metadata's."""

    raised: str
    trace: str
    fields: Fields
    given: Fields


class MetadataAnswer(TypedDict):
    """What a builder made.

    ``refused``: why this build has no such backend or builder, or does not claim the layer.
    ``constructed``: the error with which the implementation cannot be made, or empty; ``trace`` the
    builder's or its own. ``built``: likewise of the builder. ``threshold``: the query tokens up to
    which a request is a decode, None if the builder does not reorder. ``uniform``: whether decodes
    must have as many as one another. ``graphs``: the name of the builder's support for graphs.
    ``updates``: whether it can replace a block table. ``planned``: what aiter was asked for.
    """

    refused: str
    constructed: str
    built: str
    trace: str
    threshold: int | None
    uniform: bool
    graphs: str
    updates: bool
    steps: list[StepAnswer]
    planned: list[PlannedCall]
