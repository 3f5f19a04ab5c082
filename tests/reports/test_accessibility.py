"""The report page for everybody: by keyboard alone, and without grave findings of axe-core."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.axe import grave_findings
from tests.support.browser import Browser

OPEN_ALL = (
    "for (const each of document.querySelectorAll('details')) each.open = true;"
    "return document.querySelectorAll('details').length"
)
# What can be acted on: of a group of radio buttons one, of a grid or a plot's row one element.
REACHABLE = """
const seen = new Set();
return [...document.querySelectorAll(
    "a[href], button, input, select, summary, [tabindex='0']")].filter((element) => {
  if (!element.checkVisibility() || element.closest("dialog") || element.disabled) return false;
  if (element.tabIndex < 0) return false;
  if (element.type !== "radio") return true;
  if (!element.checked || seen.has(element.name)) return false;
  return seen.add(element.name);
}).map((element, number) => {
  element.dataset.reach = number;
  return element.outerHTML.slice(0, 90);
});
"""
# The number of the focused element, and whether one sees that it has the focus.
FOCUSED = """
const element = document.activeElement;
const shown = [element, element.nextElementSibling].filter(Boolean).map((e) => getComputedStyle(e));
return [element.dataset.reach ?? null,
  shown.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
  element.outerHTML.slice(0, 90)];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_grave(browser: Browser, whole: Path, theme: str) -> None:
    browser.media(prefers_color_scheme=theme)
    browser.open(whole, "#SEL-004")
    assert browser.js(OPEN_ALL) > 8
    browser.js(OPEN_ALL)  # those that the first call made
    sections = browser.js("return [...document.querySelectorAll('section')].map((each) => each.id)")
    assert {"changes", "trend", "record", "matrix", "parity", "compiled", "cases"} < set(sections)
    assert grave_findings(browser) == []
    browser.media()


def test_axe_bites(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    browser.js(
        "document.getElementById('changes').insertAdjacentHTML('beforeend', '<button></button>')"
    )
    (found,) = grave_findings(browser)
    assert found.startswith("button-name (critical)")


def test_every_control_is_reached_and_seen_with_the_tab_key(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    wanted = browser.js(REACHABLE)
    assert len(wanted) > 40
    reached, unseen = set(), set()
    for _ in range(3 * len(wanted)):
        browser.press(Keys.TAB)
        number, seen, html = browser.js(FOCUSED)
        if number is not None:
            if int(number) in reached:
                break
            reached.add(int(number))
            if not seen:
                unseen.add(html)
    missing = [html for number, html in enumerate(wanted) if number not in reached]
    assert missing == []
    assert unseen == set()


def test_a_change_is_read_and_followed_without_a_mouse(browser: Browser, whole: Path) -> None:
    """Skips to the cases; opens the changes, and follows a requirement to its cases."""
    browser.open(whole)
    browser.press(Keys.TAB)
    assert browser.js("return document.activeElement.className") == "skip"
    browser.press(Keys.ENTER)
    browser.press(Keys.TAB)
    assert browser.focused("id") == "search"
    browser.js("document.querySelector('#changes summary').focus()")
    was = browser.js("return document.activeElement.parentElement.open")
    browser.press(Keys.ENTER)
    assert browser.js("return document.activeElement.parentElement.open") is not was
    browser.press(Keys.SPACE)
    browser.press(Keys.TAB)
    assert browser.focused("role") == "region"
    browser.press(Keys.TAB)
    requirement = browser.js("return document.activeElement.textContent")
    browser.press(Keys.ENTER)
    assert browser.js("return document.getElementById('filter-requirement').value") == requirement
    assert browser.js("return document.activeElement.tagName") == "SUMMARY"


def test_a_dialog_gives_the_focus_back(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    browser.tab_to("help-open")
    browser.press(Keys.ENTER)
    assert browser.js("return document.activeElement.closest('dialog').id") == "help"
    browser.press(Keys.ESCAPE)
    assert browser.focused("id") == "help-open"
