"""The emulator's table, put wrong: what its own tests are given, and how much of it they notice."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.mutation import campaign
from conformance.mutation.equivalents import check_rows, equivalents
from conformance.mutation.mutant import AT_IMPORT, Mutant, edited
from conformance.mutation.parts import open_part
from conformance.mutation.results import Record
from conformance.mutation.sampling import drawn_by
from conformance.mutation.score import score
from conformance.mutation.tested import CHECKOUT, EMULATOR, EmulatorPart, Server, TestJudge
from conformance.mutation.verdict import Fate
from tests.emulator.test_vector import asked_of, run, wrong

# The least share of mutants that the emulator's own tests must notice.
NOTICED = 0.98
VECTORS = f"{EMULATOR}/instructions/vector_integer.py"
PACKAGE = "conformance.devices.isa.instructions"


@pytest.fixture(scope="module")
def mutants() -> list[Mutant]:
    return EmulatorPart(lambda _text: None).mutants()


def test_the_whole_table_has_mutants(mutants: list[Mutant]) -> None:
    folder = CHECKOUT / EMULATOR / "instructions"
    tables = {f"{EMULATOR}/instructions/{path.name}" for path in folder.glob("*.py")}
    files = {mutant.file for mutant in mutants}
    assert tables - files <= {f"{EMULATOR}/instructions/__init__.py"}
    assert {f"{EMULATOR}/numbers.py", f"{EMULATOR}/elementary.py"} <= files
    assert len(mutants) > 10_000
    check_rows("emulator", mutants, equivalents())


# (instruction, what the table says of it, what the mutant says)
PLANTED = [
    ("v_bfe_u32", "offset & U32(31)", "offset | U32(31)"),
    ("v_mul_lo_u16", "a * b", "a + b"),
    ("v_subb_co_u32", "total < 0", "total <= 0"),
    ("v_ffbh_u32", "U32(32) - power.astype(U32)", "U32(32) + power.astype(U32)"),
]


@pytest.mark.parametrize(("name", "before", "after"), PLANTED)
def test_a_mutant_is_another_instruction(
    name: str, before: str, after: str, mutants: list[Mutant]
) -> None:
    """Loaded in the place of its module's table, without a process of its own."""
    one = next(m for m in mutants if (m.file, m.before, m.after) == (VECTORS, before, after))
    (asked, *_) = asked_of(name)
    assert not wrong(asked, run(asked))
    made = ModuleType(f"{PACKAGE}.vector_integer")
    made.__package__ = PACKAGE
    exec(edited(one, (CHECKOUT / VECTORS).read_text(encoding="utf-8")), made.__dict__)
    built = made.INTEGERS[name](parse_instruction(asked.text), asked.target)
    assert wrong(asked, run(asked, built.step()))
    assert not wrong(asked, run(asked, build_step(parse_instruction(asked.text), asked.target)))


class FakeServer:
    """Runs nothing: a test fails if it is in ``fails``. ``asked``: the sets that it was given."""

    def __init__(self, *fails: str) -> None:
        self._fails = fails
        self.asked: list[list[str]] = []
        self.seconds: list[float] = []

    def edit(self, _file: str, _text: str) -> None:
        pass

    def run(self, tests: list[str], *, seconds: float) -> dict[str, Any]:
        self.asked.append(tests)
        self.seconds.append(seconds)
        failed = next((name for name in tests if name in self._fails), "")
        return {"ran": dict.fromkeys(tests), "failed": failed, "message": "", "broken": ""}


def judged(
    server: FakeServer, mutant: Mutant, ran: dict[str, dict[str, Any]], *imported: int
) -> Fate:
    lines = {VECTORS: imported}
    return TestJudge(cast(Server, server), ran, lines).judge(mutant).fate


def ran_by(*lines: int, seconds: float = 0.1, starts: bool = False) -> dict[str, Any]:
    told = {VECTORS: list(lines)} if lines else {}
    return {"seconds": seconds, "lines": told, "starts": starts}


def test_tests_that_run_the_line_are_asked_and_those_of_its_name_first(
    mutants: list[Mutant],
) -> None:
    one = next(m for m in mutants if m.function == "[v_bfi_b32]" and m.span != AT_IMPORT)
    line = one.span[0]
    ran = {
        "any": ran_by(line, seconds=0.01),
        "t[v_bfi_b32]": ran_by(line),
        "elsewhere": ran_by(line + 5),
        "nothing": ran_by(),
        "a process": ran_by(starts=True, seconds=9.0),
    }
    server = FakeServer()
    assert judged(server, one, ran) is Fate.SURVIVED
    assert server.asked == [["t[v_bfi_b32]"], ["any", "a process"]]
    assert server.seconds[0] < server.seconds[1]
    assert judged(FakeServer("any"), one, ran) is Fate.CAUGHT
    assert judged(FakeServer(), one, {"nothing": ran_by()}) is Fate.NOT_REACHED


def test_what_runs_at_import_is_asked_of_users_of_its_file_first(mutants: list[Mutant]) -> None:
    one = next(m for m in mutants if m.file == VECTORS and m.span == AT_IMPORT and m.function)
    word = one.function.strip("[]").split()[0]
    ran = {"nothing": ran_by(), "other": ran_by(3), f"t[{word}]": ran_by()}
    server = FakeServer()
    assert judged(server, one, ran) is Fate.SURVIVED
    assert server.asked == [[f"t[{word}]"], ["other"], ["nothing"]]


def test_a_function_that_makes_entries_at_import_is_asked_of_all(mutants: list[Mutant]) -> None:
    """Its lines run before any test does: those that use what it made are not known by them."""
    one = next(m for m in mutants if m.file == VECTORS and m.span != AT_IMPORT)
    ran = {"nothing": ran_by(), "other": ran_by(one.span[0] + 3)}
    server = FakeServer()
    assert judged(server, one, ran, one.span[0]) is Fate.SURVIVED
    assert server.asked == [["other"], ["nothing"]]
    assert judged(FakeServer(), one, ran) is Fate.NOT_REACHED


@pytest.mark.slow
def test_planted_faults_are_noticed(tmp_path: Path) -> None:
    """A hundred: some twenty minutes of one core, most of which go to those that survive."""
    opened = open_part("emulator", tmp_path, 0.0, lambda _text: None)
    try:
        chosen = drawn_by(opened.part.mutants(), 100, [1])
        judged = campaign.run(
            opened.part,
            chosen,
            Record(opened.record, opened.header),
            workers=2,
            seconds=3600.0,
            show=lambda _mutant, _verdict: None,
        )
    finally:
        opened.part.close()
    found = score(judged, equivalents())
    missed = [str(one.mutant) for one in judged if not one.verdict.fate.is_caught]
    assert found.judged == 100
    assert found.share >= NOTICED, missed
