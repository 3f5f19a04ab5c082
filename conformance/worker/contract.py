"""What the worker and the judge share: the protocol's messages and answers.

The judge imports this module, ``metadata_contract``, ``other_kernels`` and nothing else of the
worker; the worker, which runs in the subject's own Python, imports it as
``conformance_worker.contract``. So the three need the standard library alone, and Python 3.10.

A message is a JSON object on one line: an ``id``, an ``op`` and the op's own fields. The answer
repeats the ``id`` and holds either ``ok``, the op's answer, or ``error``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypedDict, final

PROTOCOL = 1
# The environment variable that names the device of a worker that runs kernels: it must be known
# before Triton and vLLM are imported.
DEVICE = "ROCM_CONFORMANCE_DEVICE"
# Those that say where the sources of a vLLM's HIP kernels are, and where compiled code is kept.
HIP_SOURCES = "ROCM_CONFORMANCE_HIP_SOURCES"
HIP_CACHE = "ROCM_CONFORMANCE_HIP_CACHE"
# That which says into which file lines are noted (a JSON object of every file's lines that the last
# problem ran), and the module in which the subject's files mark those that they run.
LINES_TO = "ROCM_CONFORMANCE_LINES_TO"
LINES_MODULE = "rocm_conformance_lines"

Selecting = Literal["attention", "paged_attention", "vit"]
Stating = Literal["start", "variable", "environment", "describe"]
Op = Selecting | Stating | Literal["attend", "compile", "metadata", "cpu", "bare", "stop"]
Value = str | int | float | bool | None


class PlatformFields(TypedDict):
    """What a selector sees of a machine; ``env`` is set on top of an empty environment."""

    target: str
    aiter: bool
    flash_attn: bool
    env: dict[str, str]


class NumberedMessage(TypedDict):
    """What all messages have: an ``id``, chosen by the judge."""

    id: int


class StartMessage(NumberedMessage):
    """Opens a session: one subject on one platform.

    The classes of ``backends`` must be importable before anything is asked, because vLLM would
    count one that is not as a rejected backend.
    """

    op: Literal["start"]
    protocol: int
    platform: PlatformFields
    simulate: Literal["auto", "always", "never"]
    backends: list[str]


class Questions(NumberedMessage):
    """Questions of one kind: a row for each, with a value for each of ``fields``."""

    fields: list[str]
    rows: list[list[Value]]


class SelectMessage(Questions):
    """Which backend is selected; of ``paged_attention`` which kernel ROCM_ATTN decodes with."""

    op: Selecting


class BareMessage(Questions):
    """How long the subject's own calls take for these questions."""

    op: Literal["bare"]


class VariableMessage(NumberedMessage):
    """What the subject knows about these environment variables."""

    op: Literal["variable"]
    names: list[str]


class EnvironmentMessage(NumberedMessage):
    """Changes the platform's variables, as if the session had been opened with these."""

    op: Literal["environment"]
    env: dict[str, str]


class DescribeMessage(NumberedMessage):
    """What the classes of these backends say that they support."""

    op: Literal["describe"]
    backends: list[str]


class PlainMessage(NumberedMessage):
    """``cpu`` asks for the processor time that the session has used; ``stop`` ends it."""

    op: Literal["cpu", "stop"]


class ProblemFields(TypedDict):
    """An attention computation, as far as the worker reads ``conformance.problems.Problem``.

    ``wants_lse``: whether the log-sum-exp is computed too. ``cache_filling``: what unused slots of
    the cache hold instead of poison ("zero"), or empty. ``lanes_off``: what lanes that are off
    bring to a matrix product instead of what their registers hold ("zero"), or empty. ``tags``:
    marks that tests use.
    """

    kind: str
    backend: str
    query_lens: list[int]
    context_lens: list[int]
    key_lens: list[int] | None
    num_heads: int
    num_kv_heads: int
    head_size: int
    key_size: int
    v_head_size: int
    latent_rank: int
    dtype: str
    kv_cache_dtype: str
    block_size: int
    num_blocks: int
    softmax_scale: float
    k_scale: float
    v_scale: float
    causal: bool
    window: list[int]
    soft_cap: float
    alibi: str
    sinks: bool
    mm_prefix: list[list[list[int]]]
    prompts: list[int]
    tree: list[int]
    interleaved: bool
    topk: int
    row_pad: int
    head_pad: int
    block_pad: int
    at_once: int
    pieces: int
    order: str
    seed: int
    poison: str
    cache_filling: str
    lanes_off: str
    wants_lse: bool
    tags: list[str]


class _OneProblem(NumberedMessage):
    """``tensors`` and ``output`` are files of ``torch.save``: the inputs and the results."""

    problem: ProblemFields
    tensors: str
    output: str


class AttendMessage(_OneProblem):
    """Computes a problem."""

    op: Literal["attend"]


@final
class CompileProblemMessage(_OneProblem):
    """Compiles the kernels of a problem."""

    op: Literal["compile"]


