"""Marked code, copies that are edited, and tests that are run in forks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conformance.mutation import pytest_server
from conformance.mutation.probes import with_probes
from conformance.mutation.workspace import Workspace
from conformance.worker import lines
from conformance.worker.contract import LINES_MODULE, LINES_TO

SOURCE = '''\
"""A file."""

from __future__ import annotations

LIMIT = 3


class Holder:
    def method(self):
        """Says so."""
        def inner(x):
            return x + 1
        return inner(1)


def f(n):
    total = 0
    for i in range(n):
        if i > LIMIT:
            break
        elif i == 1:
            total += i
        else:
            total += 10
    try:
        total / n
    except ZeroDivisionError:
        total = -1
    return total
'''


def marked(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, set[int]]]:
    """The names of the file, with marks, and where these go."""
    files: dict[str, set[int]] = {}
    module = ModuleType(LINES_MODULE)
    module.__dict__["files"] = files
    monkeypatch.setitem(sys.modules, LINES_MODULE, module)
    names: dict[str, Any] = {"__name__": "marked"}
    exec(with_probes("a/file.py", SOURCE), names)
    return names, files


@pytest.mark.parametrize(
    ("n", "lines_run"),
    [(0, {17, 18, 25, 26, 28, 29}), (2, {17, 18, 19, 21, 22, 24, 25, 26, 29})],
)
def test_the_lines_that_ran_are_marked(
    monkeypatch: pytest.MonkeyPatch, n: int, lines_run: set[int]
) -> None:
    names, files = marked(monkeypatch)
    right: dict[str, Any] = {}
    exec(SOURCE, right)
    assert names["f"](n) == right["f"](n)
    assert files == {"a/file.py": lines_run}


def test_functions_within_others_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    names, files = marked(monkeypatch)
    assert names["Holder"]().method() == 2
    assert names["Holder"].method.__doc__ == "Says so."
    assert names["__doc__"] == "A file."
    assert files["a/file.py"] == {11, 12, 13}


def test_the_worker_notes_the_lines_of_each_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    into = tmp_path / "lines.json"
    monkeypatch.setenv(LINES_TO, str(into))
    monkeypatch.setitem(sys.modules, LINES_MODULE, ModuleType(LINES_MODULE))
    lines.expect()
    names: dict[str, Any] = {"__name__": "marked"}
    exec(with_probes("file.py", SOURCE), names)
    for call, expected in ((lambda: names["f"](0), "18"), (names["Holder"]().method, "11")):
        with lines.noted():
            call()
        assert f"[{'17, ' if expected == '18' else ''}{expected}, " in into.read_text()


def test_nothing_is_noted_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(LINES_TO, raising=False)
    monkeypatch.chdir(tmp_path)
    with lines.noted():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    original = tmp_path / "package"
    (original / "ops").mkdir(parents=True)
    (original / "__init__.py").write_text("")
    (original / "ops" / "a.py").write_text("X = 1\n")
    (original / "ops" / "b.py").write_text("X = 1\n")
    return original


def test_a_copy_is_edited_and_its_original_is_not(package: Path, tmp_path: Path) -> None:
    space = Workspace(package, tmp_path / "copy")
    space.edit("ops/a.py", "X = 2\n")
    assert (space.folder / "ops" / "a.py").read_text() == "X = 2\n"
    assert (package / "ops" / "a.py").read_text() == "X = 1\n"
    assert space.source("ops/a.py") == "X = 1\n"


def test_one_file_is_edited_at_a_time(package: Path, tmp_path: Path) -> None:
    space = Workspace(package, tmp_path / "copy")
    space.edit("ops/a.py", "X = 2\n")
    space.edit("ops/b.py", "X = 3\n")
    assert (space.folder / "ops" / "a.py").read_text() == "X = 1\n"
    space.restore()
    assert (space.folder / "ops" / "b.py").read_text() == "X = 1\n"


def test_what_is_replaced_counts_as_right(package: Path, tmp_path: Path) -> None:
    space = Workspace(package, tmp_path / "copy")
    space.replace("ops/a.py", "X = 1  # marked\n")
    space.edit("ops/a.py", "X = 2\n")
    space.restore()
    assert "marked" in (space.folder / "ops" / "a.py").read_text()
    assert space.source("ops/a.py") == "X = 1\n"


def test_bytecode_of_an_edit_cannot_be_taken_for_another(package: Path, tmp_path: Path) -> None:
    """Texts of one length, written within a second, differ in their files' times."""
    space = Workspace(package, tmp_path / "copy")
    times = set()
    for number in (2, 3):
        space.edit("ops/a.py", f"X = {number}\n")
        times.add(int((space.folder / "ops" / "a.py").stat().st_mtime))
    assert len(times) == 2


TESTS = """
import os, time
import rocm_conformance_lines

rocm_conformance_lines.files.setdefault("f.py", set()).add(3)

def test_passes():
    rocm_conformance_lines.files.setdefault("f.py", set()).add(7)

def test_fails():
    assert os.path.exists("nowhere"), "it is not there"

def test_hangs():
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    module = ModuleType(LINES_MODULE)
    module.__dict__["files"] = pytest_server.FILES
    monkeypatch.setitem(sys.modules, LINES_MODULE, module)
    return tmp_path


def order(*tests: str, **options: Any) -> dict[str, Any]:
    named = [f"test_it.py::{name}" for name in tests]
    return {"tests": named, "files": ["test_it.py"], "seconds": 30, "first": True, **options}


def test_tests_run_in_the_order_asked(project: Path) -> None:
    told = pytest_server.forked(order("test_fails", "test_passes"))
    assert (told["failed"], list(told["ran"])) == (
        "test_it.py::test_fails",
        ["test_it.py::test_fails"],
    )
    assert "it is not there" in told["message"]
    told = pytest_server.forked(order("test_passes", "test_fails", first=False))
    assert list(told["ran"]) == ["test_it.py::test_passes", "test_it.py::test_fails"]
    assert told["ran"]["test_it.py::test_passes"]["lines"] == {"f.py": [7]}
    assert told["ran"]["test_it.py::test_fails"]["lines"] == {}
    assert told["imported"] == {"f.py": [3]}
    assert pytest_server.FILES == {}
    assert project.is_dir()


def test_tests_that_hang_are_ended(project: Path) -> None:
    told = pytest_server.forked(order("test_hangs", seconds=2))
    assert told["broken"] == "timeout"
    assert project.is_dir()


def test_a_file_that_cannot_be_imported_is_a_failure(project: Path) -> None:
    told = pytest_server.forked({**order(), "files": ["test_broken.py"]})
    assert told["failed"].startswith("collecting")
    assert "no_such_module" in told["message"]
    assert project.is_dir()


def test_the_server_and_the_worker_mark_in_one_module() -> None:
    assert pytest_server.LINES_MODULE == LINES_MODULE
    assert os.environ.get(LINES_TO) is None


def test_only_functions_that_are_asked_for_are_marked() -> None:
    """Others may be read by what decorates them."""
    source = (
        "@read\ndef f(a):\n    return g(a, key=lambda b: b)\n\n\n@jit\ndef g(a):\n    return a\n"
    )
    made = with_probes("f.py", source, lambda function: function.name == "g")
    assert made.count(".add(") == 1
    assert ".add(8)" in made
    assert with_probes("f.py", source).count(".add(") == 3
