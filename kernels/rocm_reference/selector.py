"""The selector of the specification: which attention backend a request gets, and why.

Written from vLLM pull request 36702 (https://github.com/vllm-project/vllm/pull/36702) and the
releases named in ``capabilities/``. The tables hold everything that differs between releases;
this module holds the rules that do not:

1. An explicit backend is validated and taken as asked, or it is an error; it is never replaced.
2. Otherwise the candidates of the request's family (dense, MLA, sparse) are validated in order;
   the first without a reason against it is selected; if there is none, it is an error.
3. Validation names every reason, in a fixed order and in vLLM's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from vllm_editions import Backend, Edition, ListEntry

NO_VALID_BACKEND = "no_valid_backend"
INVALID_SELECTED_BACKEND = "invalid_selected_backend"
UNSUPPORTED_VIT_BACKEND = "unsupported_vit_backend"

# The engine option of vLLM 0.18 that puts ROCM_ATTN on the list.
OPTION = "use_prefill_decode_attention"

CUSTOM_KERNEL = "custom"
TRITON_KERNEL = "triton"


class RequestLike(Protocol):
    """The fields of vLLM's ``AttentionSelectorConfig``, and the engine option of 0.18."""

    @property
    def head_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def kv_cache_dtype(self) -> str | None: ...
    @property
    def block_size(self) -> int | None: ...
    @property
    def use_mla(self) -> bool: ...
    @property
    def has_sink(self) -> bool: ...
    @property
    def use_sparse(self) -> bool: ...
    @property
    def use_mm_prefix(self) -> bool: ...
    @property
    def use_per_head_quant_scales(self) -> bool: ...
    @property
    def attn_type(self) -> str: ...
    @property
    def use_prefill_decode_attention(self) -> bool: ...


