"""vLLM as a subject: a release, the one installed beside the suite, or another Python's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.base import Options
from conformance.subjects.vllm.checkouts import metadata_folder, packages_of, read_tree
from conformance.subjects.vllm.environment import dependencies, prepare, source_tree
from conformance.subjects.workers import WORKER, WorkerSubject, vllm_worker, worker_command

HOW_ELSE = "Name a release instead ('vllm==0.19.0') or another interpreter ('PATH/TO/python')."


def managed(version: str, options: Options, progress: Callable[[str], None]) -> WorkerSubject:
    """A released vLLM, prepared in the user's cache on first use."""
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


def unbuilt(folder: Path, options: Options, progress: Callable[[str], None]) -> WorkerSubject:
    """vLLM's source tree in ``folder``, with the packages of the nearest release."""
    tree = read_tree(folder)
    packages = packages_of(tree)
    path = (
        tree.folder,
        metadata_folder(tree, progress),
        dependencies(packages, progress=progress),
    )
    return WorkerSubject(
        str(folder),
        vllm_worker(),
        options,
        env={"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONNOUSERSITE": "1"},
        release=tree.version or None,
        source_tree=lambda: tree.folder,
        note=f"{tree.note}, with the packages that {packages.name} imports",
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
    # Absolute, but not resolved: a virtual environment's python is a link out of it.
    return _interpreter(str(python), python.absolute(), options)


def _interpreter(spec: str, python: Path, options: Options) -> WorkerSubject:
    """A Python with aiter but no vLLM is a subject too, for its kernels."""
    libraries = _missing(python)
    only_aiter = bool(libraries["vllm"]) and not libraries["aiter"]
    command = worker_command(python, "aiter" if only_aiter else "vllm")
    return WorkerSubject(spec, command, options, python=python, libraries=libraries)


@cache
def _missing(python: Path) -> dict[str, str]:
    """Why a Python has no vllm and no aiter, found without importing them."""
    command = [python, WORKER / "inventory.py"]
    try:
        asked = [str(python), "-c", "import sys; print(sys.version_info[0])"]
        says = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        if says.stdout.strip() != "3":
            raise UsageError(f"--subject {python}: is no Python 3: expected PATH/TO/python")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--subject {python}: cannot be run as a Python: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"{python} does not answer within {error.timeout:.0f} s"
        ) from None
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        raise InfrastructureError(f"{python} cannot say what it has", done.stderr) from None
    return found
