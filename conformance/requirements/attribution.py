"""Which requirement a difference between two answers is about.

A sweep compares thousands of answers with the reference selector's. To report which requirement a
difference breaks, every difference is split into facets, and the rules in
``requirements/attribution.toml`` assign a requirement to each facet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection
from conformance.requirements import On, Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FacetKind = Literal[
    "crash", "candidates", "reason", "reason_order", "selected", "message", "paged_attention", "vit"
]


@dataclass(frozen=True)
class Facet:
    """One respect in which an answer differs from the expected one.

    ``family`` is dense, mla or sparse. ``backend`` and ``reason`` say which backend lacks which
    reason, or has it and should not. ``reordered``: the candidates are the right ones in another
    order.
    """

    kind: FacetKind
    family: str = ""
    explicit: bool = False
    backend: str = ""
    reason: str = ""
    reordered: bool = False


class Rule(BaseModel):
    """A requirement and the facets that belong to it; an absent key matches anything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requirement: str
    facet: FacetKind
    on: On = On()
    family: str | None = None
    explicit: bool | None = None
    backend: str | None = None
    reason: str | None = None
    reordered: bool | None = None

    def answers_for(self, facet: Facet) -> bool:
        return (
            self.facet == facet.kind
            and self.family in (None, facet.family)
            and self.explicit in (None, facet.explicit)
            and self.backend in (None, facet.backend)
            and self.reason in (None, facet.reason)
            and self.reordered in (None, facet.reordered)
        )


@cache
def all_rules() -> tuple[Rule, ...]:
    """The rules, in order: the first that matches a facet decides."""
    file = resources.files("conformance.requirements") / "attribution.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(Rule.model_validate(entry) for entry in table["rule"])


def rules_on(
    platform: Platform, requirements: dict[str, Requirement], release: str
) -> tuple[Rule, ...]:
    """The rules that can apply on a platform, of requirements that the build must meet."""
    return tuple(
        rule
        for rule in all_rules()
        if rule.requirement in requirements
        and not requirements[rule.requirement].not_judged_because(release)
        and rule.on.includes(platform)
    )


def requirement_of(facet: Facet, rules: Sequence[Rule]) -> str | None:
    """The requirement of a facet; None if no rule matches it."""
    return next((rule.requirement for rule in rules if rule.answers_for(facet)), None)


def family(request: Request) -> str:
    """The list of candidates from which a request is answered."""
    return "sparse" if request.use_sparse else "mla" if request.use_mla else "dense"


def facets(ask: Ask, expected: Selection, got: Selection) -> Iterator[Facet]:
    """Every respect in which ``got`` differs from ``expected``; none if they agree."""
    question = ask.question
    if not isinstance(question, Request):
        if (got.selected, got.error) != (expected.selected, expected.error):
            kind = isinstance(question, PagedAttention)
            yield Facet("paged_attention" if kind else "vit", explicit=ask.backend is not None)
        return
    kind_of = family(question)
    explicit = ask.backend is not None
    if got == expected:
        unnamed = unnamed_part(got)
        if unnamed:
            yield Facet("message", kind_of, explicit, reason=unnamed)
        return
    if got.error == "crash":
        yield Facet("crash", kind_of, explicit)
        return
    differing = list(_candidate_facets(kind_of, explicit, expected, got))
    if (got.selected, got.error) != (expected.selected, expected.error) and not differing:
        differing.append(Facet("selected", kind_of, explicit))
    yield from differing


def _candidate_facets(
    kind_of: str, explicit: bool, expected: Selection, got: Selection
) -> Iterator[Facet]:
    wanted = {c.backend: c.rejected for c in expected.candidates}
    given = {c.backend: c.rejected for c in got.candidates}
    if list(wanted) != list(given):
        # With an explicit backend: another one was examined instead.
        if explicit:
            yield Facet("selected", kind_of, explicit)
        else:
            reordered = sorted(wanted) == sorted(given)
            yield Facet("candidates", kind_of, explicit, reordered=reordered)
    for backend in wanted.keys() & given.keys():
        differing = set(wanted[backend]) ^ set(given[backend])
        for reason in sorted(differing):
            yield Facet("reason", kind_of, explicit, backend, reason)
        if not differing and wanted[backend] != given[backend]:
            yield Facet("reason_order", kind_of, explicit, backend)


def unnamed_part(got: Selection) -> str:
    """A backend or reason behind an error that its message does not name; "" if there is none."""
    if got.error not in ("no_valid_backend", "invalid_selected_backend"):
        return ""
    for candidate in got.candidates:
        for part in (candidate.backend, *candidate.rejected):
            if part not in got.message:
                return part
    return ""
