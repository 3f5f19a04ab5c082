"""A change's two trees: the merge base of a checkout, or another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.changes.trees import Change, change_of
from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.vllm.checkouts import read_tree
from conformance.subjects.vllm.progress import silent
from tests.changes.repositories import commit, git, write


def change(checkout: Path, base: str = "") -> Change:
    return change_of(checkout, base, silent)


def test_the_base_is_where_the_branch_began_not_where_main_is(
    checkout: Path, upstream: Path
) -> None:
    commit(checkout, {"vllm/platforms/rocm.py": "mine"})
    found = change(checkout)
    assert (found.base / "vllm/platforms/rocm.py").read_text() == "1"
    assert found.commit == git(upstream, "rev-parse", "v0.33.0")
    assert found.against == f"{found.commit[:12]}, the merge base with origin/HEAD"
    assert found.files == ("vllm/platforms/rocm.py",)
    assert found.code_changed


def test_uncommitted_files_are_part_of_the_change(checkout: Path) -> None:
    write(checkout, {"vllm/models/b.py": "new", "docs/b.md": "new"})
    found = change(checkout)
    assert found.files == ("vllm/models/b.py",)
    assert not found.code_changed


def test_the_base_says_which_version_it_is_based_on(checkout: Path) -> None:
    commit(checkout, {"vllm/models/a.py": "2"})
    assert read_tree(change(checkout).base).version == "0.33.0"


def test_a_ci_names_the_branch(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "push", "-q", "origin", "HEAD:refs/heads/releases")
    commit(checkout, {"vllm/models/a.py": "2"})
    monkeypatch.setenv("GITHUB_BASE_REF", "releases")
    assert change(checkout).against.endswith("origin/releases")


def test_a_folder_is_a_base_too(checkout: Path, upstream: Path) -> None:
    found = change(checkout, str(upstream))
    assert (found.commit, found.files) == ("", ("vllm/platforms/rocm.py",))
    with pytest.raises(UsageError, match="is the checkout itself"):
        change(checkout, str(checkout))


def test_built_files_are_no_change(checkout: Path, upstream: Path) -> None:
    write(upstream, {"vllm/platforms/rocm.py": "1"})
    built = {"vllm/_C.abi3.so": "x", "vllm/_version.py": "x", "vllm/__pycache__/a.pyc": "x"}
    write(checkout, built)
    assert change(checkout, str(upstream)).files == ()


def test_a_shallow_checkout_says_how_to_get_its_history(upstream: Path, tmp_path: Path) -> None:
    git(upstream, "checkout", "-q", "-b", "change", "v0.33.0")
    commit(upstream, {"vllm/models/a.py": "2"})
    git(upstream, "checkout", "-q", "main")
    tree = tmp_path / "shallow"
    address = upstream.as_uri()
    git(tmp_path, "clone", "-q", "--depth", "1", "--branch", "change", address, str(tree))
    git(tree, "fetch", "-q", "--depth", "1", "origin", "+main:refs/remotes/origin/main")
    commit(upstream, {"vllm/models/a.py": "3"})
    git(tree, "fetch", "-q", "--depth", "1", "origin", "+main:refs/remotes/origin/main")
    with pytest.raises(InfrastructureError, match="fetch-depth: 0"):
        change(tree)


@pytest.mark.parametrize("base", ["no-such", "--help", "HEAD~99"])
def test_a_base_that_is_none(base: str, checkout: Path) -> None:
    with pytest.raises(UsageError, match="no such branch, commit or folder"):
        change(checkout, base)


def test_a_folder_that_is_no_tree_or_no_checkout(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no source tree of vLLM"):
        change(tmp_path / "empty")
    write(tmp_path / "plain", {"vllm/platforms/rocm.py": "1"})
    with pytest.raises(UsageError, match="no base found"):
        change(tmp_path / "plain")
    with pytest.raises(UsageError, match="no source tree of vLLM"):
        change(checkout, str(tmp_path / "empty"))
