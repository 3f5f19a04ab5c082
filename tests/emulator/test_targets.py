"""One table of facts about targets, and what is refused because the table does not have it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import conformance
from conformance.devices.assembly import parse_instruction
from conformance.devices.isa import execute
from conformance.devices.isa.instructions.table import build
from conformance.devices.isa.target import IsaTarget, UnknownError
from conformance.devices.kernel import Kernel, Launch
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from conformance.devices.targets import TARGETS, target_facts
from conformance.matrix.targets import TARGETS as JUDGED
from conformance.worker.errors import WorkerError
from conformance.worker.targets import target_facts as worker_facts
from conformance.worker.vllm import simulated_platform

ROOT = Path(conformance.__file__).parent
# A target whose name looks like RDNA4's: what it has of its own no row says.
UNKNOWN = "gfx1202"


def test_the_judges_table_agrees() -> None:
    assert list(JUDGED) == list(TARGETS)
    for name, known in JUDGED.items():
        facts = TARGETS[name]
        family = facts.family
        told = (family.name, family.wave_size, facts.lds_bytes, family.matrix, family.fp8)
        assert told == (known.family, known.wave_size, known.lds_bytes, known.matrix, known.fp8)


def test_a_target_without_a_row_is_refused_with_the_facts_it_needs() -> None:
    missing = "lds_pool.*compute_units.*wave_size.*fp8.*matrix_layout.*workgroup_ids"
    with pytest.raises(ValueError, match=f"unknown target '{UNKNOWN}'.*{missing}"):
        target_facts(UNKNOWN)
    for kind in ("aot", "isa"):
        with pytest.raises(ValueError, match=f"device '{kind}:{UNKNOWN}': .*{missing}"):
            parse_device(f"{kind}:{UNKNOWN}")
    with pytest.raises(WorkerError, match=f"{UNKNOWN}.*compute_units"):
        worker_facts(UNKNOWN)
    with pytest.raises(WorkerError, match=f"{UNKNOWN}.*market_name"):
        simulated_platform.install(UNKNOWN, {"aiter": False, "flash_attn": False})


def test_a_worker_reads_the_same_rows() -> None:
    assert worker_facts("gfx942").compute_units == target_facts("gfx942").compute_units == 304


WMMA = "v_wmma_f32_16x16x16_f16 v[0:7], v[8:11], v[12:15], v[0:7]"
MFMA = "v_mfma_f32_32x32x8_f16 v[0:15], v[16:17], v[18:19], v[0:15]"
# What a family lacks, an instruction that needs it, and the words it is refused with.
LACKING = [
    ({"matrix_layout": "another"}, WMMA, "WMMA's matrix layout on gfx1202"),
    ({"matrix_layout": "another"}, MFMA, "MFMA's matrix layout on gfx1202"),
    ({"fp8": "none"}, "v_cvt_pk_f32_fp8_e32 v[0:1], v2", "fp8 on gfx1202"),
]


@pytest.mark.parametrize(("lacks", "text", "words"), LACKING)
def test_a_family_of_its_own_never_runs_with_anothers_layout(
    lacks: dict[str, str], text: str, words: str
) -> None:
    rdna4 = target_facts("gfx1201")
    facts = replace(rdna4, name=UNKNOWN, family=replace(rdna4.family, **lacks))  # type: ignore[arg-type] # every one is a string
    build(parse_instruction(WMMA), IsaTarget(rdna4, 32))
    with pytest.raises(UnknownError, match=words):
        build(parse_instruction(text), IsaTarget(facts, 32))


def test_where_a_workgroup_finds_its_number_is_never_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rdna4 = target_facts("gfx1201")
    family = replace(rdna4.family, name="CDNA5", workgroup_ids="elsewhere")
    rows = {**TARGETS, UNKNOWN: replace(rdna4, name=UNKNOWN, family=family)}
    monkeypatch.setattr("conformance.devices.targets.TARGETS", rows)
    monkeypatch.setattr("conformance.devices.spelling.TARGETS", rows)
    device = parse_device(f"isa:{UNKNOWN}")
    text = "k:\n\ts_endpgm\n.Lfunc_end0:\n\t.amdhsa_kernel k\n\t.end_amdhsa_kernel\n"
    kernel = Kernel("k", text, 0, 1, 32, resources_of(text, 0, 1, device.facts))
    with pytest.raises(ValueError, match="where CDNA5 has a workgroup's number is not known"):
        execute(Launch(kernel, (1, 1, 1), kernel.workgroup), device)


def test_no_fact_is_read_off_a_targets_name() -> None:
    guess = re.compile(r"""startswith\(\(?["']gfx""")
    guesses = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ROOT.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if guess.search(line)
    ]
    assert guess.search('name.startswith(("gfx11", "gfx12"))')
    assert not guesses


def test_modes_are_read_in_any_order_and_written_in_one() -> None:
    device = parse_device("isa:gfx942,seed=3,serial,masked")
    assert (device.masked, device.serial, device.poison, device.races) == (True, True, False, False)
    assert str(device) == "isa:gfx942,masked,serial,seed=3"
    with pytest.raises(ValueError, match="'mask' is not masked, serial, poison, races or seed=N"):
        parse_device("isa:gfx942,mask")
