"""The nearest edition of a build that names no release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.matrix.requests import Ask, Platform, Selection
from conformance.subjects.base import Session, SubjectInfo
from conformance.subjects.reference import ReferenceSession, edition_table
from conformance.suites.selection.matching import ASKS, PLATFORMS, nearest_by_answers
from vllm_editions import Edition, editions


class Knowing(ReferenceSession):
    """The reference, which answers like a build where it is asked for a backend it lacks."""

    def __init__(self, table: Edition, platform: Platform) -> None:
        super().__init__(table, platform)
        self._backends = table.backends

    def ask(self, asks: Sequence[Ask]) -> Iterator[Selection]:
        for ask in asks:
            if ask.backend is None or ask.backend in self._backends:
                yield from super().ask([ask])
            else:
                yield Selection(None, error="unknown_backend")


@dataclass(frozen=True)
class Unnamed:
    """A build that answers as an edition says, and does not say which."""

    table: Edition
    spec: str = "unnamed"
    release: str = "dev"
    note: str = ""

    def info(self) -> SubjectInfo:
        return SubjectInfo("vllm", "dev", simulated=True, fields=self.table.asked.fields)

    def open(self, platform: Platform) -> Session:
        return Knowing(self.table, platform)

    def reopen(self, platform: Platform) -> Session:
        return self.open(platform)

    def source_tree(self) -> None:
        return None

    def close(self) -> None:
        pass


def altered(name: str, **changes: Any) -> Edition:
    """An edition whose ROCM_ATTN supports something else."""
    table = edition_table(name)
    rocm_attn = table.backends["ROCM_ATTN"].model_copy(update=changes)
    return table.model_copy(update={"backends": {**table.backends, "ROCM_ATTN": rocm_attn}})


@pytest.mark.parametrize("name", ["0.18", "0.19", "0.23", "0.25", "0.30", "0.33"])
def test_a_build_that_answers_as_an_edition_is_matched_to_it(name: str) -> None:
    match = nearest_by_answers(Unnamed(edition_table(name)))
    same = [e for e in editions() if _alike(e, name)]
    assert match.edition == same[-1]
    assert (match.differing, match.asked) == (0, ASKS * len(PLATFORMS))


def test_a_build_that_differs_in_little_is_matched_and_the_rest_is_said() -> None:
    match = nearest_by_answers(Unnamed(altered("0.30", mm_prefix=False)))
    assert match.edition == "0.30"
    assert 0 < match.differing < match.asked / 10
    assert f"edition 0.30, which comes nearest to it: {match.differing} of" in match.note


def test_fields_decide_between_editions_that_answer_alike() -> None:
    table = edition_table("0.22")
    fewer = tuple(name for name in table.asked.fields if name != "use_batch_invariant")
    asked = replace_fields(table, fewer)
    assert nearest_by_answers(Unnamed(asked)).edition in ("0.19", "0.20", "0.21", "0.22")


def replace_fields(table: Edition, fields: tuple[str, ...]) -> Edition:
    return table.model_copy(update={"asked": table.asked.model_copy(update={"fields": fields})})


def _alike(one: str, other: str) -> bool:
    """Whether two editions are the same but for their names."""
    tables = [edition_table(name).model_dump() for name in (one, other)]
    for table in tables:
        del table["edition"], table["source"]
    return tables[0] == tables[1]
