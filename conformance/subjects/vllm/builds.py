"""vLLM as a subject, in the three ways a build can be had."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from conformance.errors import UsageError
from conformance.subjects.base import Options
from conformance.subjects.vllm.environment import prepare, source_tree
from conformance.subjects.workers import WorkerSubject, vllm_worker

HOW_ELSE = "Name a release instead ('vllm==0.19.0') or another interpreter ('PATH/TO/python')."


def managed(version: str, options: Options, progress: Callable[[str], None]) -> WorkerSubject:
    """A released vLLM, made ready in the user's cache on first use."""
    build = prepare(version, progress=progress)
    path = os.pathsep.join(str(entry) for entry in build.path)
    return WorkerSubject(
        f"vllm=={version}",
        vllm_worker(build.python),
        options,
        env={"PYTHONPATH": path, "PYTHONNOUSERSITE": "1"},
        release=build.version,
        source_tree=lambda: source_tree(version, progress=progress),
    )


def own_interpreter(options: Options) -> WorkerSubject:
    """The vLLM installed beside the suite."""
    if find_spec("vllm") is None:
        raise UsageError(f"--subject vllm: no vllm is installed for {sys.executable}. {HOW_ELSE}")
    return _interpreter("vllm", Path(sys.executable), options)


def other_interpreter(python: Path, options: Options) -> WorkerSubject:
    """The vLLM of another Python: a ROCm image's own, or a fork's checkout."""
    if shutil.which(python) is None:
        raise UsageError(f"--subject {python}: there is no executable Python at this path")
    # Absolute, but links kept: resolving a virtual environment's python leaves the environment.
    return _interpreter(str(python), python.absolute(), options)


def _interpreter(spec: str, python: Path, options: Options) -> WorkerSubject:
    return WorkerSubject(spec, vllm_worker(python), options)
