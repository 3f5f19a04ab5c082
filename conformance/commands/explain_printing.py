"""Prints an answer of ``explain``: one request, or every kind of layer of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import click

from conformance.commands.explain_text import (
    as_markdown,
    render,
    render_requirements,
    requirements_as_markdown,
    title_of,
)
from conformance.commands.shared import console
from conformance.explanations.asked import Serving
from conformance.explanations.explanation import Explanation, Judgement
from conformance.matrix.requests import Platform
from conformance.matrix.targets import TARGETS
from conformance.models.layers import Model


@dataclass(frozen=True)
class Asked:
    """What the user asks: of a build, by an edition, on a machine."""

    spec: str
    release: str
    gpu: str
    platform: Platform
    edition: str
    simulate: str
    timeout: float
    since: str
    style: str


def show(
    explained: list[Explanation], model: Model | None, serving: Serving, asked: Asked, by: Judgement
) -> None:
    cited = {name: r for each in explained for name, r in each.requirements.items()}
    if model is None:
        (one,) = explained
        if asked.style == "json":
            click.echo(json.dumps(one.as_json(), indent=2))
        elif asked.style == "markdown":
            click.echo(
                "\n\n".join(filter(None, (as_markdown(one), requirements_as_markdown(cited))))
            )
        else:
            render(console(), one)
            render_requirements(console(), cited)
        return
    lines = _head(model, serving, asked, by)
    if asked.style == "json":
        whole = {
            "model": model.name,
            "source": model.source,
            "subject": by.subject,
            "platform": asked.platform.as_json(),
            "tensor_parallel_size": serving.tensor_parallel,
            "assumed": list(model.assumed),
            "layers": [each.as_json() for each in explained],
        }
        click.echo(json.dumps(whole, indent=2))
        return
    if asked.style == "markdown":
        parts = [f"# {lines[0]}", *lines[1:]]
        parts += [as_markdown(each, title=title_of(each.layers)) for each in explained]
        click.echo("\n\n".join(filter(None, [*parts, requirements_as_markdown(cited)])))
        return
    out = console()
    for line in lines:
        out.print(line, highlight=False, markup=False)
    for each in explained:
        out.print()
        render(out, each, title=title_of(each.layers))
    out.print()
    render_requirements(out, cited)


def _head(model: Model, serving: Serving, asked: Asked, by: Judgement) -> list[str]:
    target = asked.platform.target
    called = asked.gpu if asked.gpu != target else TARGETS[target].products
    where = str(asked.platform).replace(target, f"{called} ({target})", 1)
    dtype = serving.dtype or model.dtype
    gpus = f"{serving.tensor_parallel} x " if serving.tensor_parallel > 1 else ""
    return [
        f"{model.name} on {gpus}{where}",
        f"{by.subject}; {dtype}, KV cache {serving.kv_cache_dtype}; shapes from {model.source}",
        *(f"assumed: {text}" for text in model.assumed),
    ]
