"""Selectors whose rules are wrong, where no change of a table would make them so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from conformance.matrix.requests import AITER, REMOVED_VARIABLE, PagedAttention, Request
from rocm_reference.selector import (
    INVALID_SELECTED_BACKEND,
    NO_VALID_BACKEND,
    TRITON_KERNEL,
    Decision,
    Selector,
    Verdict,
)
from vllm_editions import Edition

UNIFIED = "ROCM_AITER_UNIFIED_ATTN"
UNIFIED_FLAG = "VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION"
SPARSE = "ROCM_AITER_MLA_SPARSE"
UNRELATED = "VLLM_ROCM_CONFORMANCE_UNRELATED"

Reasons = tuple[str, ...]
Lists = Callable[["Wrong", Request, Reasons], Reasons]


class Wrong(Selector):
    """The reference selector, with what the machine is like kept for the faults to look at."""

    def __init__(
        self,
        edition: Edition,
        target: str,
        *,
        aiter: bool = False,
        flash_attn: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(edition, target, aiter=aiter, flash_attn=flash_attn, env=env)
        self.machine: dict[str, Any] = {"aiter": aiter, "flash_attn": flash_attn, "env": env}
        self.variables = dict(env or {})


def with_candidates(change: Lists) -> type[Wrong]:
    """A selector whose list of candidates is changed for some requests."""

    class Changed(Wrong):
        def candidates(self, request: Any) -> Reasons:
            return change(self, request, super().candidates(request))

    return Changed


def with_reasons(change: Callable[[Wrong, str, Request, Reasons], Reasons]) -> type[Wrong]:
    """A selector whose reasons against a backend are changed."""

    class Changed(Wrong):
        def reasons(self, name: str, request: Any) -> Reasons:
            return change(self, name, request, super().reasons(name, request))

    return Changed


def with_decision(
    change: Callable[[Wrong, Request, str | None, Decision], Decision],
) -> type[Wrong]:
    """A selector whose right decision is changed before it is given."""

    class Changed(Wrong):
        def select(self, request: Any, backend: str | None = None) -> Decision:
            return change(self, request, backend, super().select(request, backend))

    return Changed


def with_paged_question(change: Callable[[PagedAttention], PagedAttention]) -> type[Wrong]:
    """A selector whose inner choice sees another question than was asked."""

    class Changed(Wrong):
        def paged_attention(self, request: Any) -> str:
            return super().paged_attention(change(request))

    return Changed


def reading(change: Callable[[dict[str, str]], dict[str, str]]) -> type[Wrong]:
    """A selector that reads its variables in another way."""

    class Reading(Wrong):
        def __init__(
            self,
            edition: Edition,
            target: str,
            *,
            env: Mapping[str, str] | None = None,
            **machine: Any,
        ) -> None:
            super().__init__(edition, target, env=change(dict(env or {})), **machine)

    return Reading


def reading_values(is_on: Callable[[str], bool]) -> type[Wrong]:
    """A selector that takes other values for on and off."""
    return reading(lambda env: {name: str(int(is_on(value))) for name, value in env.items()})


def counting_gfx90a(*families: str) -> type[Wrong]:
    """A selector to which gfx90a counts as supported by AITER, for some kinds of request."""

    class Counting(Wrong):
        def __init__(self, edition: Edition, target: str, **machine: Any) -> None:
            super().__init__(edition, target, **machine)
            rules = edition.selection.model_copy(update={"aiter_supported_on": "gfx9"})
            wide = edition.model_copy(update={"selection": rules})
            self._wide = Selector(wide, target, **machine)

        def candidates(self, request: Any) -> Reasons:
            asked = "mla" if request.use_mla else "dense"
            if asked in families:
                return self._wide.candidates(request)
            return super().candidates(request)

        def vit(self, dtype: str, backend: str | None = None) -> Decision:
            if "vit" in families:
                return self._wide.vit(dtype, backend)
            return super().vit(dtype, backend)

    return Counting


class ReadsRemovedVariableInside(Wrong):
    """The inner choice of the releases before 0.19."""

    def paged_attention(self, request: Any) -> str:
        off = self.variables.get(REMOVED_VARIABLE) in ("0", "false")
        return TRITON_KERNEL if off else super().paged_attention(request)


class TakesAnyVisionBackend(Wrong):
    """Every backend that is asked for serves vision attention, or so it says."""

    def vit(self, dtype: str, backend: str | None = None) -> Decision:
        if backend is not None:
            return Decision(backend, (Verdict(backend, ()),))
        return super().vit(dtype)


class IgnoresVisionBackend(Wrong):
    """An explicit vision backend is not looked at."""

    def vit(self, dtype: str, backend: str | None = None) -> Decision:
        right = super().vit(dtype, backend)
        return right if right.error else super().vit(dtype)


class ChecksExplicitLess(Wrong):
    """An explicit backend is not asked whether it supports sinks."""

    def select(self, request: Any, backend: str | None = None) -> Decision:
        asked = request if backend is None else replace(request, has_sink=False)
        return super().select(asked, backend)


def moved_by(variable: str, value: str) -> type[Wrong]:
    """A variable that puts TRITON_ATTN first."""

    def change(self: Wrong, _request: Request, names: Reasons) -> Reasons:
        read = self.variables.get(variable) == value
        return tuple(sorted(names, key="TRITON_ATTN".__ne__)) if read else names

    return with_candidates(change)


def unified_first_by_flag(self: Wrong, _request: Request, names: Reasons) -> Reasons:
    asked = self.variables.get(UNIFIED_FLAG) == "1"
    return tuple(sorted(names, key=UNIFIED.__ne__)) if asked else names


def option_read(_self: Wrong, request: Request, names: Reasons) -> Reasons:
    return tuple(reversed(names)) if request.use_prefill_decode_attention else names


def sinks_pass_unified(_self: Wrong, request: Request, names: Reasons) -> Reasons:
    return tuple(n for n in names if n != UNIFIED) if request.has_sink else names


def first_reason(_self: Wrong, _name: str, _request: Request, found: Reasons) -> Reasons:
    return found[:1]


def other_order(_self: Wrong, _name: str, _request: Request, found: Reasons) -> Reasons:
    return found[::-1]


def block_32_rejected(self: Wrong, name: str, request: Request, found: Reasons) -> Reasons:
    if request.block_size != 32:
        return found
    return Selector.reasons(self, name, replace(request, block_size=17))


def demand_forgives(_self: Wrong, _name: str, request: Request, found: Reasons) -> Reasons:
    return found[1:] if request.has_sink or request.use_mm_prefix else found


def sparse_without_mla(_self: Wrong, name: str, request: Request, found: Reasons) -> Reasons:
    if name != SPARSE or not request.use_sparse:
        return found
    return tuple(reason for reason in found if reason != "non-MLA not supported")


def aiter_must_import(self: Wrong, name: str, _request: Request, found: Reasons) -> Reasons:
    needed = "AITER" in name and not self.machine["aiter"]
    return ("ImportError",) if needed else found


def replaced(self: Wrong, request: Request, backend: str | None, right: Decision) -> Decision:
    wrong = backend is not None and right.error is not None
    return Selector.select(self, request) if wrong else right


def ignored(self: Wrong, request: Request, backend: str | None, right: Decision) -> Decision:
    wrong = backend is not None and right.error is None
    return Selector.select(self, request) if wrong else right


def must_be_enabled(
    self: Wrong, _request: Request, backend: str | None, right: Decision
) -> Decision:
    if backend is None or "AITER" not in backend or self.variables.get(AITER) == "1":
        return right
    reason = "AITER is not enabled"
    listed = (Verdict(backend, (reason,)),)
    return Decision(None, listed, INVALID_SELECTED_BACKEND, f"{backend}: {reason}")


def silent(_self: Wrong, _request: Request, _backend: str | None, right: Decision) -> Decision:
    return right._replace(message="no backend is valid") if right.error else right


def silent_of_explicit(
    _self: Wrong, _request: Request, backend: str | None, right: Decision
) -> Decision:
    return right._replace(message=f"{backend} is not valid") if right.error and backend else right


def last_wins(_self: Wrong, _request: Request, backend: str | None, right: Decision) -> Decision:
    valid = [name for name, reasons in right.candidates if not reasons]
    return right if backend or not valid else right._replace(selected=valid[-1])


def never_fails(_self: Wrong, request: Request, _backend: str | None, right: Decision) -> Decision:
    if right.error != NO_VALID_BACKEND or request.use_mla or request.use_sparse:
        return right
    return Decision("TRITON_ATTN", right.candidates)


def mla_falls_to_dense(
    _self: Wrong, request: Request, _backend: str | None, right: Decision
) -> Decision:
    if right.error != NO_VALID_BACKEND or not request.use_mla or request.use_sparse:
        return right
    return Decision("TRITON_ATTN", right.candidates)


def sparse_falls_to_mla(
    _self: Wrong, request: Request, _backend: str | None, right: Decision
) -> Decision:
    if right.error != NO_VALID_BACKEND or not request.use_sparse:
        return right
    return Decision("TRITON_MLA", right.candidates)
