"""The selector of the specification: which attention backend a request gets, and why.

Written from vLLM pull request 36702 (https://github.com/vllm-project/vllm/pull/36702) and the
releases named in ``vllm_editions``. The tables hold everything that differs between releases;
this module holds the rules that do not:

1. An explicit backend is validated and taken as asked, or it is an error; it is replaced only where
   the edition says so.
2. Otherwise the candidates of the request's family (dense, MLA, sparse) are validated in order;
   the first without a reason against it is selected; if there is none, it is an error.
3. Validation names every reason, in a fixed order and in vLLM's own words. A cache layout that the
   run's other layers cannot share is a reason only where there is no other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from rocm_reference.machine import NOT, ON, Machine, asked_of, field_of
from vllm_editions import Backend, Edition, ListEntry, Refusal

NO_VALID_BACKEND = "no_valid_backend"
INVALID_SELECTED_BACKEND = "invalid_selected_backend"
UNSUPPORTED_VIT_BACKEND = "unsupported_vit_backend"

IMPORT_ERROR = "ImportError"
# What every release's backends are asked for, beside a shape.
DEMANDS = (
    *("use_mm_prefix", "use_mla", "has_sink", "use_sparse", "use_per_head_quant_scales"),
    "attn_type",
)
CUSTOM_KERNEL = "custom"
TRITON_KERNEL = "triton"


class RequestLike(Protocol):
    """The fields of vLLM's ``AttentionSelectorConfig``, and what it reads of the configuration.

    The fields that came with a later release are read where an edition's conditions or checks name
    them.
    """

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
    def run_kv_cache_dtype(self) -> str: ...


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


class _Here(NamedTuple):
    """A backend on one machine.

    ``unsupported`` are the fields that a request may not have true together, each with the reason.
    ``asked`` reads what a request asks for beside a shape; ``against`` keeps the reasons against
    each, because many requests ask for the same.
    """

    backend: Backend
    importable: bool
    wrong_target: bool
    sinks: bool
    unsupported: tuple[tuple[tuple[str, ...], str], ...]
    refuses: tuple[tuple[tuple[str, ...], Refusal], ...]
    layouts: frozenset[str] | None
    asked: attrgetter[tuple[Hashable, ...]]
    against: dict[tuple[Hashable, ...], tuple[str, ...]]


class _Candidates(NamedTuple):
    """A list with the machine's conditions settled: each entry's own, and the fields they ask."""

    entries: tuple[tuple[str, tuple[str, ...]], ...]
    fields: tuple[str, ...]
    settled: dict[tuple[bool, ...], tuple[str, ...]]


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
        self._machine = Machine(
            edition, target, aiter=aiter, flash_attn=flash_attn, env=dict(env or {})
        )
        self._here = {name: self._settle(b) for name, b in edition.backends.items()}
        lists = edition.candidates
        self._lists = {
            "dense": self._settle_list(lists.dense),
            "mla": self._settle_list(lists.mla),
            "sparse": self._settle_list(lists.sparse),
        }

    def candidates(self, request: RequestLike) -> tuple[str, ...]:
        """The backends an automatic choice looks at, best first."""
        listed = self._lists[_family(request)]
        asked = tuple(bool(getattr(request, name)) for name in listed.fields)
        found = listed.settled.get(asked)
        if found is None:
            found = listed.settled[asked] = tuple(
                name
                for name, conditions in listed.entries
                if all(asked_of(condition, request) for condition in conditions)
            )
        return found

    def left_out(self, request: RequestLike) -> dict[str, tuple[str, ...]]:
        """The backends of the request's family that are not candidates here, and what they need.

        One that stands in the list twice is told what its last entry needs.
        """
        entries: tuple[ListEntry, ...] = getattr(self.edition.candidates, _family(request))
        there = self.candidates(request)
        return {
            entry.backend: tuple(
                self._need(condition)
                for condition in entry.when
                if not self._holds(condition, request)
            )
            for entry in entries
            if entry.backend not in there
        }

    def _holds(self, condition: str, request: RequestLike) -> bool:
        settled = self._machine.settled(condition)
        return asked_of(condition, request) if settled is None else settled

    def _need(self, condition: str) -> str:
        if condition.startswith(NOT):
            return f"not {self._need(condition.removeprefix(NOT))}"
        if condition == "aiter_supported":
            on = "/".join(self.edition.classes[self.edition.selection.aiter_supported_on])
            return f"aiter installed, on {on}"
        if condition.startswith(ON):
            return f"{ON}{'/'.join(self.edition.classes[condition.removeprefix(ON)])}"
        return f"{condition}=1" if condition in self.edition.flags else condition

    def select(self, request: RequestLike, backend: str | None = None) -> Decision:
        """Answers a request; ``backend`` is the user's explicit choice.

        Raises:
            KeyError: the edition has no backend of that name.
        """
        if backend is not None:
            decision = self._explicit(request, backend)
            if decision.selected or not self._gives_way(request, decision.candidates[0].reasons):
                return decision
        verdicts = tuple(
            Verdict(name, self.reasons(name, request) or self._unshared(name, request))
            for name in self.candidates(request)
        )
        for name, reasons in verdicts:
            if not reasons:
                return Decision(name, verdicts)
        why = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in verdicts)
        message = f"no attention backend is valid for this request on {self.target}: {why}"
        return Decision(None, verdicts, NO_VALID_BACKEND, message)

    def _explicit(self, request: RequestLike, backend: str) -> Decision:
        reasons = self.reasons(backend, request) or self._unshared(backend, request, explicit=True)
        verdicts = (Verdict(backend, reasons),)
        if not reasons:
            return Decision(backend, verdicts)
        message = f"{backend} was asked for but is not valid here: {', '.join(reasons)}"
        return Decision(None, verdicts, INVALID_SELECTED_BACKEND, message)

    def reasons(self, name: str, request: RequestLike) -> tuple[str, ...]:
        """What a backend itself has against a request, in vLLM's order and words."""
        here = self._here[name]
        if not here.importable:
            return (IMPORT_ERROR,)
        asked = here.asked(request)
        against = here.against.get(asked)
        if against is None:
            against = here.against[asked] = tuple(_demand_reasons(here, request))
        found = _shape_reasons(here.backend, request, self.edition.selection.block_size_checked)
        found += against
        for conditions, refusal in here.refuses:
            if _refused(refusal, conditions, request):
                found.append(refusal.reason)
        return tuple(found)

    def _unshared(
        self, name: str, request: RequestLike, *, explicit: bool = False
    ) -> tuple[str, ...]:
        """Against a valid backend: the layers of the run's own KV dtype read no layout of its."""
        for shared in self.edition.selection.shared_layouts:
            asked = shared.explicit if explicit else shared.automatic
            if asked and fnmatchcase(request.run_kv_cache_dtype, shared.run):
                own, other = self._here[name].layouts, self._here[shared.backend].layouts
                if own is not None and other is not None and own.isdisjoint(other):
                    return (shared.reason,)
        return ()

    def _gives_way(self, request: RequestLike, reasons: tuple[str, ...]) -> bool:
        """Whether a rejected explicit backend leaves the request to the automatic choice."""
        return any(
            (
                fnmatchcase(request.run_kv_cache_dtype, rule.run)
                or fnmatchcase(request.kv_cache_dtype or "", rule.layer or NOT)
            )
            and (not rule.reasons or (len(reasons) == 1 and reasons[0] in rule.reasons))
            for rule in self.edition.selection.falls_through
        )

    def paged_attention(self, request: PagedAttentionLike) -> str:
        """ROCM_ATTN's inner choice: the custom HIP kernel, or Triton's."""
        for name, rule in self.edition.paged_attention.items():
            if self.edition.in_class(self.target, name):
                low, high = rule.gqa_ratio
                applies = (
                    self._machine.holds(rule.when)
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
        for name, unmet in self.vision_rules(dtype):
            if not unmet:
                return Decision(name, (Verdict(name, ()),))
        return Decision(None, (), NO_VALID_BACKEND, "no rule of the vision choice applies")

    def vision_rules(self, dtype: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The steps of the vision choice in order, each with what it needs and does not have."""
        for rule in self.edition.vit.rules:
            unmet = [self._need(c) for c in rule.when if not self._machine.settled(c)]
            if rule.only_on is not None and not self.edition.in_class(self.target, rule.only_on):
                unmet.append(self._need(f"{ON}{rule.only_on}"))
            if rule.dtypes is not None and dtype not in rule.dtypes:
                unmet.append(" or ".join(sorted(rule.dtypes)))
            yield rule.backend, tuple(unmet)

    def _settle(self, backend: Backend) -> _Here:
        edition, machine = self.edition, self._machine
        refuses = ((machine.of_requests(refusal.when), refusal) for refusal in backend.refuses)
        there = (on for on in backend.layouts_on if edition.in_class(self.target, on))
        on = next(there, None)
        layouts = backend.layouts if on is None else backend.layouts_on[on]
        unsupported = tuple(
            (check.asked, check.reason)
            for check in edition.selection.checks
            if not machine.supports(getattr(backend, check.supports))
        )
        demands = dict.fromkeys((*DEMANDS, *(name for names, _ in unsupported for name in names)))
        return _Here(
            backend,
            backend.imports is None or machine.importable(backend.imports),
            backend.only_on is not None and not edition.in_class(self.target, backend.only_on),
            machine.supports(backend.sinks),
            unsupported,
            tuple((left, refusal) for left, refusal in refuses if left is not None),
            None if layouts is None else frozenset(layouts),
            attrgetter(*demands),
            {},
        )

    def _settle_list(self, entries: tuple[ListEntry, ...]) -> _Candidates:
        settled = ((entry.backend, self._machine.of_requests(entry.when)) for entry in entries)
        possible = tuple((name, left) for name, left in settled if left is not None)
        fields = dict.fromkeys(field_of(c) for _, conditions in possible for c in conditions)
        return _Candidates(possible, tuple(fields), {})


def _family(request: RequestLike) -> str:
    return "sparse" if request.use_sparse else "mla" if request.use_mla else "dense"


def _refused(refusal: Refusal, conditions: tuple[str, ...], request: Any) -> bool:
    return (
        (not refusal.dtypes or request.dtype in refusal.dtypes)
        and (
            not refusal.kv_cache_dtypes
            or (request.kv_cache_dtype or "none") in refusal.kv_cache_dtypes
        )
        and all(asked_of(condition, request) for condition in conditions)
    )


def _shape_reasons(backend: Backend, request: RequestLike, block_size_checked: bool) -> list[str]:
    found = []
    head_size = request.head_size
    listed = backend.head_sizes is None or head_size in backend.head_sizes
    if not listed or head_size < backend.min_head_size:
        found.append("head_size not supported")
    if request.dtype not in backend.dtypes:
        found.append("dtype not supported")
    kv_cache_dtype = request.kv_cache_dtype
    if kv_cache_dtype is None:
        known = not backend.kv_cache_dtype_required
    else:
        known = kv_cache_dtype in backend.kv_cache_dtypes
    if not known:
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


def _demand_reasons(here: _Here, request: RequestLike) -> Iterator[str]:
    """The reasons against what a request asks for: ``DEMANDS``, and fields of later releases."""
    yield from _feature_reasons(here, request)
    if here.wrong_target:
        yield "compute capability not supported"
    if request.attn_type not in here.backend.attn_types:
        yield f"attention type {request.attn_type} not supported"
    for fields, reason in here.unsupported:
        if all(getattr(request, field) for field in fields):
            yield reason


def _feature_reasons(here: _Here, request: RequestLike) -> list[str]:
    found = []
    backend = here.backend
    if request.use_mm_prefix and not backend.mm_prefix:
        found.append("partial multimodal token full attention not supported")
    if request.use_mla != backend.mla:
        found.append("MLA not supported" if request.use_mla else "non-MLA not supported")
    if request.has_sink and not here.sinks:
        found.append("attention sinks not supported")
    if request.use_sparse != backend.sparse:
        found.append("sparse not supported" if request.use_sparse else "non-sparse not supported")
    if request.use_per_head_quant_scales and not backend.per_head_quant_scales:
        found.append("per-head quant scales not supported")
    return found
