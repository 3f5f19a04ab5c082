"""Looking for a name in every file of a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.suites.removal.scan import SKIPPED_FOLDERS, Occurrence, scan

NAME = "VLLM_ROCM_CUSTOM_PAGED_ATTN"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "clean.py").write_text("nothing = 1\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "envs.py").write_text(f"one\n  x = '{NAME}'  \n# {NAME} {NAME}\n")
    (tmp_path / "a" / "kernel.so").write_bytes(b"\x7fELF\0" + NAME.encode() + b"\0")
    return tmp_path


def test_each_line_with_the_name_is_found_with_file_and_number(tree: Path) -> None:
    found, read = scan(tree, [tree], NAME)
    assert read == 3
    assert found == [
        Occurrence("a/envs.py", 2, f"x = '{NAME}'"),
        Occurrence("a/envs.py", 3, f"# {NAME} {NAME}"),
        Occurrence("a/kernel.so", 0, ""),
    ]
    assert str(found[0]) == f"a/envs.py:2: x = '{NAME}'"
    assert str(found[2]) == "a/kernel.so (binary)"


def test_a_name_that_is_nowhere_is_not_found_in_all_files_read(tree: Path) -> None:
    assert scan(tree, [tree], "VLLM_ROCM_OTHER") == ([], 3)


def test_only_the_parts_are_read(tree: Path) -> None:
    assert scan(tree, [tree / "clean.py"], NAME) == ([], 1)
    found, read = scan(tree, [tree / "a" / "envs.py", tree / "missing"], NAME)
    assert (len(found), read) == (2, 1)
    assert scan(tree, [], NAME) == ([], 0)


@pytest.mark.parametrize("folder", sorted(SKIPPED_FOLDERS))
def test_caches_and_environments_are_not_read(folder: str, tree: Path) -> None:
    hidden = tree / "a" / folder
    hidden.mkdir()
    (hidden / "file.py").write_text(NAME)
    found, read = scan(tree, [tree], NAME)
    assert (len(found), read) == (3, 3)


def test_text_that_is_no_utf8_is_read_all_the_same(tree: Path) -> None:
    (tree / "latin.txt").write_bytes(b"\xe9t\xe9 " + NAME.encode() + b"\n")
    found, _ = scan(tree, [tree / "latin.txt"], NAME)
    assert [(o.line, NAME in o.text) for o in found] == [(1, True)]


def test_a_long_line_is_shown_in_part(tree: Path) -> None:
    (tree / "long.txt").write_text(NAME + "x" * 5000)
    (one,), _ = scan(tree, [tree / "long.txt"], NAME)
    assert one.text.startswith(NAME)
    assert len(one.text) == 160


def test_a_link_to_nowhere_is_no_file(tree: Path) -> None:
    (tree / "dangling").symlink_to(tree / "missing")
    assert scan(tree, [tree], NAME)[1] == 3


def test_a_file_that_cannot_be_read_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        scan(tree, [tree], NAME)
