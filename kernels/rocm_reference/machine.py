"""A machine as an edition's conditions see it: target, packages and variables.

The words that conditions are made of are those of ``vllm_editions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from vllm_editions import Edition, Support

NOT = "!"
ON = "on "


class Machine:
    """What is settled once the machine is known; the rest of a condition asks the request."""

    def __init__(
        self,
        edition: Edition,
        target: str,
        *,
        aiter: bool,
        flash_attn: bool,
        env: Mapping[str, str],
    ) -> None:
        flags = {
            name: env[name].lower() in ("1", "true") if name in env else default
            for name, default in edition.flags.items()
        }
        supported = aiter and edition.in_class(target, edition.selection.aiter_supported_on)
        self._edition = edition
        self._target = target
        self._env = env
        self._facts = {
            **flags,
            "aiter": aiter,
            "flash_attn": flash_attn,
            "aiter_supported": supported,
        }

    def importable(self, package: str) -> bool:
        """Whether a package that a platform states can be imported."""
        return self._facts[package]

    def settled(self, condition: str) -> bool | None:
        """Whether a condition holds here; None: the request decides."""
        word = condition.removeprefix(NOT)
        name, equals, value = word.partition("=")
        holds: bool | None
        if equals:
            holds = self._env.get(name) == value
        elif word.startswith(ON):
            holds = self._edition.in_class(self._target, word.removeprefix(ON))
        else:
            holds = self._facts.get(word)
        return holds if holds is None or word == condition else not holds

    def holds(self, conditions: Iterable[str]) -> bool:
        """Whether conditions that ask nothing of a request all hold.

        Raises:
            ValueError: one of them does.
        """
        found = {condition: self.settled(condition) for condition in conditions}
        for condition, holds in found.items():
            if holds is None:
                raise ValueError(f"{condition!r} depends on the request")
        return all(found.values())

    def supports(self, support: Support) -> bool:
        """Whether a backend supports something here."""
        return support if isinstance(support, bool) else self.holds(support)

    def of_requests(self, conditions: Iterable[str]) -> tuple[str, ...] | None:
        """The conditions that ask the request; None: one that does not ask it fails here."""
        left = []
        for condition in conditions:
            holds = self.settled(condition)
            if holds is None:
                left.append(condition)
            elif not holds:
                return None
        return tuple(left)


def field_of(condition: str) -> str:
    """The request's field that a condition is about."""
    return condition.removeprefix(NOT)


def asked_of(condition: str, request: Any) -> bool:
    """Whether a condition about a request's field holds for a request."""
    value = bool(attrgetter(field_of(condition))(request))
    return value is not condition.startswith(NOT)
