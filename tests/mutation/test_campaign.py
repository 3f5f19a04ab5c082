"""Drawing, judging side by side, and taking up a record again; with a part that is made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.errors import InfrastructureError, UsageError
from conformance.mutation import campaign
from conformance.mutation.mutant import Mutant
from conformance.mutation.processor_time import processor_seconds
from conformance.mutation.results import Header, Judged, Record, read
from conformance.mutation.sampling import drawn, drawn_by
from conformance.mutation.verdict import Fate, Verdict

HEADER = Header("made-up", "a part", "tree", 40, "")
OPERATORS = ("constant",) * 36 + ("mask",) * 4
MUTANTS = [Mutant("made-up", "f.py", "f", name, str(at), "x") for at, name in enumerate(OPERATORS)]


class Part:
    """Judges by the mutant's number: those that 3 divides survive."""

    name, says = "made-up", "a part"

    def __init__(self, notes: Path | None = None, dies_at: str = "") -> None:
        self.notes = notes
        self.dies_at = dies_at
        self.prepared = 0

    def mutants(self) -> Sequence[Mutant]:
        return MUTANTS

    def prepare(self, _workers: int) -> None:
        self.prepared += 1

    def judge(self) -> Judge:
        return Judge(self)

    def close(self) -> None:
        pass


