"""What pages say that commands print, they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.console_pages import PAGES, rewritten


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_output_of_a_page_is_real(page: Path) -> None:
    """If this fails: python -m tests.support.console_pages, and read what has changed."""
    text = page.read_text(encoding="utf-8")
    assert rewritten(text) == text


def test_an_output_that_is_not_real_shows() -> None:
    page = "```console\n$ rocm-conformance explain --model list\nno model\n```\n"
    assert rewritten(page) != page
    assert "openai/gpt-oss-120b" in rewritten(page)


def test_a_command_over_several_lines_is_one() -> None:
    page = "```console\n$ rocm-conformance explain \\\n    --model list\n```\n"
    assert rewritten(page).startswith(
        "```console\n$ rocm-conformance explain \\\n    --model list\nme"
    )
