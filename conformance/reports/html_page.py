"""The merged report as one self-contained HTML page: no network, no server.

The page's data is JSON, which its script turns into text nodes, so text from subjects is never
parsed as markup. A content security policy allows the page's own script and style by hash, and no
requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from conformance.reports.baseline import IN_WORDS, Comparison
from conformance.reports.codegen_tables import groups, rows
from conformance.reports.history import PLOTTED, Trend, basename
from conformance.reports.merge import Merged
from conformance.reports.page_data import payload
from conformance.reports.safe_text import plain
from conformance.reports.summary import Summary, summarise
from conformance.reports.verdict_words import Cause, causes, change_name, headline
from conformance.requirements import Requirement

SCRIPTS = ("dom.js", "cases.js", "heat.js", "parity.js", "downloads.js", "page.js")
FEW = 8  # failures of a cause that the top of the page shows without a click
# These could end the script element or start a comment in it:
# https://html.spec.whatwg.org/multipage/scripting.html#restrictions-for-contents-of-script-elements
_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(
    merged: Merged,
    requirements: Mapping[str, Requirement],
    build_url: str = "",
    comparison: Comparison | None = None,
    trend: Trend | None = None,
) -> str:
    """The page as text; its data is ASCII, so that the encoding does not matter."""
    summary = summarise(merged.run, requirements, merged.headers)
    data = payload(merged, summary, requirements, build_url)
    style = _file("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_file, SCRIPTS)) + "\n})();\n"
    environment = Environment(
        loader=DictLoader({"page": _file("page.html.j2")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["basename"] = basename
    return environment.get_template("page").render(
        data=data,
        comparison=comparison,
        changes=IN_WORDS,
        trend=trend,
        plotted=PLOTTED,
        few=FEW,
        cards=_cards(data, summary),
        change_name=change_name,
        compiled=groups(rows(merged)),
        json=Markup(embedded(data)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
    )


@dataclass(frozen=True)
class Card:
    """What the top of the page says of a subject: its verdict in words."""

    verdict: dict[str, Any]
    headline: str
    causes: tuple[Cause, ...]


def _cards(data: dict[str, Any], summary: Summary) -> list[Card]:
    pairs = zip(data["verdicts"], summary.subjects, strict=True)
    return [Card(verdict, plain(headline(s)), causes(s)) for verdict, s in pairs]


def embedded(value: Any) -> str:
    """``value`` as JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_IN_SCRIPT)


def _source_hash(text: str) -> str:
    """A source of a content security policy: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    folder = resources.files("conformance.reports") / "page"
    return (folder / name).read_text(encoding="utf-8")
