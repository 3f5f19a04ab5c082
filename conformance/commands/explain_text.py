"""Prints explanations: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from conformance.commands.shared import print_rows
from conformance.explanations.explanation import Explanation, Step
from conformance.matrix.requests import Request, Vit
from conformance.models.layers import IN_WORDS, NOT_ASKED, Layers
from conformance.requirements import Requirement
from conformance.results import markdown
from conformance.suites.case import show_ask


def render(console: Console, explanation: Explanation, *, title: str = "") -> None:
    """Prints one explanation; ``title`` stands where there are several in one answer."""
    head = (
        f"{title}: {explanation.headline}"
        if title
        else (f"{explanation.headline}  on {explanation.platform}")
    )
    console.print(Text(head, style="bold"))
    if not title:
        console.print(Text(f"{explanation.subject}; {_asked(explanation)}"))
    elif shape := shape_of(explanation):
        console.print(Text(f"  {shape}"))
    if steps := (*explanation.steps, *explanation.absent):
        rows = [(mark(each), each.backend, each.requirement, each.verdict) for each in steps]
        print_rows(rows, indent=2 if title else 0, folds=3)
    indent = "  " if title else ""
    for name, text in _lines(explanation):
        console.print(Text(f"{indent}{name}: {text}" if name else f"{indent}{text}"))
    if explanation.selection and explanation.selection.message:
        console.print(Text(f"{indent}{explanation.selection.message}", style="red"))
    for requirement, how in explanation.deviates:
        console.print(
            Text(f"{indent}this build deviates from {requirement}: {how}", style="bold yellow")
        )


def render_requirements(console: Console, requirements: dict[str, Requirement]) -> None:
    """Prints what was cited, once each."""
    for name, requirement in requirements.items():
        contested = " [contested]" if requirement.contested else ""
        console.print(Text(f"{name}{contested}: {requirement.sentence}"))
        console.print(Text(f"    {requirement.source}", style="dim"), soft_wrap=True)


def as_markdown(explanation: Explanation, *, title: str = "") -> str:
    """The explanation as Markdown: steps as a table, requirements as links."""
    rows = [
        (mark(step), step.backend, step.verdict, step.requirement)
        for step in (*explanation.steps, *explanation.absent)
    ]
    if title:
        head = f"## {title}: {markdown.cell(explanation.headline)}"
        below = shape_of(explanation)
    else:
        head = f"**{markdown.cell(explanation.headline)}** on {explanation.platform}"
        below = f"{explanation.subject}; {markdown.cell(_asked(explanation))}"
    lines = [
        f"- {name + ': ' if name else ''}{markdown.cell(text)}"
        for name, text in _lines(explanation)
    ]
    lines += [
        f"- this build deviates from {requirement}: {markdown.cell(how)}"
        for requirement, how in explanation.deviates
    ]
    parts = [
        head,
        below,
        markdown.table(("", "backend", "verdict", "requirement"), rows) if rows else "",
        "\n".join(lines),
        markdown.cell(explanation.selection.message) if explanation.selection else "",
    ]
    return "\n\n".join(part for part in parts if part)


def requirements_as_markdown(requirements: dict[str, Requirement]) -> str:
    """What was cited, as a list of links."""
    return "\n".join(
        f"- [{name}]({requirement.source}): {markdown.cell(requirement.sentence)}"
        + (f" Contested: {' '.join(requirement.contested)}" if requirement.contested else "")
        for name, requirement in requirements.items()
    )


def title_of(layers: Layers) -> str:
    """A kind of layers in words, with their number."""
    return f"{layers.count} {IN_WORDS[layers.kind]}"


def shape_of(explanation: Explanation) -> str:
    """What one GPU has of a layer, and what its request says besides."""
    layers, ask = explanation.layers, explanation.ask
    if layers.kind in NOT_ASKED or ask is None:
        return ""
    question = ask.question
    parts = [f"head size {layers.head_size}"]
    if isinstance(question, Vit):
        parts += [f"{layers.num_heads} heads", question.dtype]
    else:
        kv = f"{layers.num_kv_heads} KV head" + ("s" if layers.num_kv_heads != 1 else "")
        queries = f"{layers.num_heads} query head" + ("s" if layers.num_heads != 1 else "")
        parts += [f"{queries} and {kv} a GPU", question.dtype]
    if isinstance(question, Request):
        parts += [f"KV cache {question.kv_cache_dtype}"]
        parts += [f"window of {layers.window:,} tokens"] if layers.window else []
        parts += ["attention sinks"] if question.has_sink else []
        parts += ["ALiBi"] if layers.alibi else []
        parts += ["image tokens see each other"] if question.use_mm_prefix else []
        parts += ["a KV connector"] if question.use_kv_connector else []
        parts += [f"blocks of {question.block_size}"] if question.block_size else []
    parts += [f"{ask.backend} asked for"] if ask.backend else []
    return ", ".join(parts)


def _asked(explanation: Explanation) -> str:
    return show_ask(explanation.ask) if explanation.ask else ""


def _lines(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """What follows the list of candidates: a name and a text each."""
    if explanation.note:
        yield "", explanation.note
    for each in explanation.inside:
        yield each.phase, each.kernel + (f": {each.why}" if each.why else "")
    if explanation.layers.soft_cap and explanation.headline == "ROCM_ATTN":
        yield "note", "the model caps its logits, and ROCM_ATTN takes the cap and does not apply it"
    if explanation.judged:
        yield "parity", explanation.judged.status
        for reason, url in explanation.judged.findings:
            yield "found", f"{reason} ({url})"
        if explanation.judged.off_gpu and not explanation.judged.findings:
            yield "found", "nothing on record against them that concerns these layers"
    if explanation.ask is not None:
        for change, then in explanation.what_if:
            yield f"with {change}", then
        if not explanation.what_if and explanation.later:
            yield "with one variable or package changed", "the same"
    for line in explanation.later:
        yield "release", line


def mark(step: Step) -> str:
    """Whether a step is the chosen one, a rejected one, or neither."""
    if "selected" in step.verdict.lower():
        return ">"
    return "x" if step.verdict.startswith(("rejected", "not taken")) else " "