class PagedAttentionLike(Protocol):
    """What ROCM_ATTN knows when it chooses its decode kernel. ``sliding_window`` 0: none."""

    @property
    def dtype(self) -> str: ...
    @property
    def head_size(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def gqa_ratio(self) -> int: ...
    @property
    def max_seq_len(self) -> int: ...
    @property
    def sliding_window(self) -> int: ...
    @property
    def kv_cache_dtype(self) -> str: ...
    @property
    def alibi(self) -> bool: ...
    @property
    def sinks(self) -> bool: ...


class Verdict(NamedTuple):
    """A candidate and the reasons against it; none: it is valid."""

    backend: str
    reasons: tuple[str, ...]


class Decision(NamedTuple):
    """The selected backend, or an error code; and every candidate in the order it was tried."""

    selected: str | None
    candidates: tuple[Verdict, ...]
    error: str | None = None
    message: str = ""


class Selector:
    """The selector as it stands on one machine: conditions that never change are settled once."""

    def __init__(
        self,
        edition: Edition,
        target: str,
        *,
        aiter: bool = False,
        flash_attn: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.edition = edition
        self.target = target
        self._facts = _facts(edition, target, aiter, flash_attn, env or {})
        self._env = dict(env or {})
        self._backends = edition.backends
        self._wrong_target = {
            name: backend.only_on is not None and not edition.in_class(target, backend.only_on)
            for name, backend in edition.backends.items()
        }
        lists = edition.candidates
        self._lists = {
            (family, split): self._settle(entries, split)
            for family, entries in (
                ("dense", lists.dense),
                ("mla", lists.mla),
                ("sparse", lists.sparse),
            )
            for split in (False, True)
        }

    def candidates(self, request: RequestLike) -> tuple[str, ...]:
        """The backends an automatic choice looks at, best first."""
        family = "sparse" if request.use_sparse else "mla" if request.use_mla else "dense"
        return self._lists[family, request.use_prefill_decode_attention]

    def left_out(self, request: RequestLike) -> dict[str, tuple[str, ...]]:
        """The backends of the request's family that are not candidates here, and what they need."""
        lists = self.edition.candidates
        entries = (
            lists.sparse if request.use_sparse else lists.mla if request.use_mla else lists.dense
        )
        facts = {**self._facts, OPTION: request.use_prefill_decode_attention}
        return {
            entry.backend: tuple(self._need(c) for c in entry.when if not facts[c])
            for entry in entries
            if not all(facts[c] for c in entry.when)
        }

    def _need(self, condition: str) -> str:
        if condition == "aiter_supported":
            on = "/".join(self.edition.classes[self.edition.selection.aiter_supported_on])
            return f"aiter installed, on {on}"
        return f"{condition}=1" if condition in self.edition.flags else condition

    def select(self, request: RequestLike, backend: str | None = None) -> Decision:
        """Answers a request; ``backend`` is the user's explicit choice.

        Raises:
            KeyError: the edition has no backend of that name.
        """
        if backend is not None:
            return self._explicit(request, backend)
        verdicts = tuple(
            Verdict(name, self.reasons(name, request)) for name in self.candidates(request)
        )
        for name, reasons in verdicts:
            if not reasons:
                return Decision(name, verdicts)
        why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in verdicts)
        message = f"no attention backend is valid for this request on {self.target}: {why}"
        return Decision(None, verdicts, NO_VALID_BACKEND, message)

    def _explicit(self, request: RequestLike, backend: str) -> Decision:
        reasons = self.reasons(backend, request)
        verdicts = (Verdict(backend, reasons),)
        if not reasons:
            return Decision(backend, verdicts)
        message = f"{backend} was asked for but is not valid here: {', '.join(reasons)}"
        return Decision(None, verdicts, INVALID_SELECTED_BACKEND, message)

    def reasons(self, name: str, request: RequestLike) -> tuple[str, ...]:
        """Every reason against a backend, in vLLM's order and words; empty: it is valid."""
        backend = self._backends[name]
        checked = self.edition.selection.block_size_checked
        found = [
            *_shape_reasons(backend, request, checked),
            *_feature_reasons(backend, request),
        ]
        if self._wrong_target[name]:
            found.append("compute capability not supported")
        if request.attn_type not in backend.attn_types:
            found.append(f"attention type {request.attn_type} not supported")
        return tuple(found)

    def paged_attention(self, request: PagedAttentionLike) -> str:
        """ROCM_ATTN's inner choice: the custom HIP kernel, or Triton's."""
        for name, rule in self.edition.paged_attention.items():
            if self.edition.in_class(self.target, name):
                low, high = rule.gqa_ratio
                applies = (
                    all(self._facts[condition] for condition in rule.when)
                    and request.sliding_window == 0
                    and request.dtype in rule.dtypes
                    and request.head_size in rule.head_sizes
                    and request.block_size in rule.block_sizes
                    and low <= request.gqa_ratio <= high
                    and request.max_seq_len <= rule.max_seq_len
                    and (rule.alibi or not request.alibi)
                    and (
                        rule.kv_cache_dtypes is None
                        or request.kv_cache_dtype in rule.kv_cache_dtypes
                    )
                    and not request.sinks
                )
                return CUSTOM_KERNEL if applies else TRITON_KERNEL
        return TRITON_KERNEL

    def vit(self, dtype: str, backend: str | None = None) -> Decision:
        """The backend of a vision tower, which vLLM chooses apart from the decoder's."""
        vit = self.edition.vit
        if backend is not None:
            if backend in vit.explicit:
                return Decision(backend, (Verdict(backend, ()),))
            allowed = ", ".join(vit.explicit)
            message = f"{backend} does not serve vision attention; allowed: {allowed}"
            return Decision(None, (), UNSUPPORTED_VIT_BACKEND, message)
        for rule in vit.rules:
            here = rule.only_on is None or self.edition.in_class(self.target, rule.only_on)
            typed = rule.dtypes is None or dtype in rule.dtypes
            if here and typed and all(self._condition(c) for c in rule.when):
                return Decision(rule.backend, (Verdict(rule.backend, ()),))
        return Decision(None, (), NO_VALID_BACKEND, "no rule of the vision choice applies")

    def _condition(self, condition: str) -> bool:
        name, equals, value = condition.partition("=")
        return self._env.get(name) == value if equals else self._facts[condition]

    def _settle(self, entries: tuple[ListEntry, ...], split: bool) -> tuple[str, ...]:
        facts = {**self._facts, OPTION: split}
        return tuple(e.backend for e in entries if all(facts[c] for c in e.when))


def _facts(
    edition: Edition, target: str, aiter: bool, flash_attn: bool, env: Mapping[str, str]
) -> dict[str, bool]:
    flags = {
        name: env[name].lower() in ("1", "true") if name in env else default
        for name, default in edition.flags.items()
    }
    supported = aiter and edition.in_class(target, edition.selection.aiter_supported_on)
    return {**flags, "aiter_supported": supported, "flash_attn": flash_attn}


def _shape_reasons(backend: Backend, request: RequestLike, block_size_checked: bool) -> list[str]:
    found = []
    head_size = request.head_size
    listed = backend.head_sizes is None or head_size in backend.head_sizes
    if not listed or head_size < backend.min_head_size:
        found.append("head_size not supported")
    if request.dtype not in backend.dtypes:
        found.append("dtype not supported")
    kv_cache_dtype = request.kv_cache_dtype
    if kv_cache_dtype is not None and kv_cache_dtype not in backend.kv_cache_dtypes:
        found.append("kv_cache_dtype not supported")
    block_size = request.block_size
    if (
        block_size_checked
        and block_size is not None
        and backend.block_sizes
        and all(block_size % base for base in backend.block_sizes)
    ):
        found.append("block_size not supported")
    return found


def _feature_reasons(backend: Backend, request: RequestLike) -> list[str]:
    found = []
    if request.use_mm_prefix and not backend.mm_prefix:
        found.append("partial multimodal token full attention not supported")
    if request.use_mla != backend.mla:
        found.append("MLA not supported" if request.use_mla else "non-MLA not supported")
    if request.has_sink and not backend.sinks:
        found.append("attention sinks not supported")
    if request.use_sparse != backend.sparse:
        found.append("sparse not supported" if request.use_sparse else "non-sparse not supported")
    if request.use_per_head_quant_scales and not backend.per_head_quant_scales:
        found.append("per-head quant scales not supported")
    return found
