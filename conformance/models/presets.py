"""Models by name, without a network: the published shapes of models that people serve."""

from __future__ import annotations

import difflib
import re
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from conformance.errors import UsageError
from conformance.models.config_file import CONFIG, read_config, read_file
from conformance.models.layers import Model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Preset(BaseModel):
    """A model's configuration, as far as attention depends on it, and the file it is from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(pattern=r"^https://\S+/config\.json$")
    config: dict[str, Any]


@cache
def presets() -> dict[str, Preset]:
    """The presets by the model's full name."""
    text = resources.files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    return {name: Preset.model_validate(row) for name, row in tomllib.loads(text).items()}


def find_model(name: str) -> Model:
    """The model of a name (``Llama-3.1-70B-Instruct``, with or without its owner), or of a file.

    Raises:
        UsageError: there is no such preset and no such file; says which names are near.
    """
    path = Path(name)
    if name.endswith(".json") or path.is_dir() or path.is_file():
        return read_file(path)
    plain = {known.lower(): known for known in presets()}
    plain |= {known.split("/")[1].lower(): known for known in presets()}
    found = plain.get(name.lower())
    if found is None:
        part = re.compile(rf"(^|[-/]){re.escape(name.lower())}")
        begins = sorted({known for short, known in plain.items() if part.search(short)})
        if len(begins) == 1:
            found = begins[0]
    if found is None:
        raise UsageError(_unknown(name, plain, begins))
    preset = presets()[found]
    return read_config(_nulls(preset.config), found, preset.source)


def _unknown(name: str, plain: dict[str, str], begins: list[str]) -> str:
    near = begins or [
        plain[short] for short in difflib.get_close_matches(name.lower(), plain, n=3, cutoff=0.5)
    ]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    return (
        f"--model {name!r}: no preset of that name, and no such file.{hint} "
        f"--model list prints the presets; any other model: --model PATH/{CONFIG}"
    )


def _nulls(config: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: the text "null" stands for it."""
    return {
        key: None if value == "null" else _nulls(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
