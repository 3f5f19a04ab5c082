"""Plants mutants one by one and runs the tests of single instructions against each.

    python -m tests.emulator.mutation.measure [--seed 1] [--count 100] [--module instructions.dpp]

Prints what no test notices, and how many were noticed. Each mutant has a process of its own, which
loads the changed source instead of the file: nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType

import pytest

from tests.emulator.mutation.equivalent import reason_of
from tests.emulator.mutation.mutants import PACKAGE, ROOT, Change, Mutant, changes, mutant

# Those of single instructions; the quickest first.
TESTS = [
    f"tests/emulator/test_{name}.py"
    for name in ("instructions", "modifiers", "dpp", "mode", "vector", "scalar", "lds", "memory",
                 "matrix", "matrix_variants", "complete")
]  # fmt: skip
LONGEST = 120


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a changed source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(
        self, fullname: str, _path: object = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, f"<mutant of {self.name}>", "exec"), module.__dict__)


def survives(one: Mutant, tests: Sequence[str] = TESTS) -> bool:
    """Whether all tests pass with a mutant in place; one that never ends is noticed."""
    assert not any(name.startswith(PACKAGE) for name in sys.modules), "it would be loaded already"
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST)
        with tempfile.TemporaryFile() as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.meta_path.insert(0, _Changed(f"{PACKAGE}.{one.module}", one.source))
            os.chdir(ROOT)
            words = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
            os._exit(int(pytest.main([*words, *tests])))
    _, status = os.waitpid(child, 0)
    return status == 0


def chosen(count: int, seed: int, module: str = "") -> list[Mutant]:
    """So many mutants that change what is computed, drawn from all."""
    every = [c for c in changes() if not module or c.module == module]
    draw: list[Change] = random.Random(seed).sample(every, len(every))
    found: list[Mutant] = []
    for change in draw:
        if len(found) == count:
            break
        one = mutant(change)
        if not reason_of(one):
            found.append(one)
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--module", default="", help="of one module only: instructions.dpp")
    asked = parser.parse_args(words)
    planted = chosen(asked.count, asked.seed, asked.module)
    left = 0
    for number, one in enumerate(planted, 1):
        if survives(one):
            left += 1
            sys.stdout.write(f"not noticed ({number}): {one}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(planted) - left} of {len(planted)} noticed (seed {asked.seed})\n")
    return 0 if left == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
