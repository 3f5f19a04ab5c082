"""Where everything that is downloaded or compiled is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "ROCM_CONFORMANCE_CACHE"


def cache_root() -> Path:
    """The user's cache folder of the suite, or that of ``CACHE_VARIABLE``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return user_cache_path("rocm-attention-conformance", appauthor=False)
