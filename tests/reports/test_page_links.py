"""Addresses that open one case or requirement, downloads, and what the page shows at a glance."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from conformance.reports.html_page import page
from conformance.reports.junit_reader import read_junit
from conformance.reports.merge import Merged
from tests.support.browser import Browser

OPENED = (
    "return [...document.querySelectorAll('details[open] > summary .name')]"
    ".map((element) => element.textContent)"
)
GO = """
const done = arguments[1];
addEventListener("hashchange", () => setTimeout(done, 50), {once: true});
location.hash = arguments[0];
"""


def shown(browser: Browser) -> int:
    return int(browser.text("#count").split()[0].replace(",", ""))


def go(browser: Browser, fragment: str) -> None:
    """Another address of the same page, as somebody types it."""
    browser.driver.execute_async_script(GO, fragment)


def requirement_of(browser: Browser) -> str:
    return str(browser.js("return document.getElementById('filter-requirement').value"))


def test_a_requirement_s_address_opens_it(browser: Browser, whole: Path) -> None:
    browser.open(whole, "#SEL-004")
    assert requirement_of(browser) == "SEL-004"
    assert browser.js("return document.activeElement.closest('details').open") is True
    assert browser.js("return document.getElementById('cases').getBoundingClientRect().top") < 100
    assert shown(browser) > 1


def test_a_case_s_address_opens_that_case_alone(browser: Browser, whole: Path) -> None:
    browser.open(whole, "#SEL-004")
    browser.driver.find_element(By.CSS_SELECTOR, "details.case > summary").click()
    links = [
        a for a in browser.driver.find_elements(By.CSS_SELECTOR, ".body a") if "this case" in a.text
    ]
    (name,) = browser.js(OPENED)
    address = str(links[0].get_attribute("href"))
    browser.open(whole, "#" + urlsplit(address).fragment)
    assert shown(browser) == 1
    assert browser.js(OPENED) == [name]
    assert browser.texts(".body")[0]
    assert browser.text("#one-case").startswith(f"Only {name} ")
    browser.driver.find_element(By.ID, "one-case").click()
    assert shown(browser) > 1


def test_a_changed_address_is_obeyed_and_so_is_back(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    initially = shown(browser)
    go(browser, "#SEL-017")
    assert requirement_of(browser) == "SEL-017"
    go(browser, "#?outcome=waived")
    assert (requirement_of(browser), browser.text("#count-waived")) == ("", str(shown(browser)))
    go(browser, "#PAR-001")
    assert requirement_of(browser) == "PAR-001"
    go(browser, "#matrix")
    assert requirement_of(browser) == "PAR-001"
    go(browser, "#")
    assert (requirement_of(browser), shown(browser)) == ("", initially)
    browser.driver.back()  # to the matrix
    browser.driver.back()
    WebDriverWait(browser.driver, 5, 0.05).until(lambda _: "PAR-001" in browser.driver.current_url)


def test_what_is_not_in_the_report_is_not_shown_as_something_else(
    browser: Browser, whole: Path
) -> None:
    for fragment in ("#SEL-999", "#?case=no%20such%20case"):
        browser.open(whole, fragment)
        assert browser.text("#count") == "No case fits these filters."
    browser.open(whole, "#%E0%A4%A")
    assert browser.console() == []


def test_a_section_s_address_stays(browser: Browser, whole: Path) -> None:
    browser.open(whole, "#parity")
    assert browser.driver.current_url.endswith("#parity")
    assert (
        abs(browser.js("return document.getElementById('parity').getBoundingClientRect().top")) < 60
    )


# ---- downloads -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def downloads(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("downloads")
    allow = {"behavior": "allow", "downloadPath": str(folder)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
    yield folder
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})


def downloaded(browser: Browser, folder: Path, ending: str) -> Path:
    path = folder / f"conformance-cases.{ending}"
    path.unlink(missing_ok=True)
    browser.driver.find_element(By.ID, f"download-{ending}").click()
    WebDriverWait(browser.driver, 10, 0.05).until(lambda _: path.exists())
    return path


def test_the_cases_that_are_shown_can_be_downloaded(
    browser: Browser, whole: Path, downloads: Path
) -> None:
    browser.open(whole, "#?outcome=failed+errored+waived")
    expected = shown(browser)
    with downloaded(browser, downloads, "csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    records = json.loads(downloaded(browser, downloads, "json").read_text(encoding="utf-8"))
    assert len(rows) == len(records) == expected > 3
    for row, record in zip(rows, records, strict=True):
        assert row["outcome"] in ("failed", "errored", "waived")
        assert (row["name"], row["message"]) == (record["name"], record["message"])
        assert row["cells"].split() == record["cells"]
    run = read_junit(downloaded(browser, downloads, "xml"))
    assert run.problems == ()
    own = [case for case in run.cases if case.edition]
    assert {(c.name, c.outcome.value, *c.cells) for c in own} == {
        (r["name"], r["outcome"], cell) for r in records if r["edition"] for cell in r["cells"]
    }
    assert browser.requests() == []


# ---- at a glance -----------------------------------------------------------------------------


def test_what_a_waiver_accepts_is_not_red(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    rows = browser.js(
        "return [...document.querySelectorAll('#parity-table tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    heads, *rows = rows
    found = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}["TRITON_ATTN"]
    assert (found["failed"], found["waived"], found["worst"]) == ("0", found["cases"], "633")
    classes = browser.js(
        "return [...document.querySelectorAll('.plot g')]"
        ".filter((g) => g.textContent.includes('TRITON_ATTN'))"
        ".map((g) => g.lastElementChild.getAttribute('class'))"
    )
    assert "worst accepted" in classes
    label = browser.js(
        "return document.querySelector('.bin:has(.waived[height]:not([height=\"0\"]))').ariaLabel"
    )
    assert label.endswith(" waived")


@pytest.mark.parametrize("pixels", [1360, 1400])
def test_the_last_stack_is_in_sight(browser: Browser, whole: Path, pixels: int) -> None:
    with browser.width(pixels):
        browser.open(whole)
        edges = browser.js(
            "const last = [...document.querySelectorAll('#heat th.cell')].at(-1);"
            "const heat = document.getElementById('heat').getBoundingClientRect();"
            "return [last.title, last.getBoundingClientRect().right, heat.right]"
        )
    assert edges[0].startswith("rocm100-")
    assert edges[1] <= edges[2] + 1


def test_the_top_says_in_words_what_failed(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    card = browser.texts(".subject")[1]
    intro, words = "Introduced by vllm-project/vllm#36702:", "MI3xx with AITER and its MHA"
    assert card.index(intro) < card.index(words) < card.index("SEL-004")
    assert "Has 2 tests: 1 passed, 1 failed." in browser.texts(".subject")[0]
    assert browser.text(".since").startswith("Against ")


def test_the_trend_says_since_when(browser: Browser, whole: Path) -> None:
    browser.open(whole)
    assert browser.text("#trend > p").startswith("4 builds since 2026-12-10 00:00 UTC")
    row = next(row for row in browser.texts("#trend tbody tr") if "SEL-004" in row)
    assert "failing since this build" in row


def test_a_report_of_nothing_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(Merged((), (), (), ()), {}), encoding="utf-8")
    browser.open(tmp_path / "report.html")
    assert browser.js("return document.documentElement.dataset.ready") == "yes"
    assert browser.console() == []
