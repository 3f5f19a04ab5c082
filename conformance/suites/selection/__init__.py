"""Whether a build selects the backend that its edition specifies, in every situation."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.config import RunConfig
from conformance.suites.suite import Suite


def left_out(config: RunConfig) -> Sequence[str]:
    """All requirements, if the sweep is shorter than usual: the rest may break any of them."""
    return ["*"] if config.sweep < RunConfig.sweep else []


SUITE = Suite("selection", left_out=left_out)
