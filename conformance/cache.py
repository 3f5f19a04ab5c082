"""The folder for everything that is downloaded or compiled."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "ROCM_CONFORMANCE_CACHE"


def cache_root() -> Path:
    """The suite's cache folder: ``CACHE_VARIABLE`` if set, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return user_cache_path("rocm-attention-conformance", appauthor=False)
