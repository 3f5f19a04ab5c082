"""tox environments share the packages of the environment that tox runs in, where they can."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from tox.tox_env.python.runner import PythonRun

FILE = Path(__file__).parents[2] / "toxfile.py"


@pytest.fixture(scope="module")
def toxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toxfile", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(packages: Path, version: tuple[int, ...] = sys.version_info[:3]) -> Any:
    made = Mock(spec=PythonRun)
    made.env_site_package_dir.return_value = packages
    made.base_python = Mock(version_info=version)
    return made


def test_an_environment_finds_the_packages_that_are_installed_here(
    toxfile: ModuleType, tmp_path: Path
) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    python = tmp_path / "bin" / "python"
    (packages,) = tmp_path.glob("lib/*/site-packages")
    where = "from importlib.util import find_spec as f; print(f('torch').origin); "
    where += "print(f('triton').origin)"
    assert subprocess.run([python, "-c", where], capture_output=True, check=False).returncode
    (packages / "triton.py").touch()
    toxfile.tox_on_install(environment(packages), None, "deps", "deps")
    done = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    torch, triton = map(Path, done.stdout.split())
    assert torch.is_relative_to(sysconfig.get_path("purelib"))
    assert triton.parent == packages  # its own comes first


def test_another_python_or_an_environment_without_torch_shares_nothing(
    toxfile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toxfile.tox_on_install(environment(tmp_path, (3, 9, 1)), None, "deps", "deps")
    toxfile.tox_on_install(Mock(), None, "deps", "deps")
    monkeypatch.setattr(toxfile, "find_spec", lambda _name: None)
    toxfile.tox_on_install(environment(tmp_path), None, "deps", "deps")
    assert not list(tmp_path.iterdir())
