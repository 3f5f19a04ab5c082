"""Templates of the pages that commands write, and the colours of their pictures."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

# Colours that stay apart for colour-blind readers, after https://personal.sron.nl/~pault/ (muted
# and light schemes), in the order in which what they stand for appears.
COLOURS = (
    "#4477aa",
    "#cc6677",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#aa4499",
    "#44aa99",
    "#999933",
    "#882255",
    "#ee8866",
    "#77aadd",
    "#bbcc33",
)


def template(name: str) -> Template:
    """A template beside the report page's own files."""
    environment = Environment(
        loader=PackageLoader("conformance.reports", "page"),
        autoescape=name.endswith(".svg"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.j2")
