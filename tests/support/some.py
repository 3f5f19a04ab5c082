"""Some of a long list of examples for every change; the rest are slow tests.

A catalogue of seeded faults shows in dozens of ways that a check bites. Every change runs a share
of it, from all its parts; `make test-slow` runs the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(share: int, items: Iterable[Any], ids: Iterable[str] = ()) -> list[Any]:
    """Every ``share``-th item as a parameter, and the others as parameters of slow tests.

    An item that is a tuple is the values of several parameters.
    """
    named = list(ids)
    return [
        pytest.param(
            *(item if isinstance(item, tuple) else (item,)),
            id=named[number] if named else None,
            marks=[] if number % share == 0 else [pytest.mark.slow],
        )
        for number, item in enumerate(items)
    ]
