"""A model's attention layers by kind, and each GPU's share of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from conformance.errors import UsageError

Kind = Literal[
    "full",
    "sliding",
    "chunked",
    "mla",
    "sparse MLA",
    "cross",
    "encoder",
    "vision",
    "audio",
    "linear",
    "named by the model",
]
# What the selector is not asked about, and what a tower of its own does.
NOT_ASKED: tuple[Kind, ...] = ("linear", "named by the model")
TOWERS: tuple[Kind, ...] = ("vision", "audio")
IN_WORDS: dict[Kind, str] = {
    "full": "full-attention layers",
    "sliding": "sliding-window layers",
    "chunked": "chunked-attention layers",
    "mla": "latent-attention (MLA) layers",
    "sparse MLA": "sparse latent-attention (MLA) layers",
    "cross": "cross-attention layers",
    "encoder": "encoder layers",
    "vision": "layers of the vision tower",
    "audio": "layers of the audio encoder",
    "linear": "layers without a KV cache (Mamba, linear attention, convolution)",
    "named by the model": "layers whose backend the model's own code names",
}


@dataclass(frozen=True)
class Layers:
    """The layers of a model that are alike.

    ``window`` is in tokens (0: none). ``sinks``, ``alibi`` and ``soft_cap`` are what their logits
    have besides. For MLA ``head_size`` is the latent rank and the rope part, and ``num_kv_heads``
    is 1.
    """

    kind: Kind
    count: int
    head_size: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    window: int = 0
    sinks: bool = False
    alibi: bool = False
    soft_cap: bool = False

    @property
    def gqa_ratio(self) -> int:
        """Query heads to one KV head."""
        return self.num_heads // max(self.num_kv_heads, 1)

    def of_one_gpu(self, tensor_parallel: int) -> Layers:
        """The share of one of ``tensor_parallel`` GPUs; KV heads are repeated where too few.

        A tower is left whole: how it is split changes no choice.

        Raises:
            UsageError: the heads cannot be shared out.
        """
        if self.kind in (*TOWERS, *NOT_ASKED) or tensor_parallel == 1:
            return self
        heads, kv = self.num_heads, self.num_kv_heads
        if heads % tensor_parallel:
            raise UsageError(
                f"--tensor-parallel-size {tensor_parallel}: the model's {heads} query heads cannot "
                f"be shared out; expected one of {_divisors(heads)}"
            )
        if max(kv, tensor_parallel) % min(kv, tensor_parallel):
            raise UsageError(
                f"--tensor-parallel-size {tensor_parallel}: the model's {kv} KV heads can neither "
                f"be shared out nor repeated; expected a divisor or a multiple of {kv}"
            )
        return replace(
            self,
            num_heads=heads // tensor_parallel,
            num_kv_heads=max(1, kv // tensor_parallel),
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


@dataclass(frozen=True)
class Model:
    """What attention depends on in a model.

    ``dtype`` is torch's name, ``max_len`` the longest sequence in tokens (0: unknown).
    ``encoder_only``: it attends without a mask and has no KV cache. ``state_elements`` and
    ``state_float32``: the elements that a layer without a KV cache keeps of one sequence, in the
    model's dtype and in float32; vLLM makes blocks of the cache as large. ``assumed`` are sentences
    on what the reader of a file had to assume.
    """

    name: str
    source: str
    dtype: str
    layers: tuple[Layers, ...]
    max_len: int = 0
    mm_prefix: bool = False
    encoder_decoder: bool = False
    encoder_only: bool = False
    rswa: bool = False
    state_elements: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def hybrid(self) -> bool:
        """Whether some layers have a KV cache and others a state."""
        kinds = {layers.kind for layers in self.layers}
        return "linear" in kinds and len(kinds - set(NOT_ASKED) - set(TOWERS)) > 0
