"""A headless Chromium for the tests of the report page, with what it logged and asked for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

# Set where the browser is known to be installed: its absence is then a failure, not a skip.
REQUIRED = "ROCM_CONFORMANCE_REQUIRE_BROWSER"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1360,1000",
)


class Browser:
    """One Chromium; a page is opened with a clean record."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.console()
        self.requests()
        self.driver.get(page.as_uri() + fragment)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus, as a person without a mouse would."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, identifier: str, *, limit: int = 80) -> int:
        """Tab until the element with this id has the focus; how many presses it took."""
        for presses in range(1, limit):
            self.press(Keys.TAB)
            if self.focused("id") == identifier:
                return presses
        raise AssertionError(f"#{identifier} was not reached with {limit} tabs")

    def focused(self, attribute: str) -> str:
        return str(self.driver.switch_to.active_element.get_attribute(attribute) or "")

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def media(self, **features: str) -> None:
        found = [{"name": name.replace("_", "-"), "value": v} for name, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": found})

    @contextmanager
    def width(self, pixels: int) -> Iterator[None]:
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def console(self) -> list[str]:
        """What the console got since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call] # selenium's own

    def requests(self) -> list[str]:
        """What the page asked for since the last call, its own file left out."""
        entries = self.driver.get_log("performance")  # type: ignore[no-untyped-call] # selenium's own
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        asked = [m["params"]["request"] for m in messages if m["method"].endswith("WillBeSent")]
        return [r["url"] for r in asked if not r["url"].startswith(("file:", "data:", "about:"))]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser, or a skip that says how to get one."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        reason = (
            "chromium or chromedriver is not installed, so the report page is not tested: "
            "apt-get install chromium chromium-driver"
        )
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        chrome = Chrome(options=options, service=Service(driver))
        try:
            yield Browser(chrome)
        finally:
            chrome.quit()
