"""Which backend vLLM selects for a request, and what it has against the others.

The candidates come from watching what ``get_valid_backends`` returns during the very call that
selects: nothing private of vLLM's is called.
"""

import ast
import contextlib
import functools
import operator
import re
import time
from collections.abc import Callable
from typing import Any

from ..batch import Batch, Outcome, rows
from ..contract import BareMessage, Questions, SecondsAnswer, SelectAnswer, SelectMessage
from ..errors import WorkerError
from . import context
from .registry import Registry, load


class Attention:
    """The question ``attention``, as a platform's ``get_attn_backend_cls`` answers it."""

    def __init__(self, platform: Any, registry: Registry, dtype: Callable[[str], Any]) -> None:
        self._platform = platform
        self._registry = registry
        self._dtype = dtype
        self._config = load("vllm.v1.attention.selector").AttentionSelectorConfig
        self.fields: tuple[str, ...] = self._config._fields
        self._seen: Any = None
        self._watch()
        self._choose = platform.get_attn_backend_cls
        # Of one batch after the other: a configuration takes longer to make than a selection.
        self._contexts = functools.cache(context.Contexts)

    def answer(self, message: SelectMessage) -> SelectAnswer:
        """Answers a batch. Its loop is most of what the protocol costs: see ``bench``."""
        fields: list[str] = message["fields"]
        where = {name: i for i, name in enumerate(fields)}
        known = [name for name in self.fields if name in where]
        self._refuse_unknown(message, known)
        in_order = operator.itemgetter(*(where[name] for name in known))
        whole = len(known) == len(self.fields)
        dtype_at, backend_at = known.index("dtype"), where["backend"]
        context_at = [where[name] for name in context.FIELDS if name in where]
        contexts = self._contexts(tuple(name for name in context.FIELDS if name in where))
        batch, dtype, make, select = Batch(), self._dtype, self._config, self._select
        for row in message["rows"]:
            values = list(in_order(row))
            asked = row[backend_at]
            backend = asked if isinstance(asked, str) else None
            values[dtype_at] = dtype(values[dtype_at])
            config = make(*values) if whole else make(**dict(zip(known, values, strict=True)))
            engine = tuple([row[at] for at in context_at])
            if engine == contexts.plain:
                batch.add(*select(backend, config))
            else:
                with contexts.entered(engine):
                    batch.add(*select(backend, config))
        return batch.as_json()

    def bare(self, message: BareMessage) -> SecondsAnswer:
        """CPU seconds of vLLM's own calls for these requests, with nothing around them."""
        calls = []
        for q in rows(message):
            known: dict[str, object] = {name: q[name] for name in self.fields if name in q}
            config = self._config(**{**known, "dtype": self._dtype(str(q["dtype"]))})
            calls.append((q["backend"] and self._registry.members[str(q["backend"])], config))
        choose = self._platform.get_attn_backend_cls
        started = time.process_time()
        for member, config in calls:
            with contextlib.suppress(ValueError):
                choose(member, config)
        return {"seconds": time.process_time() - started}

    def _refuse_unknown(self, message: Questions, known: list[str]) -> None:
        """A field that this vLLM lacks must have been left at nothing in every row."""
        for at, name in enumerate(message["fields"]):
            if name in (*known, "backend", *context.FIELDS):
                continue
            if any(row[at] for row in message["rows"]):
                raise WorkerError(f"this vLLM's selector has no field {name!r}")

    def _watch(self) -> None:
        """Keeps what ``get_valid_backends`` returns; its callers see no difference."""
        cls = type(self._platform)
        if not hasattr(cls, "get_valid_backends"):
            raise WorkerError(
                "this vLLM's RocmPlatform has no get_valid_backends: releases before 0.18 "
                "cannot be asked for their candidates"
            )
        original = cls.get_valid_backends

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._seen = original(*args, **kwargs)
            return self._seen

        cls.get_valid_backends = staticmethod(watched)

    def _select(self, backend: str | None, config: Any) -> tuple[Outcome, str]:
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

    def _rejection(self, backend: str | None, config: Any, text: str) -> Outcome:
        if backend is None or self._seen is not None:
            return None, "no_valid_backend", self._candidates()
        reasons = _reasons_in(text)
        if reasons is None:
            reasons = tuple(self._validate(backend, config))
        if reasons == ("ImportError",):
            self._registry.diagnose(backend)
        return None, "invalid_selected_backend", ((backend, reasons),)

    def _validate(self, backend: str, config: Any) -> list[str]:
        """What the backend's class has against a request, where the error did not say."""
        found: list[str] = (
            self._registry.members[backend]
            .get_class()
            .validate_configuration(
                device_capability=self._platform.get_device_capability(), **config._asdict()
            )
        )
        return found

    def _candidates(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """``get_valid_backends``'s answer as one list in the order the candidates were tried."""
        if self._seen is None:
            return ()
        valid, rejected = self._seen
        slots: list[Any] = [None] * (len(valid) + len(rejected))
        for member, priority in valid:
            slots[priority] = (member._name_, ())
        at = 0
        for member, reasons in rejected.items():
            while slots[at] is not None:
                at += 1
            if reasons == ["ImportError"]:
                self._registry.diagnose(member._name_)
            slots[at] = (member._name_, tuple(reasons))
        return tuple(slots)


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
