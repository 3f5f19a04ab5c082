"""The wheel beside other distributions: it installs three import names and shadows no one's."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"conformance", "rocm_reference", "vllm_editions"}
# `kernels` is a package of Hugging Face's, which transformers imports where it finds it:
# https://pypi.org/project/kernels/
OTHERS = ("kernels", "images", "buildkite")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    _pip("wheel", *options, str(_sources(folder / "sources")))
    (made,) = folder.glob("*.whl")
    return made


def _sources(folder: Path) -> Path:
    """The checkout's files as git has them: a build leaves nothing in the checkout itself."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def _stand_in(folder: Path) -> Path:
    """A distribution that owns the names that the suite's folders have."""
    for name in OTHERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"OWNER = 'other {name}'\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "owner-of-names"\nversion = "1"\n'
        f"[tool.setuptools]\npackages = {list(OTHERS)}\n"
    )
    return folder


def _run(site: Path, code: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=site,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_holds_three_packages_and_all_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == OURS
    folders = {"conformance": ROOT, "rocm_reference": ROOT / "kernels", "vllm_editions": ROOT}
    for package, parent in folders.items():
        listed = subprocess.check_output(["git", "ls-files", package], cwd=parent, text=True)
        assert set(listed.splitlines()) <= set(names)


def test_it_works_beside_a_distribution_that_owns_our_folders_names(
    wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    target = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    _pip("install", *target, str(wheel), str(_stand_in(tmp_path / "other")))
    for name in OTHERS:
        assert _run(site, f"import {name}; print({name}.OWNER)") == f"other {name}\n"
    code = (
        "import json, sys, conformance, rocm_reference, vllm_editions; "
        "from conformance.cli import run_cli; "
        f"places = [m.__file__ for m in (conformance, rocm_reference, vllm_editions)]; "
        f"assert all(p.startswith({str(site)!r}) for p in places), places; "
        "sys.exit(run_cli(['explain', '--target', 'gfx942', '--format', 'json']))"
    )
    assert '"selected": "ROCM_ATTN"' in _run(site, code)
