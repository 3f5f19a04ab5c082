"""The sources of a vLLM's HIP kernels, for workers that compile them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from conformance.cache import cache_root
from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.vllm.environment import source_tree
from conformance.subjects.workers import WorkerSubject
from conformance.worker.contract import HIP_CACHE, HIP_SOURCES


def hip_environment(subject: WorkerSubject) -> dict[str, str]:
    """What tells a worker where the sources are, and where compiled code is kept.

    Nothing where the sources are not to be had: the worker then says so of each problem that needs
    them.
    """
    tree = _tree(subject)
    return {HIP_SOURCES: str(tree), HIP_CACHE: str(cache_root() / "hip")} if tree else {}


def _tree(subject: WorkerSubject) -> Path | None:
    """The subject's own checkout or release, else the release that it says it is."""
    with suppress(InfrastructureError, UsageError):
        return subject.source_tree() or source_tree(subject.release)
    return None
