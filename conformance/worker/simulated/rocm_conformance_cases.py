"""The pytest plugin of ``rocm-conformance simulate``: ``-p rocm_conformance_cases``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# The worker, which sitecustomize has loaded in this process.
WORKER = "conformance_worker.without_gpu"


def pytest_configure(config: pytest.Config) -> None:
    """Registers what samples, limits and records the cases, and vLLM's fixtures."""
    cases = importlib.import_module(f"{WORKER}.cases")
    config.pluginmanager.register(cases.Cases.of_environment(), "rocm-conformance-cases")
    config.pluginmanager.register(importlib.import_module(f"{WORKER}.fixtures"))
