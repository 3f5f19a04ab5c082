"""The models that vLLM's tests name, as a Hugging Face cache of configurations alone."""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REVISION = "0" * 40  # a commit's name, as the cache has folders by


@cache
def configurations() -> dict[str, dict[str, Any]]:
    """What each model's ``config.json`` has, by the model's name."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return {name: row["config"] for name, row in tomllib.loads(text).items()}


def write_cache(home: Path) -> None:
    """Makes ``home`` an ``HF_HOME`` that has the configurations.

    The layout is that of https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    for name, config in configurations().items():
        folder = home / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(REVISION, encoding="utf-8")