class CallFields(TypedDict):
    """The fields of a :class:`Call`."""

    op: str
    dtype: str
    head_size: int
    heads: int
    kv_heads: int
    block_size: int
    kv_dtype: str
    sequences: tuple[tuple[int, int], ...]
    window: int
    soft_cap: float
    sinks: bool
    seed: int


@final
class CompileCallMessage(NumberedMessage):
    """Compiles the kernels of one call of a vLLM op."""

    op: Literal["compile"]
    call: CallFields


CompileMessage = CompileProblemMessage | CompileCallMessage


class _Named(TypedDict):
    """What every subject says of itself; ``version`` may be empty."""

    subject: str
    version: str
    simulated: bool


class StartAnswer(_Named, total=False):
    """What the subject turned out to be.

    ``root``: the folder of its package. ``python``, ``torch``, ``triton``: versions. ``fields``:
    the fields of a request that its selector takes. ``missing_backends``: those of the message
    that it does not have. ``device``: what runs its kernels.
    """

    root: str | None
    python: str
    torch: str
    triton: str
    fields: list[str]
    missing_backends: list[str]
    device: str


# (selected, error, ((backend, reasons), ...)): hashable, because most answers are equal.
Choice = tuple[str | None, str | None, tuple[tuple[str, tuple[str, ...]], ...]]


class SelectAnswer(TypedDict):
    """Each distinct choice once, the index of one for each row, and the texts of errors by row."""

    outcomes: list[Choice]
    answers: list[int]
    messages: dict[int, str]


class Variable(TypedDict):
    """``value``: Python's repr of it, or None where reading it raises AttributeError."""

    registered: bool
    value: str | None


class VariablesAnswer(TypedDict):
    variables: dict[str, Variable]


class BackendDescription(TypedDict):
    """What a backend's class says that it supports.

    ``inherited`` names the aspects that it takes from a class between itself and the common base.
    """

    dtypes: list[str]
    kv_cache_dtypes: list[str]
    block_sizes: list[str]
    head_sizes: list[str]
    supported_head_sizes: list[int]
    sinks: bool
    sparse: bool
    mm_prefix: bool
    mla: bool
    attn_types: list[str]
    inherited: list[str]


class DescribeAnswer(TypedDict):
    backends: dict[str, BackendDescription]


class SecondsAnswer(TypedDict):
    seconds: float


# A kernel that was compiled, as ``conformance.devices.collect`` reports it.
KernelReport = Mapping[str, object]


class _Attended(TypedDict):
    """What happened to a problem.

    ``dispatch``: the kernels that ran. ``violations``: sentences about memory that was written
    and must not be. ``raised`` and ``trace``: the backend's error, or empty. ``refused``: why the
    backend is not to be given the problem, or empty.
    """

    dispatch: list[str]
    violations: list[str]
    raised: str
    trace: str
    refused: str
    seconds: float


class AttendAnswer(_Attended, total=False):
    """``emulated``: what the emulator ran, or what was compiled where nothing runs."""

    emulated: list[KernelReport]


class _Compiled(TypedDict):
    """``failed`` and ``trace``: the error, or empty."""

    failed: str
    trace: str
    kernels: list[KernelReport]


class CompileAnswer(_Compiled, total=False):
    """``refused``: why the subject does not claim to have these kernels."""

    refused: str


class Error(TypedDict, total=False):
    """``kind``: other_machine, out_of_memory, usage, worker or internal (then with a traceback)."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Call:
    """One configuration of one of vLLM's ops, for ``compile``.

    ``sequences`` are (query tokens, keys) pairs; ``window`` counts the keys a query sees, itself
    included (0: all); ``kv_dtype`` is "auto" or "fp8", which means the platform's own encoding.
    """

    op: str
    dtype: str = "float16"
    head_size: int = 128
    heads: int = 4
    kv_heads: int = 2
    block_size: int = 16
    kv_dtype: str = "auto"
    sequences: tuple[tuple[int, int], ...] = ((5, 37), (1, 21))
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    seed: int = 0

    @classmethod
    def from_json(cls, fields: CallFields) -> Call:
        """The call of a message, in which JSON made lists of the tuples."""
        call = cls(**fields)
        return replace(call, sequences=tuple((q, keys) for q, keys in call.sequences))

    @property
    def name(self) -> str:
        """The op, the dtype, the head size, and every field that is not at its default."""
        default = Call(self.op)
        changed = {k: v for k, v in asdict(self).items() if v != getattr(default, k)}
        shown = {"dtype": self.dtype, "head_size": self.head_size, **changed}
        return f"{self.op}[{','.join(f'{k}={v}' for k, v in shown.items() if k != 'op')}]"


def lacks_memory(error: Exception) -> bool:
    """Whether an error of torch, Triton or a GPU's library says that its memory is used up."""
    text = str(error)
    torchs_own = type(error).__name__ == "OutOfMemoryError"  # by name: torch is not imported here
    return torchs_own or "out of memory" in text or "ALLOC_FAILED" in text
