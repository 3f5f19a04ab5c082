"""vLLM's source tree as a subject: a checkout or an unpacked source distribution, unbuilt.

The ROCm selector and the attention classes are plain Python, so a tree is judged as it lies there:
its folder comes first on the worker's path, before the packages of the nearest release. Compiled
files are neither needed nor made, and nothing is written into the tree.
"""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from conformance.cache import cache_root
from conformance.errors import UsageError
from conformance.subjects.vllm.cached_folders import made_once
from conformance.subjects.vllm.dependencies import Needs, nearest_needs, table
from conformance.subjects.vllm.progress import Progress
from vllm_editions import is_release

# The file without which a tree has no ROCm selector.
SELECTOR = Path("vllm/platforms/rocm.py")
_VERSION_FILE = Path("vllm/_version.py")
_REQUIREMENTS = Path("requirements/common.txt")
_DESCRIBED = re.compile(r"v?(?P<tag>\d[\w.]*?)(?:-(?P<commits>\d+)-g(?P<commit>[0-9a-f]+))?")
_GIT_SECONDS = 20
_UNKNOWN_VERSION = "0.0.0"


@dataclass(frozen=True)
class SourceTree:
    """A tree and the version that it says it is based on.

    ``version`` is empty where the tree does not say; ``said_by`` is where it was read.
    """

    folder: Path
    version: str = ""
    said_by: str = ""

    @property
    def note(self) -> str:
        """One sentence for reports: what is judged, and on which version it is based."""
        based = (
            f"based on {self.version} by its {self.said_by}" if self.version else "of no release"
        )
        return f"vLLM's source tree, unbuilt, {based}"


def read_tree(folder: Path) -> SourceTree:
    """A folder as vLLM's source tree.

    Raises:
        UsageError: the folder is not one.
    """
    folder = folder.absolute()
    if not (folder / SELECTOR).is_file():
        raise UsageError(
            f"--subject {folder}: this folder has no {SELECTOR}, so it is no source tree of vLLM. "
            "Name the root of a checkout, or the Python of an environment that has vLLM "
            "(PATH/TO/bin/python)."
        )
    for said_by, read in _SOURCES.items():
        version = read(folder)
        if version and is_release(version):
            return SourceTree(folder, version, said_by)
    return SourceTree(folder)


def packages_of(tree: SourceTree) -> Needs:
    """The packages to import a tree with: the nearest release's.

    Of a tree that does not say its version, the newest whose transformers it asks for: the other
    packages of later releases do not hinder earlier ones.
    """
    if tree.version:
        return nearest_needs(Version(tree.version))
    rows = list(table().values())[::-1]
    asked = _transformers(tree.folder / _REQUIREMENTS)
    return next((row for row in rows if asked.contains(_pinned_transformers(row))), rows[0])


def metadata_folder(tree: SourceTree, progress: Progress) -> Path:
    """A folder with the installed package's metadata, which vLLM looks its own version up in."""
    version = tree.version or _UNKNOWN_VERSION

    def make(folder: Path) -> dict[str, str]:
        info = folder / f"vllm-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")
        return {"version": version}

    where = cache_root() / "metadata" / version
    return made_once(where, make, what="the metadata of an unbuilt vLLM", progress=progress)


def described(folder: Path, commit: str = "HEAD") -> str:
    """The version of the last tag before a commit, and how far the commit is from it."""
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--tags", "--match", "v[0-9]*", commit]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _DESCRIBED.fullmatch(done.stdout.strip())
    if done.returncode or found is None:
        return ""
    apart = f"+{found['commits']}.g{found['commit']}" if found["commits"] else ""
    return _valid(f"{found['tag']}{apart}")


def _version_file(folder: Path) -> str:
    """The version in the file that setuptools_scm wrote at the last build."""
    try:
        parsed = ast.parse((folder / _VERSION_FILE).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in parsed.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & {"__version__", "version"} and isinstance(node.value.value, str):
                return _valid(node.value.value)
    return ""


def _package_information(folder: Path) -> str:
    """The version in the metadata of a source distribution."""
    try:
        text = (folder / "PKG-INFO").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    return _valid(HeaderParser().parsestr(text, headersonly=True).get("Version", ""))


_SOURCES = {
    "git tags": described,
    f"file {_VERSION_FILE}": _version_file,
    "PKG-INFO": _package_information,
}


def _valid(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion:
        return ""


def _transformers(file: Path) -> SpecifierSet:
    """The versions of transformers that a tree's requirements ask for; all where it has none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return SpecifierSet()
    for line in lines:
        try:
            asked = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        if asked.name == "transformers":
            return asked.specifier
    return SpecifierSet()


def _pinned_transformers(row: Needs) -> str:
    pins = (Requirement(pin) for pin in row.pins)
    return next(next(iter(p.specifier)).version for p in pins if p.name == "transformers")
