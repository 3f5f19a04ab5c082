"""Compilations are kept by content, and a compiler that is missing is told with its package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.devices.hip import clang as clang_module
from conformance.devices.hip.clang import (
    AITER,
    VLLM,
    ClangMissingError,
    CompileError,
    device_flags,
    find_clang,
)
from conformance.devices.hip.compiled import Compilations
from conformance.devices.hip.kernels import constants_text

SOURCE = '#include "csrc/value.h"\nint answer = VALUE;\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return made_tree(tmp_path / "tree", 1)


def made_tree(root: Path, value: int) -> Path:
    (root / "csrc").mkdir(parents=True)
    (root / "csrc" / "value.h").write_text(f"#define VALUE {value}\n", encoding="utf-8")
    return root


def compiled(folder: Path, tree: Path, source: str = SOURCE, *flags: str) -> tuple[Path, bool]:
    """The made file, and whether it was made now."""
    compilations = Compilations(find_clang(), folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    made = compilations.made(
        source, lambda root: ["-x", "c++", "-S", "-I", str(root), *flags], tree, ".s", "it"
    )
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    return made, before != after


def test_the_same_is_compiled_once(tmp_path: Path, tree: Path) -> None:
    first, made = compiled(tmp_path / "cache", tree)
    assert made
    assert ".long\t1" in first.read_text(encoding="utf-8")
    assert compiled(tmp_path / "cache", tree) == (first, False)


def test_a_tree_elsewhere_with_the_same_files_is_the_same(tmp_path: Path, tree: Path) -> None:
    first, _ = compiled(tmp_path / "cache", tree)
    other = made_tree(tmp_path / "other", 1)
    assert compiled(tmp_path / "cache", other) == (first, False)


def test_a_header_that_changed_is_compiled_anew(tmp_path: Path, tree: Path) -> None:
    compiled(tmp_path / "cache", tree)
    (tree / "csrc" / "value.h").write_text("#define VALUE 22\n", encoding="utf-8")
    second, made = compiled(tmp_path / "cache", tree)
    assert made
    assert ".long\t22" in second.read_text(encoding="utf-8")


def test_other_flags_and_other_sources_are_other_entries(tmp_path: Path, tree: Path) -> None:
    compiled(tmp_path / "cache", tree)
    _, flagged = compiled(tmp_path / "cache", tree, SOURCE, "-O1")
    _, edited = compiled(tmp_path / "cache", tree, SOURCE + "int more;\n")
    assert flagged
    assert edited
    assert compiled(tmp_path / "cache", tree)[1] is False


def test_an_entry_whose_file_is_lost_is_made_again(tmp_path: Path, tree: Path) -> None:
    first, _ = compiled(tmp_path / "cache", tree)
    first.unlink()
    second, made = compiled(tmp_path / "cache", tree)
    assert made
    assert second == first
    assert second.is_file()


def test_what_clang_refuses_is_told_and_not_kept(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(CompileError, match=r"^clang 2.* does not compile it:\s.*error: expected"):
        compiled(tmp_path / "cache", tree, "int answer = ;\n")
    assert not list((tmp_path / "cache").iterdir())


def fake(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho 'Debian clang version {version}'\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is all of PATH; what is found there is forgotten afterwards."""
    find_clang.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(clang_module.VARIABLE, raising=False)
    (tmp_path / "bin").mkdir()
    yield tmp_path / "bin"
    find_clang.cache_clear()


def test_no_clang_names_the_packages(programs: Path) -> None:
    with pytest.raises(ClangMissingError, match=r"none is here: apt-get .*clang-22") as told:
        find_clang()
    assert "make install-hip" in str(told.value)
    assert not list(programs.iterdir())


def test_an_old_clang_is_none(programs: Path) -> None:
    fake(programs, "clang++", "19.1.7")
    with pytest.raises(ClangMissingError, match=r"none is here \(clang\+\+ is 19.1.7\)"):
        find_clang()


def test_the_newest_is_taken_and_the_environment_goes_first(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(programs, "clang++-22", "22.1.8")
    fake(programs, "clang++-23", "23.1.0")
    assert find_clang().version == "23.1.0"
    find_clang.cache_clear()
    monkeypatch.setenv(clang_module.VARIABLE, str(programs / "clang++-22"))
    assert find_clang().version == "22.1.8"


def test_a_named_clang_may_be_older(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are looked for are those of the waivers; one that is named is meant."""
    fake(programs, "clang++-20", "20.1.2")
    with pytest.raises(ClangMissingError):
        find_clang()
    assert not clang_module.is_named()
    find_clang.cache_clear()
    monkeypatch.setenv(clang_module.VARIABLE, "clang++-20")
    assert find_clang().version == "20.1.2"
    assert clang_module.is_named()
    find_clang.cache_clear()
    fake(programs, "clang++-20", "19.1.7")
    with pytest.raises(ClangMissingError, match="clang 20 or later"):
        find_clang()


def test_rocms_clang_brings_its_device_libraries(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ROCm lays them beside the compiler: /opt/rocm/llvm/bin and /opt/rocm/amdgcn/bitcode."""
    fake(programs, "clang++", "22.0.0git (https://github.com/ROCm/llvm-project roc-7.2.3 26084)")
    monkeypatch.setenv(clang_module.VARIABLE, str(programs / "clang++"))
    found = find_clang()
    assert found.version == "22.0.0 (ROCm 7.2.3)"
    assert found.libraries == clang_module.triton_folder() / "lib"
    own = programs.parents[1] / "amdgcn" / "bitcode"
    own.mkdir(parents=True)
    (own / "ocml.bc").touch()
    assert found.libraries == own


def test_flags_are_the_projects_own() -> None:
    """vLLM builds with CMake's RelWithDebInfo, aiter at -O3 with denormals flushed."""
    for build, level, flushed in ((VLLM, "-O2", 0), (AITER, "-O3", 1)):
        flags = device_flags("gfx942", [], build)
        assert [flag for flag in flags if flag.startswith("-O")] == [level]
        assert ("-fgpu-flush-denormals-to-zero" in flags) is bool(flushed)
        text = constants_text("gfx942", 64, build.flushes)
        assert f"__oclc_daz_opt = {flushed};" in text
