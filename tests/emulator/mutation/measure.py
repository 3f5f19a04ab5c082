"""Plants mutants one by one and runs the tests of single instructions against each.

    python -m tests.emulator.mutation.measure [--seed 1] [--count 100] [--module instructions.dpp]

Prints whether a test notices each of them, and how many were noticed. Each mutant has a process of
its own, which loads the changed source instead of the file: nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import os
import random
import re
import resource
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType

import numpy as np  # noqa: F401 - loaded once for all mutants
import pytest

import tests.emulator.isa_model  # noqa: F401 - likewise
from tests.emulator.mutation.equivalent import reason_of
from tests.emulator.mutation.mutants import PACKAGE, ROOT, Change, Mutant, changes, mutant

# Those of single instructions; the quickest first.
TESTS = ("instructions", "modifiers", "dpp", "mode", "scalar", "lds", "memory", "complete", "waves",
         "vector", "matrix_variants", "matrix")  # fmt: skip
# Which of them know most about a module: they go first.
FIRST = {
    "access": "lds memory", "alu": "vector", "atomics": "memory lds", "global_memory": "memory",
    "indexed": "complete", "matrix": "matrix", "matrix_variants": "matrix_variants",
    "numbers": "vector", "operands": "modifiers vector", "packed": "vector", "scratch": "lds",
    "scalar_state": "scalar mode", "vector_float": "vector", "vector_half": "vector",
    "vector_integer": "vector", "vector_sums": "vector", "eight_bit": "instructions vector",
}  # fmt: skip
# The plugins that the tests need are none.
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
PYTEST = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
# Seconds of CPU time.
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


def stages_of(one: Mutant) -> list[list[str]]:
    """What pytest is asked, one after another: tests by the names in the changed line, then all of
    the files that know most about its module, then the others."""
    first = [_file(name) for name in FIRST.get(one.module.rpartition(".")[2], "").split()]
    rest = [path for path in map(_file, TESTS) if path not in first]
    names = re.findall(r"\b(?:[vs]|ds|global|buffer)_\w+", one.line)
    by_name = [["-k", " or ".join(names), *(first or rest)]] if names else []
    return [*by_name, *([first] if first else []), rest]


def _file(name: str) -> str:
    return f"tests/emulator/test_{name}.py"


def survives(one: Mutant) -> bool:
    """Whether all tests pass with a mutant in place; one that never ends is noticed."""
    return all(_passes(one, words) for words in stages_of(one))


def _passes(one: Mutant, tests: Sequence[str]) -> bool:
    assert not any(name.startswith(PACKAGE) for name in sys.modules), "it would be loaded already"
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
        with tempfile.TemporaryFile() as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.meta_path.insert(0, _Changed(f"{PACKAGE}.{one.module}", one.source))
            os.chdir(ROOT)
            os._exit(int(pytest.main([*PYTEST, *tests])))
    _, status = os.waitpid(child, 0)
    # Where no test has such a name there is nothing to fail.
    return os.waitstatus_to_exitcode(status) in (0, int(pytest.ExitCode.NO_TESTS_COLLECTED))


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
        survived = survives(one)
        left += survived
        sys.stdout.write(f"{number:3} {'NOT NOTICED' if survived else 'noticed'} {one}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(planted) - left} of {len(planted)} noticed (seed {asked.seed})\n")
    return 0 if left == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
