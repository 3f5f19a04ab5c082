"""A repository that stands in for vLLM's, and a clone of it with a branch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.cache import CACHE_VARIABLE
from conformance.changes.trees import BRANCH_VARIABLES
from tests.changes.repositories import commit, git


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no CI's variables, and a git without the user's settings."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for name in BRANCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    tree = tmp_path / "upstream"
    tree.mkdir()
    git(tree, "init", "-q")
    commit(tree, {"vllm/platforms/rocm.py": "1", "vllm/models/a.py": "1", "docs/a.md": "1"})
    git(tree, "tag", "v0.33.0")
    return tree


@pytest.fixture
def checkout(upstream: Path, tmp_path: Path) -> Path:
    """A clone with a branch; main went on after the branch was made."""
    tree = tmp_path / "checkout"
    git(tmp_path, "clone", "-q", str(upstream), str(tree))
    git(tree, "checkout", "-q", "-b", "change")
    commit(upstream, {"vllm/platforms/rocm.py": "of main, later"})
    git(tree, "fetch", "-q")
    return tree
