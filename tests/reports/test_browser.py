"""The report page in a real browser: keys, themes, hostile texts, requests, twenty thousand cases.

Nothing here is timed: that a page is quick with many cases shows in how few elements it makes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from conformance.reports.collect import Collected, Input
from conformance.reports.html_page import page
from conformance.reports.merge import merge
from conformance.reports.report_files import Earlier, build
from conformance.results import Outcome, Run
from tests.support.browser import Browser
from tests.support.results import CASE, FAILED, JOB, A, B, many_cases, parity_cases, write_run

ATTACKS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<!--<script>",
    "<img src=x onerror=window.hacked=1>",
    '" onmouseover="window.hacked=1" autofocus onfocus="window.hacked=1',
    "javascript:window.hacked=1",
    "{{ 7*7 }}${7*7}",
    "]]>\u2028\u2029\x1b[31m\u202egpj.exe\ud800",
    "__proto__",
)
CONTRAST = """
const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = rgba(getComputedStyle(at).backgroundColor);
    if (found[3] > 0.99) return found;
  }
  return [255, 255, 255, 1];
};
const poor = new Set();
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const box = element.getBoundingClientRect();
  if (!own || box.width < 2 || box.height < 2 || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const svg = element instanceof SVGElement;
  const a = luminance(rgba(svg ? style.fill : style.color)), b = luminance(behind(element));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const words = element.textContent.trim().slice(0, 30);
  if (ratio < 4.5) poor.add(`${element.outerHTML.slice(0, 40)} ${words}: ${ratio.toFixed(2)}`);
}
return [...poor];
"""


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of thing on it: failures, parity, a lost cell, a broken file."""
    folder = tmp_path_factory.mktemp("usual")
    cases = list(many_cases(400))
    errored = replace(CASE, name="dead", outcome=Outcome.ERRORED, message="worker died", cells=(B,))
    write_run(folder / f"{JOB}1", [*cases, FAILED, replace(errored, detail="stderr\nlines")])
    write_run(folder / "parity", parity_cases(300), started="2027-01-03T00:00:00+00:00")
    (folder / "junit-rocm64-aiter-mha.xml").write_text("junk")
    build(folder, folder / "report", ["rocm72-*"], "https://example.org/builds/7")
    return folder / "report" / "report.html"


def count_of(browser: Browser) -> int:
    return int(browser.text("#count").split()[0].replace(",", ""))


def settled(browser: Browser) -> None:
    """Waits for what the page itself waits for: its pause after typing, and a frame."""
    browser.driver.execute_async_script(
        "const done = arguments[0]; setTimeout(() => requestAnimationFrame(done), 150)"
    )