class Judge:
    """Notes which mutant it judged, and in which process."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def judge(self, mutant: Mutant) -> Verdict:
        if self._part.notes is not None:
            with self._part.notes.open("a") as file:
                file.write(f"{mutant.before} {os.getpid()}\n")
        if mutant.before == self._part.dies_at:
            raise InfrastructureError("the worker died")
        return Verdict(Fate.CAUGHT if int(mutant.before) % 3 else Fate.SURVIVED, "quick")

    def close(self) -> None:
        pass


def ran(part: Part, record: Record, count: int, **options: float) -> list[Judged]:
    asked = {"seed": 1, "workers": 1, "seconds": 60.0, **options}
    return campaign.run(
        part,
        drawn_by(MUTANTS, count, [int(asked["seed"])]),
        record,
        workers=int(asked["workers"]),
        seconds=asked["seconds"],
        show=lambda _mutant, _verdict: None,
    )


def test_a_seed_draws_the_same_and_more_begin_with_fewer() -> None:
    assert drawn(MUTANTS, 10, 1) == drawn(MUTANTS, 20, 1)[:10]
    assert drawn(MUTANTS, 10, 1) != drawn(MUTANTS, 10, 2)
    assert sorted(drawn(MUTANTS, 99, 1), key=MUTANTS.index) == MUTANTS


def test_a_rare_operator_is_not_crowded_out() -> None:
    counted = Counter(m.operator for seed in range(50) for m in drawn(MUTANTS, 4, seed))
    # One in ten mutants is a mask; drawn are about one in four, as the roots of 4 and 36 say.
    assert 0.15 < counted["mask"] / counted.total() < 0.35


def test_seeds_take_turns_and_what_several_draw_is_judged_once() -> None:
    both = drawn_by(MUTANTS, 10, [1, 2])
    assert [both[0].mutant, both[1].mutant] == [drawn(MUTANTS, 1, seed)[0] for seed in (1, 2)]
    assert {one.mutant.id for one in both} == {
        mutant.id for seed in (1, 2) for mutant in drawn(MUTANTS, 10, seed)
    }
    twice = {one.mutant.id for one in both if one.seeds == (1, 2)}
    assert len(both) == 20 - len(twice) == len({one.mutant.id for one in both})
    assert twice == {m.id for m in drawn(MUTANTS, 10, 1)} & {m.id for m in drawn(MUTANTS, 10, 2)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_campaign_judges_each_mutant_once(tmp_path: Path, workers: int) -> None:
    notes = tmp_path / "notes"
    record = Record(tmp_path / "r.jsonl", HEADER)
    judged = ran(Part(notes), record, 12, workers=workers)
    assert [one.mutant for one in judged] == drawn(MUTANTS, 12, 1)
    for one in judged:
        assert one.verdict.fate.is_caught == bool(int(one.mutant.before) % 3)
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert sorted(number for number, _ in lines) == sorted(o.mutant.before for o in judged)
    processes = {process for _, process in lines}
    assert len(processes) <= workers
    assert str(os.getpid()) not in processes


def test_a_campaign_goes_on_where_it_ended(tmp_path: Path) -> None:
    path, notes = tmp_path / "r.jsonl", tmp_path / "notes"
    ran(Part(), Record(path, HEADER), 5)
    judged = ran(Part(notes), Record(path, HEADER), 8)
    assert len(judged) == 8
    assert len(notes.read_text().splitlines()) == 3


def test_what_is_done_needs_no_preparation(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    ran(Part(), Record(path, HEADER), 5)
    again = Part()
    ran(again, Record(path, HEADER), 5)
    assert again.prepared == 0


def test_time_that_runs_out_leaves_the_rest_for_later(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    assert ran(Part(), Record(path, HEADER), 5, seconds=-1.0) == []
    assert ran(Part(), Record(path, HEADER), 5, seconds=-1.0, workers=2) == []
    assert len(ran(Part(), Record(path, HEADER), 5)) == 5


def test_a_mutant_without_a_verdict_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    dies = drawn(MUTANTS, 3, 1)[1].before
    judged = ran(Part(dies_at=dies), Record(path, HEADER), 3)
    assert [one.verdict.fate for one in judged].count(Fate.ERRORED) == 1
    judged = ran(Part(), Record(path, HEADER), 3)
    assert Fate.ERRORED not in {one.verdict.fate for one in judged}
    assert len(read(path)[1]) == 3


def test_each_seed_that_drew_a_mutant_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    ran(Part(), Record(path, HEADER), 40)
    judged = ran(Part(), Record(path, HEADER), 40, seed=2)
    assert {one.seeds for one in judged} == {(1, 2)}
    assert {one.seeds for one in read(path)[1]} == {(1, 2)}


def test_a_record_of_another_tree_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    ran(Part(), Record(path, HEADER), 5)
    other = replace(HEADER, tree="another")
    with pytest.raises(UsageError, match="other files"):
        Record(path, other)
    assert Record(path, other, fresh=True).judged == {}
    assert read(path)[0] == other


def test_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    ran(Part(), Record(path, HEADER), 3)
    text = path.read_text()
    path.write_text(text[:-20])
    assert len(read(path)[1]) == 2
    assert len(ran(Part(), Record(path, HEADER), 3)) == 3


def test_a_line_names_its_mutant(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    judged = ran(Part(), Record(path, HEADER), 1)
    line = json.loads(path.read_text().splitlines()[1])
    assert line["id"] == judged[0].mutant.id
    assert read(path) == (HEADER, judged)


def test_another_file_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("[]\n")
    with pytest.raises(UsageError, match="no record"):
        read(path)


def test_the_digest_knows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = campaign.tree_digest(tmp_path)
    assert first == campaign.tree_digest(tmp_path) != campaign.tree_digest()
    (tmp_path / "a.py").write_text("2")
    assert campaign.tree_digest(tmp_path) != first


class Greedy(Part):
    """Its judge takes all the memory that it is given."""

    def judge(self) -> Judge:
        bytearray(campaign.MEMORY)
        return super().judge()


def test_memory_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="memory"):
        ran(Greedy(), Record(tmp_path / "r.jsonl", HEADER), 2)


def test_the_processors_time_is_that_of_children_too() -> None:
    before = processor_seconds()
    # CPython's own arithmetic, for a moment that the clock of processes can tell.
    burn = "import time; at = time.process_time()\nwhile time.process_time() < at + 0.2: pass"
    process = subprocess.Popen([sys.executable, "-S", "-c", burn])
    try:
        while process.poll() is None and processor_seconds() - before < 0.1:
            time.sleep(0.01)
        assert processor_seconds() - before >= 0.1
    finally:
        process.wait()
    # Two clocks, each of hundredths.
    assert processor_seconds() - before >= 0.18
