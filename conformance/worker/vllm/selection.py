"""Which backend vLLM selects for a request, and why it rejects the others.

The candidates are what ``get_valid_backends`` returns during the very call that selects: nothing
private of vLLM's is called.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import operator
import re
import time
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..answers import Answers, rows
from ..contract import (
    BareMessage,
    Choice,
    Questions,
    SecondsAnswer,
    SelectAnswer,
    SelectMessage,
    Value,
)
from ..errors import WorkerError
from . import context
from .objects import Member, Platform, SelectorConfig
from .registry import Registry, load

if TYPE_CHECKING:
    import torch

Candidate = tuple[str, tuple[str, ...]]
# What ``get_valid_backends`` returns: valid backends with their priorities, and rejected ones with
# the reasons.
Seen = tuple[list[tuple[Member, int]], dict[Member, list[str]]]


class Attention:
    """Answers ``attention`` with what a platform's ``get_attn_backend_cls`` says."""

    def __init__(
        self, platform: Platform, registry: Registry, dtype: Callable[[Value], torch.dtype]
    ) -> None:
        self._platform = platform
        self._registry = registry
        self._dtype = dtype
        config = load("vllm.v1.attention.selector").AttentionSelectorConfig
        self._config: Callable[..., SelectorConfig] = config
        self._class: type = config
        self.fields: tuple[str, ...] = config._fields
        self._seen: Seen | None = None
        self._watch()
        self._choose = platform.get_attn_backend_cls
        # Kept from message to message: a configuration takes longer to make than a selection.
        self._contexts = functools.cache(context.Contexts)

    def answer(self, message: SelectMessage) -> SelectAnswer:
        """Answers a message. Most of the protocol's overhead is in this loop: see ``bench``."""
        fields: list[str] = message["fields"]
        where = {name: i for i, name in enumerate(fields)}
        known = [name for name in self.fields if name in where]
        self._refuse_unknown(message, known)
        in_order = operator.itemgetter(*(where[name] for name in known))
        left = [name for name in self.fields if name not in where]
        defaults = plain_values(self._class, left)
        dtype_at, backend_at = where["dtype"], where["backend"]
        dtype_in_order = known.index("dtype")
        context_at = [where[name] for name in context.FIELDS if name in where]
        contexts = self._contexts(tuple(name for name in context.FIELDS if name in where))
        answers, dtype, make, select = Answers(), self._dtype, self._config, self._select
        for row in message["rows"]:
            values: list[object] = list(in_order(row))
            asked = row[backend_at]
            backend = asked if isinstance(asked, str) else None
            values[dtype_in_order] = dtype(row[dtype_at])
            config = (
                make(**dict(zip(known, values, strict=True)), **defaults) if left else make(*values)
            )
            engine = tuple([row[at] for at in context_at])
            if engine == contexts.plain:
                answers.add(*select(backend, config))
            else:
                with contexts.entered(engine):
                    answers.add(*select(backend, config))
        return answers.as_json()

    def bare(self, message: BareMessage) -> SecondsAnswer:
        """The CPU seconds that vLLM's own calls take for these requests, and nothing else."""
        calls = []
        for q in rows(message):
            known: dict[str, object] = {name: q[name] for name in self.fields if name in q}
            left = [name for name in self.fields if name not in q]
            known |= {**plain_values(self._class, left), "dtype": self._dtype(q["dtype"])}
            config = self._config(**known)
            backend = q["backend"]
            calls.append((self._registry.members[str(backend)] if backend else None, config))
        choose = self._platform.get_attn_backend_cls
        started = time.process_time()
        for member, config in calls:
            with contextlib.suppress(ValueError):
                choose(member, config)
        return {"seconds": time.process_time() - started}

    def _refuse_unknown(self, message: Questions, known: list[str]) -> None:
        """Refuses a field that this vLLM lacks, unless every row leaves it empty."""
        for at, name in enumerate(message["fields"]):
            if name in (*known, "backend", *context.FIELDS):
                continue
            if any(row[at] for row in message["rows"]):
                raise WorkerError(f"this vLLM's selector has no field {name!r}")

    def _watch(self) -> None:
        """Keeps what ``get_valid_backends`` returns, which its callers still get."""
        cls = type(self._platform)
        if not hasattr(cls, "get_valid_backends"):
            raise WorkerError(
                "this vLLM's RocmPlatform has no get_valid_backends: releases before 0.18 "
                "cannot be asked for their candidates"
            )
        original: Callable[..., Seen] = cls.get_valid_backends

        @functools.wraps(original)
        def watched(*args: object, **kwargs: object) -> Seen:
            self._seen = original(*args, **kwargs)
            return self._seen

        cls.get_valid_backends = staticmethod(watched)

    def _select(self, backend: str | None, config: SelectorConfig) -> tuple[Choice, str]:
        self._seen = None
        members = self._registry.members
        if backend is not None and backend not in members:
            return (None, "unknown_backend", ()), f"this vLLM has no backend {backend}"
        try:
            path = self._choose(None if backend is None else members[backend], config)
        except ValueError as error:
            return self._rejection(backend, config, str(error)), str(error)
        except Exception as error:
            return (None, "crash", self._candidates()), f"{type(error).__name__}: {error}"
        selected = self._registry.name_by_path.get(path, path)
        if self._seen is None:
            return (selected, None, ((selected, ()),)), ""
        return (selected, None, self._candidates()), ""

    def _rejection(self, backend: str | None, config: SelectorConfig, text: str) -> Choice:
        if backend is None or self._seen is not None:
            return None, "no_valid_backend", self._candidates()
        reasons = _reasons_in(text)
        if reasons is None:
            reasons = tuple(self._validate(backend, config))
        if reasons == ("ImportError",):
            self._registry.diagnose(backend)
        return None, "invalid_selected_backend", ((backend, reasons),)

    def _validate(self, backend: str, config: SelectorConfig) -> list[str]:
        """The reasons of the backend's class against a request, where the error gave none."""
        cls = self._registry.members[backend].get_class()
        capability = self._platform.get_device_capability()
        return cls.validate_configuration(device_capability=capability, **config._asdict())

    def _candidates(self) -> tuple[Candidate, ...]:
        """Valid and rejected candidates together, in the order in which they were tried."""
        if self._seen is None:
            return ()
        valid, rejected = self._seen
        by_priority: dict[int, Candidate] = {at: (member._name_, ()) for member, at in valid}
        at = 0
        for member, reasons in rejected.items():
            while at in by_priority:
                at += 1
            if reasons == ["ImportError"]:
                self._registry.diagnose(member._name_)
            by_priority[at] = (member._name_, tuple(reasons))
        return tuple([by_priority[at] for at in range(len(by_priority))])


