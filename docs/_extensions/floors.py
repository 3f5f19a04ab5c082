"""The floors of the imports, as ``make lint`` holds the code to them.

A line ``{{ floors PACKAGE }}`` in a page becomes the package's layers, the highest first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
MARK = re.compile(r"^\{\{ floors (\S+) \}\}$", re.MULTILINE)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("source-read", _put_floors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _put_floors(app: Sphinx, page: str, content: list[str]) -> None:
    if MARK.search(content[0]):
        app.env.note_dependency(str(PROJECT), docname=page)
        content[0] = MARK.sub(lambda mark: floors(mark[1]), content[0])


def floors(package: str) -> str:
    """The layers of a package in Markdown, a line for each."""
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (
        contract["layers"]
        for contract in contracts["contracts"]
        if contract["type"] == "layers" and contract["containers"] == [package]
    )
    lines = ["  ".join(_named(package, name) for name in layer.split(" | ")) for layer in layers]
    return "\n".join(["```text", *lines, "```"])


def _named(package: str, name: str) -> str:
    return f"{name}/" if (PROJECT.parent / package / name).is_dir() else f"{name}.py"
