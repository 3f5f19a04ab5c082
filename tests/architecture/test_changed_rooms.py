"""`make check` runs the tests of the rooms that a change touched: each room has some."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.changed_rooms import FOLDERS_OF, ROOT, folders_for


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (["conformance/oracle/bound.py"], ["tests/architecture", "tests/oracle"]),
        (["conformance/cli.py"], ["tests/architecture", "tests/commands"]),
        (["conformance/devices/isa/state.py"], ["tests/architecture", "tests/emulator"]),
        (["kernels/rocm_reference/ops/rows.py"], ["tests/architecture", "tests/kernels"]),
        (["vllm_editions/0.19.toml"], ["tests/kernels/test_selector.py", "tests/requirements"]),
        (
            ["vllm_editions/0.19.toml", "kernels/rocm_reference/selector.py"],
            ["tests/architecture", "tests/kernels", "tests/requirements"],
        ),
        (["conformance/requirements/parity.toml"], ["tests/requirements"]),
        (["images/Dockerfile"], ["tests/containers"]),
        (["tests/reports/test_junit.py"], ["tests/architecture", "tests/reports"]),
        (["tests/support/results.py", "tox.ini"], ["tests"]),
        (["CHANGELOG.md"], []),
    ],
)
def test_the_tests_of_a_change(paths: list[str], wanted: list[str]) -> None:
    assert folders_for(paths) == wanted


def test_every_room_has_tests() -> None:
    rooms = [path.parent for path in (ROOT / "conformance").glob("*/__init__.py")]
    assert len(rooms) > 10
    for room in rooms:
        assert set(folders_for([f"conformance/{room.name}/some.toml"])), f"{room} has no tests"


def test_every_folder_that_is_named_is_there() -> None:
    for names in FOLDERS_OF.values():
        for name in names:
            assert Path(ROOT, name).exists() or name == "tests/docs"
