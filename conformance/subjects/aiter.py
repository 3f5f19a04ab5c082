"""AMD's aiter as a subject of its own: a release of ``amd-aiter``, or a folder that holds one.

Of a wheel only what is judged is fetched: Python files, and the tables and code objects of
attention. Its kernels are driven by this Python, with its Triton and torch; no ROCm is needed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version

from conformance.cache import cache_root
from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.base import Options
from conformance.subjects.vllm.cached_folders import made_once
from conformance.subjects.vllm.package_index import PackageIndex
from conformance.subjects.vllm.wheel import extract_python
from conformance.subjects.workers import WorkerSubject, worker_command
from conformance.worker.contract import HIP_CACHE

PROJECT = "amd-aiter"
PREFIX = f"{PROJECT}=="
# A package of that name on the index that has nothing to do with AMD.
OTHER_PREFIX = "aiter=="
# Its name changes with what is kept.
_FOLDER = "aiter-with-tuning"
# What a wheel holds of attention besides Python: what chooses among code objects, these,
# and what kernels are tuned to.
_OF_ATTENTION = re.compile(
    r"(aiter/ops/triton/configs/[^/]+\.json"
    r"|aiter_meta/(hsa/[^/]+/(pa|mla|fmha_v3_fwd)/.+\.(co|csv)|csrc/py_itfs_cu/asm_(pa|mla)\.cu"
    r"|(csrc/include|csrc/cpp_itfs/pa|3rdparty/composable_kernel/include/ck_tile)/.+\.(h|hpp|cuh)))$"
)
_NO_VLLM = "aiter is judged alone: its kernels, without a vLLM"


def is_aiter_folder(folder: Path) -> bool:
    """Whether a folder is aiter's: a checkout, an unpacked wheel, or where one was installed."""
    return any((folder / name).is_dir() for name in ("aiter_meta/hsa", "hsa")) and (
        (folder / "aiter" / "__init__.py").is_file()
    )


def aiter_release(version: str, options: Options, progress: Callable[[str], None]) -> WorkerSubject:
    """A release, prepared in the user's cache on first use.

    Raises:
        UsageError: there is no such release.
        InfrastructureError: the index cannot be reached, or gives damaged files.
    """
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise UsageError(f"{version!r} is no version of {PROJECT}") from None
    folder = made_once(
        cache_root() / _FOLDER / canonicalize_version(wanted),
        lambda into: _fetch(wanted, into, progress),
        what=f"{PROJECT} {wanted}",
        progress=progress,
    )
    return _subject(f"{PREFIX}{version}", folder, str(wanted), options)


def aiter_in(folder: Path, options: Options) -> WorkerSubject:
    """The aiter in a folder for which :func:`is_aiter_folder` holds."""
    return _subject(str(folder), folder.absolute(), _version_in(folder), options)


def refuse_other(spec: str) -> NoReturn:
    """Refuses the unrelated package ``aiter`` of the package index by name."""
    raise UsageError(
        f"{spec}: the package index's 'aiter' is not AMD's: expected {PREFIX}"
        f"{spec.removeprefix(OTHER_PREFIX)}"
    )


def _subject(spec: str, folder: Path, version: str, options: Options) -> WorkerSubject:
    python = Path(sys.executable)
    return WorkerSubject(
        spec,
        worker_command(python, "aiter"),
        options,
        env={
            **{"PYTHONPATH": str(folder), "PYTHONNOUSERSITE": "1"},
            HIP_CACHE: str(cache_root() / "hip"),
        },
        # Editions go by vLLM's releases, and its own versions are none.
        release="",
        source_tree=lambda: None,
        python=python,
        libraries={"vllm": _NO_VLLM, "aiter": ""},
        note=f"{PROJECT} {version}: its own kernels, without a vLLM that calls them",
    )


def _version_in(folder: Path) -> str:
    """That of the metadata beside the package, or "source tree"."""
    for found in sorted(folder.glob("amd_aiter-*.dist-info")):
        return found.name.removeprefix("amd_aiter-").removesuffix(".dist-info")
    return "source tree"


def _fetch(version: Version, folder: Path, progress: Callable[[str], None]) -> dict[str, str]:
    index = PackageIndex.of_pip()
    with index.session:
        files = index.release(PROJECT, version)
        wheels = [file for file in files if file.package_type == "wheel"]
        if not wheels:
            raise UsageError(f"{PROJECT} {version} was released without wheels")
        wheel = min(wheels, key=lambda file: file.filename)
        progress(f"{PROJECT} {version}: fetching Python files and code objects of {wheel.filename}")
        extract_python(index, wheel, folder, progress, also=_OF_ATTENTION)
    if not is_aiter_folder(folder):
        raise InfrastructureError(f"{wheel.filename} holds no aiter with code objects")
    return {"file": wheel.filename, **wheel.digests}
