"""The site: it is built without a warning, it fetches nothing, and it says what the code says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import pytest

from conformance.cli import cli

CHECKOUT = Path(__file__).parents[2]
# What a browser loads by itself: all but the target of a link.
LOADED = re.compile(r'(?:\bsrc|\bsrcset|<link[^>]*\bhref)="([^"]*)"')
IN_STYLE = re.compile(r"(?:url\(|@import\s+(?!url))[\"']?([^\"')\s]+)")
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//")


def build(docs: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-d", str(folder / "doctrees"), str(docs), str(folder / "site")]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(CHECKOUT / "docs", folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def loaded(site: Path) -> dict[str, str]:
    """What pages and styles load from elsewhere, each with one file that does."""
    found = {}
    for pattern, names in ((LOADED, "*.html"), (IN_STYLE, "*.css")):
        for file in site.rglob(names):
            for address in pattern.findall(file.read_text(encoding="utf-8")):
                if ELSEWHERE.match(address):
                    found[address] = str(file.relative_to(site))
    return found


@pytest.mark.xdist_group("site")
def test_the_site_fetches_nothing(site: Path) -> None:
    assert loaded(site) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example.org/css">'),
        ("a.css", "@import url(https://fonts.example.org/css);"),
    ],
)
def test_what_a_page_would_fetch_is_seen(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert len(loaded(tmp_path)) == 1


def commands_of(group: click.Command, path: str = "") -> dict[str, click.Command]:
    """The commands that a user is shown, by what is typed."""
    found = {path: group} if path else {}
    if not isinstance(group, click.Group):
        return found
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command and not command.hidden:
            found |= commands_of(command, f"{path} {name}".strip())
    return found


@pytest.mark.xdist_group("site")
def test_the_reference_has_every_command_and_option(site: Path) -> None:
    page = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    shown = unescape(re.sub(r"<[^>]+>", "", page))
    assert len(commands_of(cli)) > 10
    for name, command in commands_of(cli).items():
        anchor = f"rocm-conformance-{name.replace(' ', '-')}"
        assert f'id="{anchor}' in page, name
        for option in command.params:
            assert not isinstance(option, click.Option) or option.hidden or option.opts[0] in shown


@pytest.mark.xdist_group("site")
def test_formulas_and_schema_became_markup(site: Path) -> None:
    bound = (site / "explanation" / "error-bound.html").read_text(encoding="utf-8")
    assert bound.count("<math") > 50
    assert "\\sum" not in bound
    protocol = (site / "reference" / "worker-protocol.html").read_text(encoding="utf-8")
    assert "{{" not in protocol
    assert all(field in protocol for field in ("missing_backends", "num_kv_heads", "agprs"))


def frame(docs: Path, front: str) -> Path:
    """The site's frame with another front page."""
    for part in ("_extensions", "_static"):
        shutil.copytree(CHECKOUT / "docs" / part, docs / part)
    shutil.copy(CHECKOUT / "docs" / "conf.py", docs)
    (docs / "index.md").write_text(f"# Front\n\n{front}\n")
    return docs


def test_a_page_without_a_mistake_is_built(tmp_path: Path) -> None:
    docs = frame(tmp_path / "docs", "A page with a [link](index.md#front).")
    assert build(docs, tmp_path).returncode == 0


@pytest.mark.parametrize("target", ["no-such-page.md", "index.md#no-such-heading"])
def test_a_link_that_leads_nowhere_is_an_error(target: str, tmp_path: Path) -> None:
    done = build(frame(tmp_path / "docs", f"A page with a [link]({target})."), tmp_path)
    assert done.returncode != 0
    assert (target.partition("#")[2] or target) in done.stderr


def test_a_page_that_is_in_no_table_is_an_error(tmp_path: Path) -> None:
    docs = frame(tmp_path / "docs", "A page.")
    (docs / "other.md").write_text("# A page that nobody finds\n")
    done = build(docs, tmp_path)
    assert done.returncode != 0
    assert "other.md" in done.stderr
