"""What a builder made of one batch, read by path; and a finding about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from conformance.suites.metadata.batches import Placed
from conformance.worker.metadata_contract import Fields, LayerFields, PlannedCall, Seen

SHOWN = 12


@dataclass(frozen=True)
class Finding:
    """What is wrong with ``field``; ``kind`` is one of ``conformance.results.records.KINDS``."""

    requirement: str
    kind: str
    field: str
    text: str


@dataclass(frozen=True)
class Built:
    """Metadata of one batch.

    ``call`` is the step's (build, capture, draft, update). ``threshold`` and ``uniform`` are what
    the builder says of its decodes. ``planned``: what aiter was asked to plan, up to this call.
    """

    call: str
    placed: Placed
    fields: Fields
    given: Fields
    threshold: int | None
    uniform: bool
    planned: Sequence[PlannedCall]

    @property
    def layer(self) -> LayerFields:
        return self.placed.layer

    @property
    def table(self) -> list[list[int]]:
        return [list(row) for row in self.placed.table]

    @property
    def sparse_tokens(self) -> int:
        """The query tokens that choose keys: all, or without prefills that attend densely."""
        if self.number("prefill.use_dense_mha") == 1:
            return self.number("num_decode_tokens")
        return self.placed.batch.real_tokens

    def has(self, path: str) -> bool:
        """Whether the metadata has the field, and it is not None."""
        return path in self.fields and self.fields[path].get("value", 0) is not None

    def below(self, path: str) -> bool:
        """Whether the metadata has a part by this name that is there."""
        return any(name.startswith(f"{path}.") for name in self.fields)

    def seen(self, path: str) -> Seen:
        return self.fields.get(path, {})

    def number(self, path: str) -> int:
        value = self.seen(path).get("value")
        if isinstance(value, list):
            return int(value[0] or 0) if len(value) == 1 else -1
        return int(value) if isinstance(value, int) else -1

    def numbers(self, path: str) -> list[int]:
        """A field's values, flat; none if it is no tensor or list of integers."""
        value = self.seen(path).get("value")
        return [int(each or 0) for each in value] if isinstance(value, list) else []

    def rows(self, path: str) -> list[list[int]]:
        """The rows of a field of two axes."""
        shape, flat = self.shape(path), self.numbers(path)
        if len(shape) != 2:
            return []
        return [flat[row * shape[1] :][: shape[1]] for row in range(shape[0])]

    def shape(self, path: str) -> list[int]:
        return self.seen(path).get("shape", [])

    def ends(self, *names: str) -> Iterator[str]:
        """The paths of tensors and numbers with one of these last names."""
        for path in self.fields:
            if path.rpartition(".")[2] in names and self.has(path):
                yield path

    def unequal(
        self, requirement: str, kind: str, path: str, expected: Sequence[int] | int
    ) -> Iterator[Finding]:
        """A finding if a field is there and has another value."""
        if not self.has(path):
            return
        if isinstance(expected, int):
            if (got := self.number(path)) != expected:
                yield self.finding(requirement, kind, path, f"is {got}, not {expected}")
        elif (found := self.numbers(path)) != list(expected):
            yield self.finding(requirement, kind, path, difference(found, expected))

    def finding(self, requirement: str, kind: str, path: str, what: str) -> Finding:
        return Finding(requirement, kind, path, f"{path} {what} ({self.placed.batch.name})")


def difference(found: Sequence[int], expected: Sequence[int]) -> str:
    """How two lists differ: in length, or where first."""
    if len(found) != len(expected):
        return f"has {len(found)} elements, not {len(expected)}"
    at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    return f"is {shown(found[at:])} from element {at} on, not {shown(expected[at:])}"


def shown(values: Sequence[int]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return f"[{', '.join(map(str, values[:SHOWN]))}{more}]"


def sums(lens: Sequence[int]) -> list[int]:
    """Where each of some lengths begins, and where the last ends."""
    return [0, *accumulate(lens)]


def gaps(ends: Sequence[int]) -> list[int]:
    """The lengths of which these are the sums."""
    return [after - before for before, after in pairwise(ends)]
