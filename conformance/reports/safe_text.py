"""Makes text from subjects and files safe to show."""

from __future__ import annotations

import re

from conformance.reports.junit_writer import visible

# These characters reorder the text around them, so that one name can look like another:
# https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""``text`` with control and direction characters escaped as in Python."""
    return _BIDI.sub(lambda match: ascii(match.group())[1:-1], visible(text))
