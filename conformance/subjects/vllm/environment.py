"""Released vLLMs as subjects, without the user installing anything.

A release is prepared in the user's cache on first use: its Python files from the wheel, and the few
packages that its platform and attention classes import. torch is the suite's own. The source
distribution is fetched only if documents or CI scripts are needed; nothing is ever built.
"""

from __future__ import annotations

import platform
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version
from pypi_simple import DistributionPackage

from conformance.cache import cache_root
from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.vllm.cached_folders import damage, made_once
from conformance.subjects.vllm.dependencies import Install, Needs, is_newer, needs_of, pip_install
from conformance.subjects.vllm.package_index import OTHER_WAY, PackageIndex
from conformance.subjects.vllm.progress import Progress, silent
from conformance.subjects.vllm.wheel import extract_python

_PACKAGES = "vllm"
_DEPENDENCIES = "dependencies"
_SOURCES = "sources"


@dataclass(frozen=True)
class ManagedVllm:
    """A released vLLM that ``python`` can import with ``path`` first on its PYTHONPATH.

    ``root`` is the folder of the ``vllm`` package: Python files only.
    """

    version: str
    python: Path
    path: tuple[Path, ...]
    root: Path


def prepare(
    version: str, *, progress: Progress = silent, install: Install = pip_install
) -> ManagedVllm:
    """The release ``version``, prepared in the cache if necessary.

    ``install`` puts pinned packages into a folder. Raises :class:`UsageError` for a version that
    does not exist or that ``releases.toml`` does not cover, :class:`InfrastructureError` where the
    index cannot be reached or gives damaged files.
    """
    wanted = _version(version)
    needs = needs_of(wanted)
    if is_newer(wanted):
        progress(
            f"vLLM {wanted} is newer than what this suite knows: trying it with the packages "
            f"of {needs.name}"
        )
    package = made_once(
        _package_folder(wanted),
        lambda folder: _fetch_package(wanted, folder, progress),
        what=f"vLLM {wanted}",
        progress=progress,
    )
    return ManagedVllm(
        version=_release_in(package),
        python=Path(sys.executable),
        path=(package, dependencies(needs, progress=progress, install=install)),
        root=package / "vllm",
    )


def dependencies(
    needs: Needs, *, progress: Progress = silent, install: Install = pip_install
) -> Path:
    """The folder of the packages that some releases import, installed once."""
    return made_once(
        cache_root() / _DEPENDENCIES / needs.key,
        lambda folder: _install_dependencies(needs, folder, install, progress),
        what="the packages that vLLM imports",
        progress=progress,
    )


def source_tree(version: str, *, progress: Progress = silent) -> Path:
    """The folder of the release's source distribution, fetched and unpacked once."""
    wanted = _version(version)
    folder = made_once(
        cache_root() / _SOURCES / canonicalize_version(wanted),
        lambda folder: _fetch_source(wanted, folder, progress),
        what=f"the source distribution of vLLM {wanted}",
        progress=progress,
    )
    return next(entry for entry in folder.iterdir() if entry.is_dir())


def installed_versions() -> list[str]:
    """The releases that are complete in the cache, oldest first."""
    folders = (cache_root() / _PACKAGES).glob("[!.]*")
    found = [_release_in(folder) for folder in folders if damage(folder) is None]
    return sorted(found, key=Version)


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise UsageError(f"{text!r} is no version. Expected a release such as 0.19.0") from None


def _package_folder(version: Version) -> Path:
    return cache_root() / _PACKAGES / canonicalize_version(version)


def _release_in(package: Path) -> str:
    """The release as its metadata spells it: the user may have written 0.19 for 0.19.0."""
    folder = next(package.glob("vllm-*.dist-info"))
    return folder.name.removeprefix("vllm-").removesuffix(".dist-info")


def _fetch_package(version: Version, folder: Path, progress: Progress) -> dict[str, str]:
    index = PackageIndex.of_pip()
    with index.session:
        wheel = _wheel_for_here(index.release("vllm", version), version)
        progress(f"vLLM {version}: fetching the Python files of {wheel.filename}")
        extract_python(index, wheel, folder, progress)
    if not (folder / "vllm" / "__init__.py").is_file() or not any(folder.glob("vllm-*.dist-info")):
        raise InfrastructureError(f"{wheel.filename} does not hold the package vllm. {OTHER_WAY}")
    return {"file": wheel.filename, **wheel.digests}


def _wheel_for_here(files: list[DistributionPackage], version: Version) -> DistributionPackage:
    """The wheel for this machine, or any other: their Python files are the same."""
    wheels = [file for file in files if file.package_type == "wheel"]
    if not wheels:
        raise UsageError(f"vLLM {version} was released without wheels. {OTHER_WAY}")
    machine = platform.machine()
    return min(wheels, key=lambda file: (machine not in file.filename, file.filename))


def _install_dependencies(
    needs: Needs, folder: Path, install: Install, progress: Progress
) -> dict[str, str]:
    progress(f"installing {len(needs.pins)} packages that vLLM imports, beside the suite's torch")
    install(needs.pins, folder)
    return {"pins": "\n".join(needs.pins), "python": platform.python_version()}


def _fetch_source(version: Version, folder: Path, progress: Progress) -> dict[str, str]:
    if not hasattr(tarfile, "data_filter"):
        raise InfrastructureError(
            f"Python {platform.python_version()} cannot unpack an archive safely: use 3.10.12, "
            "3.11.4 or any later one"
        )
    index = PackageIndex.of_pip()
    archive = folder / ".archive"
    with index.session:
        files = index.release("vllm", version)
        source = next((file for file in files if file.package_type == "sdist"), None)
        if source is None:
            raise UsageError(f"vLLM {version} was released without a source distribution")
        progress(f"vLLM {version}: fetching the source distribution {source.filename}")
        index.download(source, archive, progress)
    _unpack(archive, source.filename, folder)
    archive.unlink()
    return {"file": source.filename, **source.digests}


def _unpack(archive: Path, name: str, folder: Path) -> None:
    """Unpacks a source distribution, which must be one folder without links out of it."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise InfrastructureError(
            f"{name} holds a member that is not safe to unpack: {error}. Nothing of it was kept."
        ) from error
    except (tarfile.TarError, EOFError) as error:
        raise InfrastructureError(f"{name} cannot be unpacked: {error}") from error
    tops = [entry.name for entry in folder.iterdir() if entry != archive]
    if len(tops) != 1:
        raise InfrastructureError(f"{name} holds {sorted(tops)}: expected one folder")
