"""Platforms, requests and selections: what the suite asks and what subjects answer.

The fields of a request are those of vLLM's ``AttentionSelectorConfig``
(https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/v1/attention/selector.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar

# pydantic refuses unknown fields and values of another type.
_READING = {"extra": "forbid", "strict": True}

REMOVED_VARIABLE = "VLLM_ROCM_CUSTOM_PAGED_ATTN"
AITER = "VLLM_ROCM_USE_AITER"
MHA = "VLLM_ROCM_USE_AITER_MHA"

DTYPES = ("float16", "bfloat16", "float32", "float64")
ATTN_TYPES = ("decoder", "encoder", "encoder_only", "encoder_decoder")


@dataclass(frozen=True)
class Platform:
    """What the selector sees of a machine.

    ``aiter`` and ``flash_attn`` say whether those packages can be imported; ``env`` holds the
    environment variables that are set, as sorted pairs, so that platforms are hashable.
    """

    target: str
    aiter: bool = False
    flash_attn: bool = False
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def make(
        cls,
        target: str,
        *,
        aiter: bool = False,
        flash_attn: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Platform:
        return cls(target, aiter, flash_attn, tuple(sorted((env or {}).items())))

    def with_env(self, extra: Mapping[str, str]) -> Platform:
        """The same machine with more variables set."""
        return Platform.make(
            self.target,
            aiter=self.aiter,
            flash_attn=self.flash_attn,
            env={**dict(self.env), **extra},
        )

    @property
    def variables(self) -> dict[str, str]:
        return dict(self.env)

    def __str__(self) -> str:
        packages = "".join(f"+{name}" for name in ("aiter", "flash_attn") if getattr(self, name))
        variables = "".join(f" {name}={value}" for name, value in self.env)
        return f"{self.target}{packages}{variables}"

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "aiter": self.aiter,
            "flash_attn": self.flash_attn,
            "env": self.variables,
        }


@dataclass(frozen=True)
class Request:
    """One question to the selector, with the fields of vLLM's ``AttentionSelectorConfig``.

    ``dtype`` is torch's name of the query dtype (``float16``), ``kv_cache_dtype`` vLLM's name of
    the cache dtype, ``block_size`` in tokens or None if the user gave none.

    The last three are not in vLLM's class: some releases read them from the engine's configuration
    (``CONTEXT``). ``use_prefill_decode_attention`` is the option of that name (0.18);
    ``encoder_decoder_model`` says that the model is one (0.26 on); ``run_kv_cache_dtype`` is the
    KV-cache dtype of the run, which single layers may not have (0.31 on).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _READING

    head_size: int = 128
    dtype: str = "float16"
    kv_cache_dtype: str | None = "auto"
    block_size: int | None = 16
    use_mla: bool = False
    has_sink: bool = False
    use_sparse: bool = False
    use_mm_prefix: bool = False
    use_per_head_quant_scales: bool = False
    attn_type: str = "decoder"
    has_sliding_window: bool = False
    use_non_causal: bool = False
    use_batch_invariant: bool = False
    use_kv_connector: bool = False
    use_pcp: bool = False
    use_adaptive_verification: bool = False
    use_dcp: bool = False
    use_rswa: bool = False
    use_prefill_decode_attention: bool = False
    encoder_decoder_model: bool = False
    run_kv_cache_dtype: str = "auto"


# The fields that are part of the engine's configuration.
CONTEXT = ("use_prefill_decode_attention", "encoder_decoder_model", "run_kv_cache_dtype")


@dataclass(frozen=True)
class PagedAttention:
    """Asks which kernel ROCM_ATTN decodes with: its custom HIP kernel or the Triton kernel.

    ``gqa_ratio`` is query heads per KV head, ``max_seq_len`` and ``sliding_window`` are in tokens
    (window 0: none).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _READING

    dtype: str = "float16"
    head_size: int = 128
    block_size: int = 16
    gqa_ratio: int = 8
    max_seq_len: int = 4096
    sliding_window: int = 0
    kv_cache_dtype: str = "auto"
    alibi: bool = False
    sinks: bool = False


@dataclass(frozen=True)
class Vit:
    """Asks for the attention backend of a vision tower."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _READING

    head_size: int = 80
    dtype: str = "float16"


Question = Request | PagedAttention | Vit


@dataclass(frozen=True)
class Ask:
    """A question, and the backend that the user asks for explicitly, if any."""

    question: Question
    backend: str | None = None


REQUEST_FIELDS = tuple(f.name for f in fields(Request))


@dataclass(frozen=True)
class Candidate:
    """A backend the selector considered, and why it was rejected (empty: it is valid)."""

    backend: str
    rejected: tuple[str, ...] = ()


@lru_cache(maxsize=1 << 16)
def candidate(backend: str, rejected: tuple[str, ...]) -> Candidate:
    """A candidate, made once: a sweep compares millions, and few of them differ."""
    return Candidate(backend, rejected)


@dataclass(frozen=True)
class Selection:
    """The answer: a backend or an error, and every candidate in the order considered.

    ``error`` is ``no_valid_backend``, ``invalid_selected_backend``, ``unsupported_vit_backend``
    or ``crash``; ``message`` is the subject's own text.
    """

    selected: str | None
    candidates: tuple[Candidate, ...] = ()
    error: str | None = None
    message: str = field(default="", compare=False)

    def as_json(self) -> dict[str, Any]:
        candidates = [{"backend": c.backend, "rejected": list(c.rejected)} for c in self.candidates]
        if self.error is None:
            return {"selected": self.selected, "candidates": candidates}
        return {"error": self.error, "message": self.message, "candidates": candidates}
