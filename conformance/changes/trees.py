"""The two trees of a change: a checkout as it lies there, and its merge base."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from conformance.cache import cache_root
from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.vllm.cached_folders import made_once
from conformance.subjects.vllm.checkouts import described, read_tree
from conformance.subjects.vllm.progress import Progress
from conformance.suites.removal.scan import CI_SCRIPTS

GIT_SECONDS = 120
# Where a CI says which branch a pull request goes to.
BRANCH_VARIABLES = ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "GITHUB_BASE_REF")
USUAL_BASES = ("origin/HEAD", "origin/main", "upstream/main", "main")
# What can change a selection or a kernel; other files are not compared.
COMPARED = ("vllm", "csrc")
# What the suites read of a tree, and what says which packages it needs.
READ = (*COMPARED, "docs", *CI_SCRIPTS, "requirements", "pyproject.toml", "PKG-INFO")
# What selections and kernels depend on: a change elsewhere leaves their verdicts as they are.
JUDGED = (
    "csrc/",
    "vllm/_",
    "vllm/attention/",
    "vllm/config/",
    "vllm/envs.py",
    "vllm/model_executor/layers/attention",
    "vllm/model_executor/layers/quantization/",
    "vllm/platforms/",
    "vllm/triton_utils/",
    "vllm/utils/",
    "vllm/v1/attention/",
    "vllm/v1/kv_cache_interface.py",
)


@dataclass(frozen=True)
class Change:
    """A checkout, and what it is compared with.

    ``commit`` is the base's, "" where it is a folder; ``against`` names it for people;
    ``files`` are those of vLLM and of its sources that differ.
    """

    tree: Path
    base: Path
    commit: str
    against: str
    files: tuple[str, ...]

    @property
    def code_changed(self) -> bool:
        """Whether anything changed that a selection or a kernel depends on."""
        return any(name.startswith(JUDGED) for name in self.files)


def change_of(checkout: Path, base: str, progress: Progress) -> Change:
    """The change that a checkout is, with uncommitted files.

    ``base`` is a branch, a commit or a folder with another tree; "": the branch that a CI's
    variables name, else the remote's main branch.

    Raises:
        UsageError: the checkout or the base is none.
        InfrastructureError: git does not find where the change started.
    """
    tree = read_tree(checkout).folder
    if base and Path(base).is_dir():
        folder = read_tree(Path(base)).folder
        if folder.resolve() == tree.resolve():
            raise UsageError(f"--base {base}: is the checkout itself")
        return Change(tree, folder, "", str(base), differing(tree, folder))
    name = base or _usual_base(tree)
    commit = _merge_base(tree, name)
    folder = _exported(tree, commit, progress)
    return Change(
        tree, folder, commit, f"{commit[:12]}, {_how(tree, commit, name)}", differing(tree, folder)
    )


def _how(tree: Path, commit: str, name: str) -> str:
    tip = _git(tree, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    return name if tip == commit else f"the merge base with {name}"


def _usual_base(tree: Path) -> str:
    told = [f"origin/{os.environ[name]}" for name in BRANCH_VARIABLES if os.environ.get(name)]
    for name in (*told, *USUAL_BASES):
        if _resolves(tree, name):
            return name
    raise UsageError(
        f"{tree}: no base found: looked for {', '.join((*told, *USUAL_BASES))}. Name a branch, a "
        "commit or a folder with --base"
    )


def _resolves(tree: Path, name: str) -> bool:
    return bool(
        _git(
            tree,
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{name}^{{commit}}",
            ok=(0, 1, 128),
        )
    )


def _merge_base(tree: Path, name: str) -> str:
    if not (tree / ".git").exists():
        raise UsageError(
            f"{tree}: is no git checkout; name the tree to compare with: --base FOLDER"
        )
    if not _resolves(tree, name):
        raise UsageError(f"--base {name}: no such branch, commit or folder")
    found = _git(tree, "merge-base", name, "HEAD", ok=(0, 1)).strip()
    if not found:
        shallow = _git(tree, "rev-parse", "--is-shallow-repository").strip() == "true"
        how = "fetch more of its history (fetch-depth: 0, or git fetch --unshallow)"
        raise InfrastructureError(
            f"{tree}: HEAD and {name} have no commit in common: "
            f"{how if shallow else 'name another --base'}"
        )
    return found


def _exported(tree: Path, commit: str, progress: Progress) -> Path:
    """The tree of a commit, in the cache."""

    def make(folder: Path) -> dict[str, str]:
        archive = _run(tree, "archive", "--format=tar", commit)
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(folder, filter="data")
        version = described(tree, commit)
        if version and not (folder / "PKG-INFO").exists():
            text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
            (folder / "PKG-INFO").write_text(text, encoding="utf-8")
        return {"commit": commit}

    where = cache_root() / "trees" / commit
    return read_tree(
        made_once(where, make, what=f"vLLM at {commit[:12]}", progress=progress)
    ).folder


def _git(tree: Path, *words: str, ok: tuple[int, ...] = (0,)) -> str:
    return _run(tree, *words, ok=ok).decode(errors="replace")


def _run(tree: Path, *words: str, ok: tuple[int, ...] = (0,)) -> bytes:
    # A CI's checkout may belong to another user than the one who judges it.
    command = ["git", "-c", f"safe.directory={tree}", "-C", str(tree), *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfrastructureError(f"git {words[0]} in {tree}: {error}") from error
    if done.returncode not in ok:
        said = done.stderr.decode(errors="replace").strip().split("\n")[0]
        raise InfrastructureError(f"git {words[0]} in {tree} ended with {done.returncode}: {said}")
    return done.stdout if done.returncode == 0 else b""


def differing(tree: Path, base: Path) -> tuple[str, ...]:
    """The files of vLLM and of its sources that are not the same in both trees."""
    new, old = dict(_digests(tree)), dict(_digests(base))
    return tuple(sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name)))


def content_of(tree: Path) -> str:
    """What tells two trees apart for whoever judges them, wherever they lie."""
    found = sha256(read_tree(tree).version.encode())
    for name, digest in sorted(_digests(tree, READ, built=True)):
        found.update(name.encode() + b"\0" + digest)
    return found.hexdigest()


def _digests(
    tree: Path, parts: Sequence[str] = COMPARED, *, built: bool = False
) -> Iterator[tuple[str, bytes]]:
    """The files of some parts, with their hashes.

    Without ``built``: not what a build made, and not the version that it wrote.
    """
    for path in _files(tree / part for part in parts):
        made = path.suffix == ".so" or path.name == "_version.py"
        if path.suffix != ".pyc" and (built or not made):
            yield str(path.relative_to(tree)), sha256(path.read_bytes()).digest()


def _files(parts: Iterable[Path]) -> Iterator[Path]:
    for part in parts:
        if part.is_file():
            yield part
        for folder, below, files in os.walk(part):
            below[:] = [name for name in below if name != "__pycache__"]
            yield from (path for name in files if (path := Path(folder, name)).is_file())
