"""Compiled kernels on disk, and what is linked: damage and absence are messages."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from conformance.devices.isa.native import objects
from conformance.devices.isa.native.compiler import (
    Loaded,
    NativeError,
    compile_text,
    undefined_symbols,
)
from conformance.devices.isa.native.objects import CACHE_VARIABLE, Compiled

MADE = Compiled(b"\x7fELF object", [0, 4], [4, 9], [240, 240], 3, whole=True)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))


def test_an_object_is_read_as_it_was_written() -> None:
    assert objects.read("one") is None
    objects.write("one", MADE)
    assert objects.read("one") == MADE


@pytest.mark.parametrize("damage", [b"", b"?", b"rocm-conformance native 1\n{}\n", None])
def test_a_damaged_object_is_removed_with_a_message(
    damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    objects.write("one", MADE)
    path = objects.folder() / "one"
    path.write_bytes(path.read_bytes()[:-1] + b"!" if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert objects.read("one") is None
    assert "a damaged native object" in caplog.text
    assert not path.exists()


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    for age, name in ((30, "old"), (20, "middle"), (10, "new")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))
    objects.prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["middle", "new"]


def test_a_cache_that_cannot_be_written_is_a_message(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        objects.write("one", MADE)
    assert "native objects are not kept" in caplog.text


def test_a_name_depends_on_all_that_decides() -> None:
    names = {
        objects.key("text", "gfx942", "host"),
        objects.key("text ", "gfx942", "host"),
        objects.key("text", "gfx950", "host"),
        objects.key("text", "gfx942", "other"),
        objects.key("text", "gfx942", "host", "races"),
    }
    assert len(names) == 5


def test_a_symbol_that_nothing_provides_is_named() -> None:
    data = compile_text(
        "declare void @nowhere_to_be_found()\n"
        "define i64 @workgroup() {\n  call void @nowhere_to_be_found()\n  ret i64 0\n}\n"
    )
    assert undefined_symbols(data) == ["nowhere_to_be_found"]
    with pytest.raises(NativeError, match="needs nowhere_to_be_found, which nothing provides"):
        Loaded(data)


def test_an_object_without_the_function_is_refused() -> None:
    with pytest.raises(NativeError, match="no function workgroup"):
        Loaded(compile_text("define i64 @other() {\n  ret i64 0\n}\n"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01", b"not an object"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(NativeError, match="not an object file"):
        Loaded(data)
