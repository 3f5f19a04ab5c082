"""The floors of the house, as pyproject.toml states them: imports go down only."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "conformance": ROOT / "conformance",
    "rocm_reference": ROOT / "kernels/rocm_reference",
    "vllm_editions": ROOT / "vllm_editions",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three packages and the contracts, to plant violations in."""
    folder = tmp_path_factory.mktemp("house")
    for name, source in PACKAGES.items():
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, str]:
    """The exit code and the output of import-linter on the packages of a folder."""
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command"
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}; lint_imports_command(['--no-cache'])"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def test_every_contract_is_kept(copy: Path) -> None:
    code, output = lint(copy)
    assert code == 0, output
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", output), output


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("conformance/errors.py", "import conformance.matrix.targets"),
        ("conformance/problems/problem.py", "import conformance.suites.case"),
        ("conformance/devices/resources.py", "import conformance.matrix.targets"),
        ("conformance/subjects/kernels.py", "import conformance.worker.wire"),
        ("conformance/oracle/bound.py", "import rocm_reference.attention"),
        ("vllm_editions/__init__.py", "import rocm_reference.selector"),
        ("rocm_reference/selector.py", "import conformance.errors"),
        ("rocm_reference/ops/rows.py", "import rocm_reference.backends.registry"),
        ("conformance/invented.py", "import conformance.errors"),
    ],
)
def test_a_violation_breaks_a_contract(copy: Path, file: str, planted: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{planted}\n", encoding="utf-8")
    try:
        code, output = lint(copy)
    finally:
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    assert code != 0, output
    assert path.stem in output or "broken" in output, output