def test_it_opens_without_errors_and_asks_for_nothing(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    assert browser.js("return document.documentElement.dataset.ready") == "yes"
    assert browser.text("h1") == "Not conformant"
    for summary in browser.driver.find_elements(By.CSS_SELECTOR, "summary")[:5]:
        summary.click()
    assert browser.console() == []
    assert browser.requests() == []


def test_the_record_of_a_bad_page_shows_what_it_did(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>missing()</script>")
    browser.open(bad)
    assert any("missing is not defined" in line for line in browser.console())
    assert browser.requests() == ["http://127.0.0.1:9/x.png"]


def test_failures_come_first_with_all_that_a_reader_needs(browser: Browser, usual: Path) -> None:
    browser.open(usual, "#?search=%5Bgfx950%5D%20has_sink&requirement=SEL-004")
    assert count_of(browser) == 1
    browser.driver.find_element(By.CSS_SELECTOR, "details.case > summary").click()
    settled(browser)
    body = browser.text(".body")
    for part in (
        "expected ROCM_ATTN, got TRITON_ATTN",
        "ROCM_AITER_FA attention sinks not supported, compute capability not supported",
        "has_sink=True",
        "1 of 4 rows are wrong",
        "example.org/source",
        f"rocm-conformance select --cell {A} --target gfx950",
        f"{JOB}1/results.jsonl",
    ):
        assert part in body, part
    links = [
        a.get_attribute("href") for a in browser.driver.find_elements(By.CSS_SELECTOR, ".body a")
    ]
    assert f"https://example.org/builds/7#{JOB}1" in links
    browser.driver.find_element(By.CSS_SELECTOR, ".copy").click()
    WebDriverWait(browser.driver, 10, 0.05).until(lambda _: browser.text(".copy") == "Copied")


def test_filters_work_without_a_mouse(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    failed = count_of(browser)
    browser.press("/")
    assert browser.focused("id") == "search"
    browser.press("[gfx950]")
    settled(browser)
    assert count_of(browser) == 1
    browser.press(Keys.ESCAPE)
    browser.press("x")
    whole = count_of(browser)
    assert whole == 702 > failed > 1
    browser.press("5")
    passed = count_of(browser)
    assert 0 < passed < whole
    browser.press("5")
    assert count_of(browser) == whole
    browser.open(usual, "#?")
    assert browser.tab_to("search") < 35
    browser.tab_to("outcome-failed")
    browser.press(Keys.SPACE)
    assert 0 < count_of(browser) < passed
    browser.tab_to("filter-cell")
    browser.press(B[:9])
    assert browser.js("return document.getElementById('filter-cell').value") == B
    assert "cell=rocm72-noaiter-mha" in browser.driver.current_url


def test_cases_are_walked_and_opened_with_keys(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    browser.press("j")
    browser.press(Keys.ENTER)
    settled(browser)
    browser.press("j")
    browser.press(Keys.ENTER)
    settled(browser)
    assert browser.js("return document.activeElement.parentElement.open") is True
    assert browser.texts(".body")[0]
    browser.press("k")
    assert "group" in browser.js("return document.activeElement.parentElement.className")
    browser.press("?")
    assert browser.js("return document.getElementById('help').open") is True
    browser.press(Keys.ESCAPE)
    assert browser.js("return document.getElementById('help').open") is False


def test_the_matrix_is_walked_with_arrows_and_leads_to_cases(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    browser.tab_to("attention")
    browser.press(Keys.TAB)
    assert browser.focused("role") == "gridcell"
    start = browser.focused("data-cell")
    browser.press(Keys.ARROW_RIGHT)
    assert browser.focused("data-cell") != start
    browser.press(Keys.END)
    last = browser.focused("data-cell")
    browser.press(Keys.HOME)
    assert browser.focused("data-cell") == start != last
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "td[tabindex='0']")) == 1
    label = browser.js(
        "const t = [...document.querySelectorAll('#heat .tile.failed')][0].parentElement;"
        "t.focus(); return t.ariaLabel"
    )
    browser.press(Keys.ENTER)
    failed = int(label.partition(": ")[2].split(" failed")[0])
    assert int(browser.text("#count-failed")) == failed
    assert browser.js("return document.activeElement.tagName") == "SUMMARY"


def test_lost_cells_show_in_the_matrix(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    labels = browser.js(
        "return [...document.querySelectorAll('#heat .tile.missing')]"
        ".map((tile) => tile.parentElement.dataset.cell)"
    )
    assert set(labels) == {"rocm64-aiter-mha", "rocm72-aiter-nomha", "rocm72-noaiter-nomha"}
    assert "rocm64-aiter-mha" in browser.text("#record")
    browser.driver.find_element(By.CSS_SELECTOR, "input[value=backends] + span").click()
    assert "TRITON_MLA" in browser.texts("#heat tbody th code")


def test_parity_bars_lead_to_their_cases(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    label = browser.js(
        "const tall = (bar) => bar.querySelector('.good').height.baseVal.value;"
        "const bars = [...document.querySelectorAll('.bin')].sort((a, b) => tall(b) - tall(a));"
        "bars[0].focus(); return bars[0].getAttribute('aria-label')"
    )
    browser.press(Keys.ARROW_LEFT)
    browser.press(Keys.ARROW_RIGHT)
    assert browser.focused("aria-label") == label
    browser.press(Keys.ENTER)
    assert count_of(browser) == int(label.partition(": ")[2].split()[0])
    assert browser.driver.find_element(By.ID, "range").is_displayed()
    browser.driver.find_element(By.ID, "range").click()
    assert not browser.driver.find_element(By.ID, "range").is_displayed()


def test_parity_rows_show_the_error_that_the_ratio_is_of(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    table = browser.driver.find_element(By.ID, "parity-table")
    heads = [head.text for head in table.find_elements(By.CSS_SELECTOR, "thead th")]
    rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
    assert rows
    for row in rows:
        texts = [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]
        cells = dict(zip(heads, texts, strict=True))
        ratio, error, bound, largest = (
            float(cells[head]) for head in ("worst", "its error", "its bound", "largest error")
        )
        assert error == pytest.approx(ratio * bound, rel=0.03)
        assert largest == pytest.approx(3 * error, rel=0.03)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_can_be_read(browser: Browser, usual: Path, theme: str) -> None:
    browser.media(prefers_color_scheme=theme)
    browser.open(usual)
    browser.driver.find_element(By.CSS_SELECTOR, "details.group > summary").click()
    settled(browser)
    for summary in browser.driver.find_elements(By.CSS_SELECTOR, "details.case > summary")[:2]:
        summary.click()
    settled(browser)
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 380) == (theme == "light")
    assert browser.js(CONTRAST) == []
    browser.js(
        "document.body.insertAdjacentHTML('beforeend', '<p id=faint>faint</p>');"
        "document.getElementById('faint').style.color = "
        "'color-mix(in srgb, var(--text) 40%, var(--page))'"
    )
    assert len(browser.js(CONTRAST)) == 1
    browser.media()


def test_the_theme_can_be_chosen(browser: Browser, usual: Path) -> None:
    browser.media(prefers_color_scheme="light")
    browser.open(usual)
    look = "return getComputedStyle(document.body).backgroundColor"
    light = browser.js(look)
    browser.press("t")
    assert browser.js(look) == light
    browser.press("t")
    assert browser.js(look) != light
    browser.open(usual)
    assert browser.text("#theme") == "Theme: dark"
    browser.press("t")
    browser.media()


def test_everything_one_can_act_on_has_a_name(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "link", "searchbox", "combobox", "checkbox", "radio", "gridcell", "grid")
    acting = [n for n in tree if n.get("role", {}).get("value") in roles]
    assert {n["role"]["value"] for n in acting} == set(roles)
    assert [n["role"] for n in acting if not n.get("name", {}).get("value", "").strip()] == []


@pytest.mark.parametrize("pixels", [360, 700, 1360])
def test_nothing_hangs_over_the_edge(browser: Browser, usual: Path, pixels: int) -> None:
    with browser.width(pixels):
        browser.open(usual)
        browser.driver.find_element(By.CSS_SELECTOR, "details.group > summary").click()
        over = browser.js(
            "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll')"
            " && e.checkVisibility() && !e.closest('.visually-hidden')"
            " && e.getBoundingClientRect().right > innerWidth + 1)"
            ".map((e) => e.outerHTML.slice(0, 90))"
        )
    assert over == []


def test_paper_gets_the_whole_matrix(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    before = len(browser.driver.find_elements(By.CSS_SELECTOR, "#heat tbody tr"))
    assert browser.driver.print_page()
    after = len(browser.driver.find_elements(By.CSS_SELECTOR, "#heat tbody tr"))
    assert after > before


def test_hostile_texts_are_texts(browser: Browser, tmp_path: Path) -> None:
    cases = [
        replace(
            FAILED,
            name=f"{attack} {number}",
            suite=attack,
            requirement=attack,
            source=attack,
            target=attack,
            platform=attack,
            message=f"{attack}; candidates: {attack} ({attack}); request: {attack}",
            detail=attack,
            reproduce=attack,
            backend=attack,
            waiver=attack,
            subject=attack,
            edition=attack,
            cells=(attack, A),
            measures={"error_over_bound": 2.0},
        )
        for number, attack in enumerate(ATTACKS)
    ]
    now = tmp_path / "now"
    write_run(now, cases, command_line=ATTACKS[1], started=ATTACKS[0])
    folder = now / "<img src=x onerror=window.hacked=1>"
    folder.mkdir()
    (folder / "junit-<svg onload=window.hacked=1>.xml").write_text("<!DOCTYPE x><x/>")
    (now / "job.json").write_text('{"url": "javascript:window.hacked=1", "label": "<b>"}')
    # Each of them is told as a change, and in the trend, by the name of a build.
    old = tmp_path / ATTACKS[3]
    write_run(old, [replace(case, outcome=Outcome.PASSED) for case in cases], started=ATTACKS[0])
    earlier = Earlier(str(old), history=(str(old),))
    build(now, tmp_path / "report", (), "javascript:window.hacked=1", earlier=earlier)
    browser.open(tmp_path / "report" / "report.html")
    assert browser.js("return document.documentElement.dataset.ready") == "yes"
    browser.driver.find_element(By.ID, "clear").click()
    for selector in ("details.group > summary", "details.case > summary"):
        for summary in browser.driver.find_elements(By.CSS_SELECTOR, selector):
            browser.js("arguments[0].click()", summary)
        settled(browser)
    assert len(browser.texts(".body")) == len(ATTACKS)
    shown = browser.js("return document.getElementById('list').textContent")
    changes = browser.js("return document.getElementById('changes').textContent")
    for text in (shown, changes, browser.js("return document.querySelector('.top').textContent")):
        assert all(attack in text for attack in ATTACKS[:7])
        assert "\\u202egpj.exe" in text
    assert "\u202e" not in browser.js("return document.body.textContent")
    assert browser.js("return window.hacked ?? null") is None
    assert browser.js("return [...document.images].length") == 0
    links = browser.js("return [...document.links].map((a) => a.protocol)")
    assert set(links) <= {"file:", "https:", "http:"}
    browser.js("for (const b of document.querySelectorAll('.copy, .quiet')) b.click()")
    settled(browser)
    assert browser.js("return window.hacked ?? null") is None
    assert browser.console() == []
    assert browser.requests() == []


def test_the_policy_stops_what_would_run_or_call_home(browser: Browser, usual: Path) -> None:
    browser.open(usual)
    browser.js(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.head.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">')"
    )
    settled(browser)
    assert browser.js("return window.hacked ?? null") is None
    assert any("Content Security Policy" in line for line in browser.console())


def test_twenty_thousand_cases_make_few_elements(browser: Browser, tmp_path: Path) -> None:
    run = Run(None, tuple(many_cases(20_000)), complete=True)
    merged = merge(Collected([Input("results.jsonl", "results", run, "digest")]))
    path = tmp_path / "report.html"
    path.write_text(page(merged, {}), encoding="utf-8")
    browser.open(path)
    browser.press("x")
    assert count_of(browser) == 20_000
    elements = "return document.querySelectorAll('*').length"
    assert browser.js(elements) < 4_000
    browser.driver.find_element(By.CSS_SELECTOR, "details.group > summary").click()
    settled(browser)
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "details.case")) == 60
    browser.driver.find_element(By.CSS_SELECTOR, ".more").click()
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "details.case")) == 120
    browser.press("/")
    browser.press("number 19999")
    settled(browser)
    assert count_of(browser) == 1
    assert browser.js(elements) < 4_000
    assert browser.console() == []
