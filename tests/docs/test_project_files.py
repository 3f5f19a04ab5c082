"""What the project's own files promise: a short README, one licence, the same tools everywhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[2]
HOOKS = {
    "https://github.com/astral-sh/ruff-pre-commit": "ruff",
    "https://github.com/codespell-project/codespell": "codespell",
}
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)(?:#[^)]*)?\)")


def text(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def test_readme_is_read_in_one_sitting() -> None:
    assert len(text("README.md").splitlines()) <= 120


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in LINK.findall(text(name)):
        assert (CHECKOUT / target).exists(), target


def test_the_licence_is_the_one_that_the_package_states() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in text("LICENSE")


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", text("CHANGELOG.md"), re.M)
    assert "## Unreleased" in text("CHANGELOG.md")


@pytest.mark.parametrize(("repository", "package"), HOOKS.items())
def test_hooks_are_the_versions_that_lint_has(repository: str, package: str) -> None:
    hook = re.search(
        rf"repo: {re.escape(repository)}\n\s*rev: v(\S+)", text(".pre-commit-config.yaml")
    )
    pin = re.search(rf"^{package}==(\S+)$", text("constraints/base.txt"), re.MULTILINE)
    assert hook is not None
    assert pin is not None
    assert hook[1] == pin[1]
