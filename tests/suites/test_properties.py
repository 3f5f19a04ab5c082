"""The properties of selection: the reference has them, where explicit backends give way too."""

from __future__ import annotations

import pytest

from conformance.config import RunConfig
from conformance.suites.case import Context, SessionPool
from conformance.suites.selection import test_properties
from vllm_editions import editions

CELLS = ("rocm72-aiter-mha",)


@pytest.mark.parametrize("edition", ["0.19", "0.28", "0.31", editions()[-1]])
def test_the_reference_has_them(edition: str) -> None:
    """From 0.28 on a rejected explicit backend may give way: such layers are left out."""
    config = RunConfig(
        ("reference",), CELLS, edition=edition, examples=30, targets=("gfx942", "gfx1100")
    )
    context = Context(config)
    sessions = SessionPool(context)
    cases = list(test_properties.cases(context))
    assert cases
    for case in cases:
        assert test_properties.test_property(case, context, sessions) == {"compared": 30}
