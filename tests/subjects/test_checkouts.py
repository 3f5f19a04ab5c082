"""vLLM's source trees: what version they say they are based on, and what they are run with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conformance.errors import UsageError
from conformance.subjects.vllm.checkouts import packages_of, read_tree
from conformance.subjects.vllm.dependencies import table

NEWEST = list(table())[-1]
VERSION_FILE = """
TYPE_CHECKING = False
__version__: str
version: str
__version__ = version = '0.31.0'
"""


def tree(folder: Path, **files: str) -> Path:
    """A source tree of nothing but what a version is read from."""
    for name, text in {"vllm/platforms/rocm.py": "", **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def git(folder: Path, *words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *author, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    tree(tmp_path, **{"vllm/_version.py": VERSION_FILE})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_git_tags_come_before_the_version_file_of_the_last_build(repository: Path) -> None:
    git(repository, "tag", "v0.32.0")
    found = read_tree(repository)
    assert (found.version, found.said_by) == ("0.32.0", "git tags")
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    found = read_tree(repository)
    assert found.version.startswith("0.32.0+1.g")
    assert packages_of(found).name == "0.32 to 0.33"


def test_without_a_tag_the_version_file_says_it(repository: Path) -> None:
    git(repository, "tag", "nightly")
    found = read_tree(repository)
    assert (found.version, found.said_by) == ("0.31.0", "file vllm/_version.py")
    assert packages_of(found).name == "0.30 to 0.31"
    assert "based on 0.31.0 by its file vllm/_version.py" in found.note


def test_a_source_distribution_says_it_in_its_metadata(tmp_path: Path) -> None:
    information = "Metadata-Version: 2.4\nName: vllm\nVersion: 0.19.1\n\nVersion: 9.9\n"
    found = read_tree(tree(tmp_path, **{"PKG-INFO": information}))
    assert (found.version, found.said_by) == ("0.19.1", "PKG-INFO")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"vllm/_version.py": "__version__ = version = '0.1.dev7+g1234567'\n"},
        {"vllm/_version.py": "__version__ = compute()\n"},
        {"vllm/_version.py": "this is no Python\n"},
        {"PKG-INFO": "Version: main\n"},
    ],
)
def test_a_tree_that_does_not_say_what_it_is_based_on(
    files: dict[str, str], tmp_path: Path
) -> None:
    found = read_tree(tree(tmp_path, **files))
    assert (found.version, found.said_by) == ("", "")
    assert "of no release" in found.note


@pytest.mark.parametrize(
    ("asked", "row"),
    [
        ("transformers >= 4.56.0, < 5", "0.18 to 0.19"),
        ("transformers >= 5.5.3  # newer is fine", NEWEST),
        ("numpy", NEWEST),
        ("transformers >= 9", NEWEST),
    ],
)
def test_its_requirements_say_which_packages_it_is_run_with(
    asked: str, row: str, tmp_path: Path
) -> None:
    text = f"# a comment\n-r other.txt\n{asked}\n"
    found = read_tree(tree(tmp_path, **{"requirements/common.txt": text}))
    assert packages_of(found).name == row


@pytest.mark.parametrize(("version", "row"), [("0.17.2", "0.18 to 0.19"), ("0.40.0", NEWEST)])
def test_outside_the_range_it_is_run_with_what_the_nearest_release_imports(
    version: str, row: str, tmp_path: Path
) -> None:
    found = read_tree(tree(tmp_path, **{"PKG-INFO": f"Version: {version}\n"}))
    assert packages_of(found).name == row


def test_a_folder_that_is_no_source_tree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no source tree of vLLM.*root of a checkout"):
        read_tree(tmp_path)
