"""The reference selector as a subject, in this process, because it has no state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.errors import one_of
from conformance.matrix.requests import (
    Ask,
    PagedAttention,
    Platform,
    Request,
    Selection,
    candidate,
)
from conformance.subjects.base import Session, SubjectInfo
from conformance.worker.contract import BackendDescription, Variable
from rocm_reference.selector import Decision, Selector
from vllm_editions import Edition, editions, load_edition

REFERENCE = "reference"


def edition_table(name: str, release: str | None = None) -> Edition:
    """An edition's table; an unknown name is a UsageError."""
    if name not in editions():
        raise one_of("edition", name, editions())
    return load_edition(name, release)


def selector_on(edition: Edition, platform: Platform) -> Selector:
    """The reference selector for an edition and a platform."""
    return Selector(
        edition,
        platform.target,
        aiter=platform.aiter,
        flash_attn=platform.flash_attn,
        env=platform.variables,
    )


def answer(selector: Selector, ask: Ask) -> Selection:
    """Asks the reference selector one question of any kind."""
    question = ask.question
    if isinstance(question, PagedAttention):
        return Selection(selector.paged_attention(question))
    if isinstance(question, Request):
        return as_selection(selector.select(question, ask.backend))
    return as_selection(selector.vit(question.dtype, ask.backend))


def as_selection(decision: Decision) -> Selection:
    """The reference selector's answer as a `Selection`."""
    return Selection(
        decision.selected,
        tuple([candidate(*verdict) for verdict in decision.candidates]),
        decision.error,
        decision.message,
    )


class ReferenceSession:
    """The reference selector on one platform."""

    def __init__(self, edition: Edition, platform: Platform) -> None:
        self._edition = edition
        self._selector = selector_on(edition, platform)
        self.info = SubjectInfo(REFERENCE, edition.edition, simulated=True)
        self.alive = True

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        return (answer(self._selector, ask) for ask in asks)

    def variables(self, names: Sequence[str]) -> dict[str, Variable]:
        flags = self._edition.flags
        return {
            name: {
                "registered": name in flags,
                "value": repr(flags[name]) if name in flags else None,
            }
            for name in names
        }

    def describe(self, backends: Sequence[str]) -> dict[str, BackendDescription]:
        raise NotImplementedError("the reference has tables, not classes")

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class ReferenceSubject:
    """``--subject reference``."""

    edition: str
    spec: str = REFERENCE
    note: str = ""

    @property
    def release(self) -> str:
        return self.edition

    def info(self) -> SubjectInfo:
        asked = edition_table(self.edition).asked
        return SubjectInfo(REFERENCE, self.edition, simulated=True, fields=asked.fields)

    def open(self, platform: Platform) -> Session:
        return ReferenceSession(edition_table(self.edition), platform)

    def reopen(self, platform: Platform) -> Session:
        return self.open(platform)

    def source_tree(self) -> Path | None:
        return None

    def close(self) -> None:
        pass
