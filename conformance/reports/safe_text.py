"""Texts of subjects and files, made fit to be shown: nothing in them may act on the reader."""

from __future__ import annotations

import re

from conformance.reports.junit_writer import visible

# They reorder the text around them, so that a name reads as another:
# https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""``text`` with control and direction characters as their Python escapes."""
    return _BIDI.sub(lambda match: ascii(match.group())[1:-1], visible(text))
