"""What a run was asked to do: one value that travels from the command line to every process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from conformance.problems.tiers import default_tier
from conformance.subjects.base import Options
from vllm_editions import AUTO_EDITION, DEFAULT_EDITION

AUTO = "auto"
DEVICES = (AUTO, "interpreter", "gpu")


@dataclass(frozen=True)
class RunConfig:
    """A run's arguments.

    ``sweep`` is the number of requests per platform, ``examples`` that of each property.
    ``releases`` holds each subject's version, found out before the first case is collected, and
    ``editions`` the edition that judges it, and ``notes`` what a reader must know of that;
    ``missing`` are the fields of that edition's requests which the subject's selector lacks;
    ``edition`` is the user's word, which may be ``auto``.
    ``timeout`` is in seconds per answer of a worker. ``device`` is where kernels run, ``tier`` how
    many problems they are given; a device ``auto`` and an empty tier are settled where the run
    takes place. ``suite_options`` are the values of the options that suites add to ``run``.
    ``env`` are variables that are set on every platform, over those of its cell.
    ``targets`` are the only ones of the cells' targets to ask about, all if there are none.
    ``wrap`` is a command that runs every worker's, such as an emulator of a GPU.
    ``shard`` (``2/4``) leaves a run the second quarter of its cases, ``image`` is the container
    image that it is in.
    """

    subjects: tuple[str, ...]
    cells: tuple[str, ...]
    suites: tuple[str, ...] = ()
    edition: str = AUTO_EDITION
    sweep: int = 5_000
    examples: int = 50
    seed: int = 36702
    simulate: str = "auto"
    timeout: float = 120.0
    device: str = "interpreter"
    tier: str = "standard"
    suite_options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    releases: dict[str, str] = field(default_factory=dict)
    editions: dict[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shard: str = ""
    image: str = ""
    wrap: str = ""

    @property
    def partial(self) -> bool:
        """Whether a part was left out (cells, targets, cases), or variables are not the cells' own:
        what did not show proves nothing.

        What a suite leaves out of its own accord it says itself. One that was not asked for leaves
        out nothing: each requirement belongs to one suite.
        """
        return self.cells != ("*",) or bool(self.shard or self.targets or self.env)

    def on_device(self, device: str) -> RunConfig:
        """The configuration with its tier and its device: this one, if none was asked for."""
        device = device if self.device == AUTO else self.device
        return replace(self, device=device, tier=self.tier or default_tier(device))

    def edition_of(self, spec: str) -> str:
        """The edition that judges a subject."""
        if self.edition != AUTO_EDITION:
            return self.edition
        return self.editions.get(spec, DEFAULT_EDITION)

    @property
    def edition_label(self) -> str:
        """The edition, or the editions, that a run is judged by."""
        named = dict.fromkeys(self.edition_of(spec) for spec in self.subjects)
        return ", ".join(named) or self.edition

    def options_of(self, spec: str) -> Options:
        """How a subject is run, once its edition is settled."""
        return replace(self.options, edition=self.edition_of(spec))

    @property
    def options(self) -> Options:
        return Options(self.edition, self.simulate, self.timeout, self.wrap)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> RunConfig:
        values: dict[str, Any] = json.loads(text)
        for name in ("subjects", "cells", "suites", "targets"):
            values[name] = tuple(values[name])
        values["missing"] = {spec: tuple(names) for spec, names in values["missing"].items()}
        return cls(**values)
