"""Explains a selection: every candidate, chosen or why not, and by which requirement."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from conformance.explanations.asked import LayerQuestion
from conformance.explanations.inside import Inside, inside
from conformance.explanations.judged import Judged, judged
from conformance.matrix.requests import Ask, Platform, Request, Selection
from conformance.models.layers import TOWERS, Layers
from conformance.requirements import Requirement, requirements_of
from conformance.requirements.attribution import (
    Facet,
    Rule,
    facets,
    family,
    requirement_of,
    rules_on,
)
from conformance.requirements.citation import cited
from conformance.subjects.reference import answer, selector_on
from vllm_editions import Edition

_NEEDS = {
    "not encoder_decoder_model": "a model that is not encoder-decoder",
    "not use_kv_connector": "no KV connector",
    "use_prefill_decode_attention": "use_prefill_decode_attention in --attention-config",
}


@dataclass(frozen=True)
class Step:
    """One backend, its outcome, and the requirement that specifies it."""

    backend: str
    verdict: str
    requirement: str = ""


@dataclass(frozen=True)
class Explanation:
    """An explained selection: the candidates in order, then the backends never considered.

    ``deviates``: the requirements that the build does not meet here, each with how.
    ``what_if``: what one change of the machine would do. ``later``: what other releases do.
    """

    subject: str
    platform: Platform
    layers: Layers
    ask: Ask | None
    selection: Selection | None
    steps: tuple[Step, ...] = ()
    absent: tuple[Step, ...] = ()
    inside: tuple[Inside, ...] = ()
    judged: Judged | None = None
    deviates: tuple[tuple[str, str], ...] = ()
    what_if: tuple[tuple[str, str], ...] = ()
    later: tuple[str, ...] = ()
    note: str = ""
    requirements: dict[str, Requirement] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        if self.selection is None:
            return "no question"
        return self.selection.selected or f"no backend ({self.selection.error})"

    def as_json(self) -> dict[str, Any]:
        question = self.ask.question if self.ask else None
        return {
            "subject": self.subject,
            "platform": self.platform.as_json(),
            "layers": asdict(self.layers),
            "request": asdict(question) if question else None,
            "backend": self.ask.backend if self.ask else None,
            **(self.selection.as_json() if self.selection else {}),
            "steps": [vars(step) for step in self.steps],
            "not_considered": [vars(step) for step in self.absent],
            "kernels": [asdict(each) for each in self.inside],
            "judged": asdict(self.judged) if self.judged else None,
            "deviates_from": [{"requirement": r, "how": how} for r, how in self.deviates],
            "what_if": [{"with": change, "then": then} for change, then in self.what_if],
            "releases": list(self.later),
            "note": self.note,
            "requirements": {
                name: {"sentence": r.sentence, "source": r.source, "contested": list(r.contested)}
                for name, r in self.requirements.items()
            },
        }


@dataclass(frozen=True)
class Judgement:
    """What an answer is explained with: the edition that judges it, and the build's release."""

    subject: str
    table: Edition
    release: str
    platform: Platform

    @property
    def known(self) -> dict[str, Requirement]:
        return requirements_of(self.table.edition)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return rules_on(self.platform, self.known, self.release)

    def cite(self, ask: Ask, facet: list[Facet], listed: tuple[str, ...] = ()) -> str:
        """The requirement behind facets of an answer."""
        table, rules = self.table.edition, self.rules
        return cited(facet, rules, self.known, table, self.platform, ask, listed)


def explain(by: Judgement, asked: LayerQuestion, selection: Selection | None) -> Explanation:
    """Explains a subject's answer; without the parts that compare with other situations."""
    if asked.ask is None or selection is None:
        return Explanation(by.subject, by.platform, asked.layers, None, None, note=asked.note)
    ask = asked.ask
    expected = answer(selector_on(by.table, by.platform), ask)
    deviates = tuple(_deviations(by, ask, expected, selection))
    steps: tuple[Step, ...] = ()
    absent: tuple[Step, ...] = ()
    if isinstance(ask.question, Request):
        steps = tuple(_steps(by, ask, ask.question, selection, expected))
        absent = tuple(_absent(by, ask, ask.question, selection, expected))
    else:
        steps = tuple(_vision_steps(by, ask, selection, expected))
    chosen = selection.selected
    of_encoder = asked.layers.kind in (*TOWERS, "encoder")
    used = dict.fromkeys(
        name
        for name in (*(s.requirement for s in (*steps, *absent)), *(r for r, _ in deviates))
        if name
    )
    return Explanation(
        by.subject,
        by.platform,
        asked.layers,
        ask,
        selection,
        steps,
        absent,
        tuple(inside(chosen, by.table, by.platform, asked.inner, encoder=of_encoder))
        if chosen
        else (),
        _judged(by, asked, chosen) if chosen else None,
        deviates,
        note=asked.note,
        requirements={name: by.known[name] for name in used if name in by.known},
    )


