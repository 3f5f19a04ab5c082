"""What a run was asked to do: one value that travels from the command line to every process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from conformance.problems.tiers import default_tier
from conformance.subjects.base import Options
from vllm_editions import DEFAULT_EDITION

SUITES = ("selection", "removal", "parity")
# Suites that run only when they are named.
NAMED_SUITES = ("codegen",)
AUTO = "auto"
DEVICES = (AUTO, "interpreter", "gpu")


@dataclass(frozen=True)
class RunConfig:
    """A run's arguments.

    ``sweep`` is the number of requests per platform, ``examples`` that of each property.
    ``releases`` holds each subject's version, found out before the first case is collected.
    ``timeout`` is in seconds per answer of a worker. ``device`` is where kernels run, ``tier`` how
    many problems they are given, ``problem`` the only one of them wanted (its id; empty: all); a
    device ``auto`` and an empty tier are settled where the run takes place.
    ``shard`` (``2/4``) leaves a run the second quarter of its cases, ``image`` is the container
    image that it is in.
    """

    subjects: tuple[str, ...]
    cells: tuple[str, ...]
    suites: tuple[str, ...] = SUITES
    edition: str = DEFAULT_EDITION
    sweep: int = 20_000
    examples: int = 50
    seed: int = 36702
    simulate: str = "auto"
    timeout: float = 120.0
    device: str = "interpreter"
    tier: str = "standard"
    problem: str = ""
    releases: dict[str, str] = field(default_factory=dict)
    shard: str = ""
    image: str = ""

    @property
    def partial(self) -> bool:
        """Whether cases of its suites were left out: then what did not show proves nothing.

        A suite that was not asked for leaves out none: each requirement belongs to one suite.
        """
        whole = RunConfig(subjects=(), cells=("*",))
        sweeps = "selection" in self.suites and self.sweep < whole.sweep
        return self.cells != whole.cells or bool(self.shard or self.problem or sweeps)

    def placed(self, device: str) -> RunConfig:
        """The configuration with its device, where it is open this one, and with its tier."""
        device = device if self.device == AUTO else self.device
        return replace(self, device=device, tier=self.tier or default_tier(device))

    @property
    def partial_parity(self) -> bool:
        """Whether parity was not asked in full: which deviations show depends on the problems."""
        whole = RunConfig(subjects=(), cells=())
        asked = (self.tier, self.device, self.seed)
        return self.partial or asked != (whole.tier, whole.device, whole.seed)

    @property
    def options(self) -> Options:
        return Options(self.edition, self.simulate, self.timeout)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> RunConfig:
        values: dict[str, Any] = json.loads(text)
        for name in ("subjects", "cells", "suites"):
            values[name] = tuple(values[name])
        return cls(**values)
