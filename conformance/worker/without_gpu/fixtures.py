"""The fixtures that vLLM's attention tests take from its top conftest.py.

That file imports all of the engine's test utilities, and what those need, so it is not loaded. A
``conftest.py`` nearer to a test comes before these.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _vllm(module: str) -> Any:
    return importlib.import_module(f"vllm.{module}")


@pytest.fixture
def default_vllm_config() -> Iterator[Any]:
    """vLLM's plain configuration as the current one."""
    config = _vllm("config")
    plain = config.VllmConfig()
    with config.set_current_vllm_config(plain):
        yield plain


@pytest.fixture
def dist_init() -> Iterator[None]:
    """A process group of this process alone, over the CPU's library."""
    config, state = _vllm("config"), _vllm("distributed.parallel_state")
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made:
        with config.set_current_vllm_config(config.VllmConfig()):
            state.init_distributed_environment(
                world_size=1,
                rank=0,
                distributed_init_method=(Path(made) / "store").as_uri(),
                local_rank=0,
                backend="gloo",
            )
            state.initialize_model_parallel(1, 1)
            yield
        state.destroy_model_parallel()
        state.destroy_distributed_environment()


@pytest.fixture
def workspace_init() -> Iterator[None]:
    """vLLM's workspace, on the CPU."""
    torch, workspace = importlib.import_module("torch"), _vllm("v1.worker.workspace")
    workspace.init_workspace_manager(torch.device("cpu"))
    yield
    workspace.reset_workspace_manager()
