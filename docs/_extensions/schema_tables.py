"""Tables of the worker protocol, made from its JSON Schema when the site is built.

A line ``{{ schema NAME }}`` in a page becomes the table of that definition's fields.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

SCHEMA = Path(__file__).parents[2] / "conformance" / "worker" / "protocol.schema.json"
MARK = re.compile(r"^\{\{ schema (\S+) \}\}$", re.MULTILINE)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("source-read", _put_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _put_tables(app: Sphinx, page: str, content: list[str]) -> None:
    if MARK.search(content[0]):
        app.env.note_dependency(str(SCHEMA), docname=page)
        definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
        content[0] = MARK.sub(lambda mark: table(definitions, mark[1]), content[0])


def table(definitions: dict[str, Any], name: str) -> str:
    """A definition in Markdown: its description, and the fields of each form it has."""
    definition = definitions[name]
    lines = [definition.get("description", ""), ""]
    for form in definition.get("oneOf", [definition]):
        fields = {k: v for k, v in form["properties"].items() if k not in ("id", "op")}
        if fields:
            lines += ["| field | type | meaning |", "|---|---|---|"]
            lines += _rows(definitions, fields, form["required"])
            lines.append("")
    return "\n".join(lines)


def _rows(
    definitions: dict[str, Any], fields: dict[str, Any], required: list[str], above: str = ""
) -> list[str]:
    """A row for each field, and below it those of the object that it is or maps names to."""
    rows = []
    for name, schema in fields.items():
        rows.append(_row(definitions, above + name, schema, name in required))
        inner, path = schema, f"{above}{name}."
        if isinstance(schema.get("additionalProperties"), dict):
            inner, path = schema["additionalProperties"], f"{above}{name}.*."
        if "properties" in inner:
            rows += _rows(definitions, inner["properties"], inner["required"], path)
    return rows


def _row(definitions: dict[str, Any], name: str, schema: dict[str, Any], required: bool) -> str:
    meaning = schema.get("description") or _resolved(definitions, schema).get("description", "")
    shown = f"`{name}`" if required else f"`{name}` (optional)"
    return f"| {shown} | {_type(definitions, schema)} | {meaning.replace('*', chr(92) + '*')} |"


def _type(definitions: dict[str, Any], schema: dict[str, Any]) -> str:
    schema = _resolved(definitions, schema)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kinds = schema.get("type", "any")
    names = kinds if isinstance(kinds, list) else [kinds]
    if isinstance(schema.get("items"), dict):
        items = _type(definitions, schema["items"])
        names = [f"array of {items}" if name == "array" else name for name in names]
    return " or ".join(names)


def _resolved(definitions: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return definitions[reference] if reference else schema
