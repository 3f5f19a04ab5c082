"""The mutants are changes of what is computed, and the tests of single instructions notice them."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from types import ModuleType

import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from tests.emulator.mutation import measure
from tests.emulator.mutation.equivalent import EQUIVALENT, reason_of
from tests.emulator.mutation.mutants import (
    MODULES,
    PACKAGE,
    ROOT,
    Mutant,
    changes,
    mutant,
    source_of,
)
from tests.emulator.test_vector import asked_of, run, wrong

EVERY = list(changes())
# The least share of planted faults that the tests of single instructions must notice.
NOTICED = 0.95


def test_every_module_has_mutants_that_are_changes() -> None:
    assert {change.module for change in EVERY} == set(MODULES)
    assert len(EVERY) > 5000
    for change in random.Random(1).sample(EVERY, 30):
        one = mutant(change)
        assert one.before != one.after
        assert ast.dump(ast.parse(one.source)) != ast.dump(ast.parse(source_of(one.module))), one
        compile(one.source, "mutant", "exec")


def _of(module: str, before: str, after: str) -> Mutant:
    for change in EVERY:
        if change.module == module:
            one = mutant(change)
            if (one.before, one.after) == (before, after):
                return one
    raise AssertionError(f"{module} has no {before}")


# (instruction, what its source says, what the mutant says)
PLANTED = [
    ("v_bfe_u32", "offset & U32(31)", "offset | U32(31)"),
    ("v_mul_lo_u16", "a * b", "a + b"),
    ("v_subb_co_u32", "total < 0", "total <= 0"),
    ("v_ffbh_u32", "U32(32) - power.astype(U32)", "U32(32) + power.astype(U32)"),
]


@pytest.mark.parametrize(("name", "before", "after"), PLANTED)
def test_a_mutant_is_another_instruction(name: str, before: str, after: str) -> None:
    """Loaded in the place of its module's table, without a process of its own."""
    module = "instructions.vector_integer"
    (asked, *_) = asked_of(name)
    assert not wrong(asked, run(asked))
    made = ModuleType(f"{PACKAGE}.{module}")
    made.__package__ = f"{PACKAGE}.instructions"
    exec(_of(module, before, after).source, made.__dict__)
    built = made.INTEGERS[name](parse_instruction(asked.text), asked.target)
    assert wrong(asked, run(asked, built.step()))
    assert not wrong(asked, run(asked, build_step(parse_instruction(asked.text), asked.target)))


def test_an_equivalent_mutant_is_one_that_could_be_planted() -> None:
    """Each has a reason, and is still what the source can become."""
    asked = {
        (*place, before, after) for place, made in EQUIVALENT.items() for before, after, _ in made
    }
    modules = {module for module, _ in EQUIVALENT}
    found = [mutant(change) for change in EVERY if change.module in modules]
    assert asked <= {(one.module, one.line, one.before, one.after) for one in found}
    assert all(len(why) > 10 for made in EQUIVALENT.values() for *_, why in made)


def test_the_choice_leaves_out_what_is_equivalent() -> None:
    planted = measure.chosen(20, seed=3)
    assert len({str(one) for one in planted}) == 20
    assert not any(reason_of(one) for one in planted)
    assert [str(one) for one in measure.chosen(20, seed=3)] == [str(one) for one in planted]


@pytest.mark.slow
def test_planted_faults_are_noticed() -> None:
    """A hundred, each in a process of its own: some ten minutes."""
    words = [sys.executable, "-m", "tests.emulator.mutation.measure", "--count", "100"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1]
    noticed, planted = int(last.split()[0]), int(last.split()[2])
    assert planted == 100
    assert noticed >= NOTICED * planted, done.stdout


def test_the_tests_that_are_run_are_those_of_single_instructions() -> None:
    assert {name.rpartition(".")[2] for name in MODULES} >= set(measure.FIRST)
    for one in measure.chosen(30, seed=4):
        stages = measure.stages_of(one)
        files = {word for stage in stages for word in stage if word.endswith(".py")}
        assert len(files) == len(measure.TESTS)
        assert all((ROOT / path).exists() for path in files)
        assert [stage for stage in stages if "-k" in stage] == stages[:1] or "-k" not in stages[0]
