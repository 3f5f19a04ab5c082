"""Explains a selection on one screen: every candidate, chosen or why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection
from conformance.requirements import Requirement
from conformance.requirements.attribution import Facet, Rule, family, requirement_of
from conformance.results import markdown
from conformance.suites.case import show_ask
from rocm_reference.selector import Selector


@dataclass(frozen=True)
class Step:
    """One backend, its outcome, and the requirement that specifies it."""

    backend: str
    verdict: str
    requirement: str = ""


@dataclass(frozen=True)
class Explanation:
    """An explained selection: the candidates in order, then the backends never considered."""

    subject: str
    platform: Platform
    ask: Ask
    selection: Selection
    steps: tuple[Step, ...]
    absent: tuple[Step, ...]
    inner: str = ""
    requirements: dict[str, Requirement] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        return self.selection.selected or f"no backend ({self.selection.error})"

    def as_json(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "platform": self.platform.as_json(),
            "request": asdict(self.ask.question),
            "backend": self.ask.backend,
            **self.selection.as_json(),
            "steps": [vars(step) for step in self.steps],
            "not_considered": [vars(step) for step in self.absent],
            "decode_kernel": self.inner or None,
            "requirements": {
                name: {"sentence": r.sentence, "source": r.source, "contested": list(r.contested)}
                for name, r in self.requirements.items()
            },
        }


def explain(
    subject: str,
    platform: Platform,
    ask: Ask,
    selection: Selection,
    model: Selector,
    rules: tuple[Rule, ...],
    known: dict[str, Requirement],
) -> Explanation:
    """Explains a subject's answer; ``model`` tells why backends are not candidates."""
    request = ask.question
    if not isinstance(request, Request):
        return Explanation(subject, platform, ask, selection, (), ())
    steps = tuple(_steps(selection, request, ask.backend is not None, rules))
    listed = {step.backend for step in steps}
    absent: tuple[Step, ...] = ()
    if ask.backend is None:
        of_list = requirement_of(Facet("candidates", family(request)), rules) or ""
        absent = tuple(
            Step(backend, f"not considered: needs {', '.join(unmet)}", of_list)
            for backend, unmet in model.left_out(request).items()
            if backend not in listed
        )
    used = dict.fromkeys(step.requirement for step in (*steps, *absent) if step.requirement)
    return Explanation(
        subject,
        platform,
        ask,
        selection,
        steps,
        absent,
        _inner(selection, request, model),
        {name: known[name] for name in used},
    )


def _steps(
    selection: Selection, request: Request, explicit: bool, rules: tuple[Rule, ...]
) -> list[Step]:
    steps = []
    kind = family(request)
    of_list = requirement_of(Facet("candidates", kind), rules) or ""
    of_choice = requirement_of(Facet("selected", kind, explicit), rules) or ""
    for candidate in selection.candidates:
        name = candidate.backend
        if candidate.rejected:
            facets = [Facet("reason", kind, explicit, name, why) for why in candidate.rejected]
            because = next((r for f in facets if (r := requirement_of(f, rules))), "")
            steps.append(Step(name, f"rejected: {', '.join(candidate.rejected)}", because))
        elif name == selection.selected:
            how = "selected, as asked" if explicit else "SELECTED: the first valid candidate"
            steps.append(Step(name, how, of_choice))
        else:
            steps.append(Step(name, f"valid, but {selection.selected} comes first", of_list))
    return steps


def _inner(selection: Selection, request: Request, model: Selector) -> str:
    """The kernel that ROCM_ATTN would decode with."""
    if selection.selected != "ROCM_ATTN" or request.block_size is None:
        return ""
    question = PagedAttention(
        dtype=request.dtype,
        head_size=request.head_size,
        block_size=request.block_size,
        kv_cache_dtype=request.kv_cache_dtype or "auto",
        sinks=request.has_sink,
    )
    kernel = model.paged_attention(question)
    name = "the custom HIP kernel" if kernel == "custom" else "a Triton kernel"
    return f"{name} (for a GQA ratio of {question.gqa_ratio}, no sliding window, no ALiBi)"


def render(console: Console, explanation: Explanation) -> None:
    """Prints an explanation on a terminal."""
    console.print(Text(f"{explanation.headline}  on {explanation.platform}", style="bold"))
    console.print(f"{explanation.subject}; {show_ask(explanation.ask)}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("mark", "backend", "verdict", "requirement"):
        table.add_column(column, overflow="fold", no_wrap=column in ("mark", "backend"))
    for step in (*explanation.steps, *explanation.absent):
        table.add_row(_mark(step), step.backend, step.verdict, step.requirement)
    console.print(table)
    if explanation.inner:
        console.print(f"decode in ROCM_ATTN: {explanation.inner}", highlight=False)
    if explanation.selection.message:
        console.print(Text(explanation.selection.message, style="red"))
    for name, requirement in explanation.requirements.items():
        mark = " [contested]" if requirement.contested else ""
        console.print(Text(f"{name}{mark}: {requirement.sentence}"))
        console.print(Text(f"    {requirement.source}", style="dim"), soft_wrap=True)


def as_markdown(explanation: Explanation) -> str:
    """The explanation as Markdown: steps as a table, requirements as links."""
    rows = [
        (_mark(step), step.backend, step.verdict, step.requirement)
        for step in (*explanation.steps, *explanation.absent)
    ]
    parts = [
        f"**{markdown.cell(explanation.headline)}** on {explanation.platform}",
        f"{explanation.subject}; {markdown.cell(show_ask(explanation.ask))}",
        markdown.table(("", "backend", "verdict", "requirement"), rows) if rows else "",
        f"Decode in ROCM_ATTN: {explanation.inner}" if explanation.inner else "",
        markdown.cell(explanation.selection.message),
        "\n".join(
            f"- [{name}]({requirement.source}): {markdown.cell(requirement.sentence)}"
            + (f" Contested: {' '.join(requirement.contested)}" if requirement.contested else "")
            for name, requirement in explanation.requirements.items()
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _mark(step: Step) -> str:
    if "selected" in step.verdict.lower():
        return ">"
    return "x" if step.verdict.startswith("rejected") else " "
