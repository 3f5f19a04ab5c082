"""Whether what a command prints is as its published schema says."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema


def valid(value: Any, definition: str) -> None:
    """Raises jsonschema's error where a value is not as the schema's definition says."""
    text = resources.files("conformance.commands").joinpath("output.schema.json").read_text("utf-8")
    schema = json.loads(text)
    jsonschema.validate(value, {**schema, "$ref": f"#/$defs/{definition}"})