def _judged(by: Judgement, asked: LayerQuestion, chosen: str) -> Judged:
    question = asked.ask.question if asked.ask else None
    request = question if isinstance(question, Request) else None
    return judged(
        chosen,
        by.release,
        by.table.edition,
        asked.layers,
        question.dtype if question else "",
        (request.kv_cache_dtype if request else "") or "auto",
        bool(request and request.use_mm_prefix),
    )


def _deviations(
    by: Judgement, ask: Ask, expected: Selection, got: Selection
) -> list[tuple[str, str]]:
    """Where a build's answer is not the edition's: the requirement, and how it differs."""
    found: dict[str, str] = {}
    for facet in facets(ask, expected, got):
        name = requirement_of(facet, by.rules) or "no requirement by number"
        found.setdefault(name, _how(facet, expected, got))
    return list(found.items())


def _how(facet: Facet, expected: Selection, got: Selection) -> str:
    if facet.kind == "reason":
        wanted = {c.backend: c.rejected for c in expected.candidates}.get(facet.backend, ())
        verb = "does not reject" if facet.reason in wanted else "rejects"
        return f"it {verb} {facet.backend}: {facet.reason}"
    if facet.kind == "candidates":
        names = ", ".join(c.backend for c in expected.candidates)
        return f"the candidates should be {names}"
    if facet.kind == "crash":
        return f"the selector ends in an error of its own: {got.message}"
    if facet.kind in ("selected", "vit", "paged_attention"):
        return f"it should select {expected.selected or 'nothing: ' + str(expected.error)}"
    return f"the {facet.kind.replace('_', ' ')} differs"


def _steps(
    by: Judgement, ask: Ask, request: Request, selection: Selection, expected: Selection
) -> list[Step]:
    steps = []
    kind, explicit = family(request), ask.backend is not None
    listed = tuple(candidate.backend for candidate in selection.candidates)
    wanted = {c.backend: c.rejected for c in expected.candidates}
    same_list = listed == tuple(wanted)
    of_list = by.cite(ask, [Facet("candidates", kind)], listed) if same_list else ""
    as_expected = (selection.selected, selection.error) == (expected.selected, expected.error)
    of_choice = by.cite(ask, [Facet("selected", kind, explicit)]) if as_expected else ""
    for candidate in selection.candidates:
        name = candidate.backend
        if candidate.rejected:
            agreed = [r for r in candidate.rejected if r in wanted.get(name, ())]
            because = by.cite(ask, [Facet("reason", kind, explicit, name, why) for why in agreed])
            steps.append(Step(name, f"rejected: {', '.join(candidate.rejected)}", because))
        elif name == selection.selected:
            how = "selected, as asked" if explicit else "SELECTED: the first valid candidate"
            steps.append(Step(name, how, of_choice))
        else:
            steps.append(Step(name, f"valid, but {selection.selected} comes first", of_list))
    return steps


def _absent(
    by: Judgement, ask: Ask, request: Request, selection: Selection, expected: Selection
) -> list[Step]:
    """The backends of the request's family that the edition's list does not have here."""
    if ask.backend is not None:
        return []
    listed = tuple(candidate.backend for candidate in selection.candidates)
    same_list = listed == tuple(c.backend for c in expected.candidates)
    of_list = by.cite(ask, [Facet("candidates", family(request))], listed) if same_list else ""
    left_out = selector_on(by.table, by.platform).left_out(request)
    return [
        Step(backend, f"not considered: needs {', '.join(map(_need, unmet))}", of_list)
        for backend, unmet in left_out.items()
        if backend not in listed
    ]


def _need(condition: str) -> str:
    """What a backend needs, where the selector names a request's field."""
    return _NEEDS.get(condition, condition)


def _vision_steps(by: Judgement, ask: Ask, selection: Selection, expected: Selection) -> list[Step]:
    """The rules of the vision choice in order, up to the one that decides."""
    explicit = ask.backend is not None
    agreed = selection.selected == expected.selected
    behind = by.cite(ask, [Facet("vit", explicit=explicit)]) if agreed else ""
    steps = []
    if not explicit:
        selector = selector_on(by.table, by.platform)
        for rule, unmet in selector.vision_rules(ask.question.dtype):
            if not unmet:
                break
            steps.append(Step(rule, f"not taken: needs {', '.join(unmet)}"))
    if selection.selected:
        how = "selected, as asked" if explicit else "SELECTED: the first rule that holds"
        steps.append(Step(selection.selected, how, behind))
    return steps
