"""axe-core, an engine that finds faults of accessibility, run in a page of the tests' browser.

It comes from the npm registry: `make install-axe`. https://github.com/dequelabs/axe-core
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import REQUIRED, Browser

SCRIPT = Path(__file__).parents[2] / "build/axe/node_modules/axe-core/axe.min.js"
GRAVE = ("serious", "critical")


def grave_findings(browser: Browser) -> list[str]:
    """What axe finds in the open page that is serious or worse: rule, and the first elements."""
    browser.js(_source())
    found: dict[str, Any] = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']})"
        ".then(done, (error) => done({error: String(error)}))"
    )
    assert "error" not in found, found
    return [
        f"{each['id']} ({each['impact']}): {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found["violations"]
        if each["impact"] in GRAVE
    ]


def _source() -> str:
    if not SCRIPT.is_file():
        reason = "axe-core is not installed, so accessibility is not tested: make install-axe"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    return SCRIPT.read_text(encoding="utf-8")
