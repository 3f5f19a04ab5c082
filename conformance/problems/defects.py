"""Known defects of vLLM's kernels, each as the smallest problem that shows it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from conformance.problems.features import engine, features
from conformance.problems.problem import Problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALLEST: dict[str, Any] = {
    **{"kind": "paged", "seed": 1, "dtype": "float16", "block_size": 64},
    **{"num_heads": 2, "num_kv_heads": 1, "head_size": 80, "v_head_size": 80},
}
# The keys of a row that are no fields of its problem.
OF_THE_ROW = ("waiver", "shown", "unused", "engine")


@dataclass(frozen=True)
class KnownDefect:
    """A row of ``defects.toml``, which explains its columns."""

    problem: Problem
    waiver: str
    shown: str
    unused: str = "zero"
    engine: str = ""

    @property
    def filling(self) -> str:
        """What the worker is told to fill unused slots with; "" means poison."""
        return "" if self.unused == "poison" else self.unused

    def asked_in(self, edition: str) -> bool:
        """Whether an engine of this series gives such a problem to a backend."""
        return not self.engine or engine()[self.engine].in_edition(edition)


@cache
def known_defects() -> tuple[KnownDefect, ...]:
    """The table's rows, in order."""
    text = resources.files(__package__).joinpath("defects.toml").read_text(encoding="utf-8")
    problems, rows = TypeAdapter(Problem), TypeAdapter(KnownDefect)
    made = []
    for name, table in tomllib.loads(text).items():
        own = {key: table.pop(key) for key in OF_THE_ROW if key in table}
        computed = features()[table["backend"]].new_tokens == "computed"
        fields = {**SMALLEST, "id": name, "new_tokens_from_cache": not computed, **table}
        problem = problems.validate_python(fields)
        problem.check()
        made.append(rows.validate_python({**own, "problem": problem}))
    return tuple(made)