def plain_values(config: type, names: list[str]) -> dict[str, object]:
    """What a request that says nothing of these fields of a selector's class leaves them at.

    A field that this suite does not know is at its class's default; one without a default is off,
    if its type has a value that means so.

    Raises:
        WorkerError: a field has neither a default nor such a type.
    """
    defaults: dict[str, object] = getattr(config, "_field_defaults", {})
    missing = [name for name in names if name not in defaults]
    try:
        hints = typing.get_type_hints(config) if missing else {}
    except (NameError, TypeError) as error:
        raise WorkerError(
            f"the types of {config.__name__}'s fields cannot be read ({error}): no value is known "
            f"for {', '.join(missing)}"
        ) from error
    return {name: _off(name, hints.get(name)) for name in missing}


def _off(name: str, kind: object) -> object:
    """The value of a type that asks for nothing: None where it may be, else false, 0 or empty."""
    options = typing.get_args(kind)
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    if kind is type(None) or (is_union and type(None) in options):
        return None
    plain = options[0] if is_union else kind
    made = typing.get_origin(plain) or plain
    if made in (bool, int, float, str, tuple, list, dict, set, frozenset):
        return typing.cast("type", made)()
    raise WorkerError(
        f"this vLLM's selector asks for {name!r}, which this suite does not know, and no value of "
        f"its type {kind!r} is known to mean that nothing is asked"
    )


@functools.lru_cache(maxsize=4096)
def _reasons_in(text: str) -> tuple[str, ...] | None:
    """The list of reasons that an error about an explicit backend ends with."""
    match = re.search(r"Reasons?: (\[.*\])\W*$", text, re.DOTALL)
    if match is None:
        return None
    try:
        listed = ast.literal_eval(match.group(1))
    except (SyntaxError, ValueError):
        return None
    return tuple(str(reason) for reason in listed)
