"""Which part of the suite a run has."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.config import RunConfig

QUICK = "quick"
# The target that every tier asks about, and those that others add: one of each family.
USUAL = "gfx942"
OTHERS = ("gfx90a", "gfx950", "gfx1100", "gfx1201")


def targets(config: RunConfig) -> tuple[str, ...]:
    """The targets that are simulated; a run that names targets has those."""
    if config.targets:
        return config.targets
    return (USUAL,) if config.tier == QUICK else (USUAL, *OTHERS)


def left_out(config: RunConfig) -> Sequence[str]:
    """The suite's requirements, where a run has other targets or batches than the usual ones."""
    return ["MET-*"] if config.tier == QUICK or config.seed != RunConfig.seed else []
