"""Every vector instruction of the table against a model in plain Python, at edges.

Values are drawn from each type's edges (NaNs, -0, denormals, shift counts past the width), a
combination a lane; some lanes are off. An instruction without a model fails
test_isa_complete.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.alu import Step
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.state import EXEC, Shape, State
from conformance.devices.isa.target import IsaTarget
from tests.emulator.isa_cases import GFX942, GFX950, GFX1100, GFX1250
from tests.emulator.isa_cases import run as run_one
from tests.emulator.isa_model import VECTOR, Row
from tests.emulator.isa_model.bits import agree, inputs, read, related, width, write

TARGETS = {t.name: t for t in (GFX942, GFX950, GFX1100, GFX1250)}
WAVES = 4
RESULT_MASK, SOURCE_MASK = 20, 30
RUNNING = 0xDEADBEEFCAFEF00D
OLD = 0x5A5AA5A5


@dataclass(frozen=True)
class Asked:
    """One instruction on one target: its operands' types, and the bits in every lane."""

    name: str
    row: Row
    target: IsaTarget
    waves: int = WAVES

    @property
    def results(self) -> list[str]:
        return self.row.result.split()

    @property
    def sources(self) -> list[str]:
        return self.row.sources.split()

    @property
    def kinds(self) -> list[str]:
        return [*self.sources, *(self.results[:1] if self.row.accumulates else [])]

    @property
    def text(self) -> str:
        """The instruction: result v0 or v[0:1], sources from v2 on, masks in scalar registers."""
        return self.text_with(self.operands)

    @property
    def operands(self) -> list[str]:
        """The text of the results, one element, and of each source."""
        lanes = self.target.lanes
        shown = [_mask(RESULT_MASK, lanes) if self.results[0] == "mask" else _v(0, self.results[0])]
        if len(self.results) > 1:
            shown[0] += ", " + _mask(RESULT_MASK, lanes)
        for place, kind in enumerate(self.sources, 1):
            shown.append(_mask(SOURCE_MASK, lanes) if kind == "mask" else _v(2 * place, kind))
        return shown

    def text_with(self, shown: list[str], encoding: str = "") -> str:
        """The instruction with these operands."""
        form = self.row.form or ", ".join(f"{{{i}}}" for i in range(len(shown)))
        form = form.replace("a{0n}", "a0").replace("a{1n}", "a2")
        return f"{self.name}{encoding} {form.format(*shown)}"

    @cached_property
    def lanes(self) -> list[tuple[int, ...]]:
        count = self.waves * self.target.lanes
        found = inputs(self.kinds, 4 * count, self.row.sources)[: 3 * count // 4]
        found += related(self.kinds, count - len(found), self.row.sources)
        if self.row.only is not None:
            # The first source is one of the others.
            found = [(row[1 + i % 2], *row[1:]) for i, row in enumerate(found)]
            assert all(self.row.only(*row) for row in found)
        return found

    def wanted(self, given: tuple[int, ...]) -> list[int]:
        """The bits of each result."""
        values = [read(kind, bits) for kind, bits in zip(self.kinds, given, strict=True)]
        made = self.row.function(*values)
        many = made if isinstance(made, tuple) else (made,)
        return [write(kind, value) for kind, value in zip(self.results, many, strict=True)]


def _v(index: int, kind: str) -> str:
    return f"v[{index}:{index + 1}]" if width(kind) > 32 else f"v{index}"


def _mask(index: int, lanes: int) -> str:
    return f"s[{index}:{index + 1}]" if lanes == 64 else f"s{index}"


def run(asked: Asked, step: Step | None = None) -> State:
    """The state after the instruction."""
    m = prepared(asked, asked.lanes)
    with np.errstate(all="ignore"):
        (step or build_step(parse_instruction(asked.text), asked.target))(m)
    return m


def prepared(asked: Asked, given: Sequence[tuple[int, ...]]) -> State:
    """Waves whose registers hold the sources' bits, a row a lane, and garbage elsewhere."""
    target, row = asked.target, asked.row
    m = State(Shape(asked.waves, target.lanes, 128, 8, 1, 0, 0), Memory([]), None)
    m.vector[:] = OLD
    m.scalar[EXEC] = RUNNING & 0xFFFFFFFF
    m.scalar[RESULT_MASK : RESULT_MASK + 2] = 0xFFFFFFFF
    if target.lanes == 64:
        m.scalar[EXEC + 1] = RUNNING >> 32
    m.select(np.arange(asked.waves))
    lanes = np.array(given, dtype=np.uint64)
    for place, kind in enumerate(asked.kinds, 1):
        column = lanes[:, place - 1].reshape(asked.waves, target.lanes)
        if kind == "mask":
            m.set_mask(SOURCE_MASK, column == 1)
            continue
        at = 0 if place > len(asked.sources) else 2 * place
        at += target.agprs_at if f"a{{{place}n}}" in row.form else 0
        m.vector[at] = column & np.uint64(0xFFFFFFFF)
        if width(kind) > 32:
            m.vector[at + 1] = column >> np.uint64(32)
    return m


def wrong(asked: Asked, m: State) -> list[str]:
    """What is not as the model says, a line each."""
    first = asked.target.agprs_at if "a{0n}" in asked.row.form else 0
    low, high = (m.vector[first + i].reshape(-1).tolist() for i in (0, 1))
    bits = m.mask(RESULT_MASK).reshape(-1).tolist()
    found = []
    for lane, given in enumerate(asked.lanes):
        on = RUNNING >> lane % asked.target.lanes & 1
        got: dict[str, int] = {"mask": int(bits[lane]), "": low[lane] | high[lane] << 32}
        old = OLD | OLD << 32
        if asked.row.accumulates:
            size = max(width(asked.kinds[-1]), 32)
            old = old >> size << size | given[-1] & (1 << size) - 1
        wanted = asked.wanted(given) if on else [0 if k == "mask" else -1 for k in asked.results]
        for kind, value in zip(asked.results, wanted, strict=True):
            right = (
                got["mask"] == value
                if kind == "mask"
                else _register_is(asked, kind, got[""], old, value)
            )
            if not right:
                shown = [hex(bits) for bits in given]
                found.append(f"{asked.text}: {shown} {on=}: {got} is not {value:#x} ({kind})")
    return found


def others_changed(asked: Asked, m: State) -> list[str]:
    """What else the instruction changes than its results."""
    was = prepared(asked, asked.lanes)
    first = asked.target.agprs_at if "a{0n}" in asked.row.form else 0
    vectors, scalars = set(), {RESULT_MASK, RESULT_MASK + 1} if "mask" in asked.results else set()
    if asked.results[0] != "mask":
        vectors = {first, first + 1} if width(asked.results[0]) > 32 else {first}
    if asked.name.startswith("v_cmpx"):
        scalars |= {EXEC, EXEC + 1}
    found = [f"v{n}" for n in range(len(m.vector))
             if n not in vectors and not np.array_equal(m.vector[n], was.vector[n])]  # fmt: skip
    found += [f"s{n}" for n in range(len(m.scalar))
              if n not in scalars and not np.array_equal(m.scalar[n], was.scalar[n])]  # fmt: skip
    return found + ["SCC"] * (not np.array_equal(m.scc, was.scc))


def _register_is(asked: Asked, kind: str, got: int, old: int, value: int) -> bool:
    """Whether a pair of registers holds the value where the type is, and else what it should."""
    if value == -1:
        return got == old
    size, shift = width(kind), 16 if kind.startswith("high:") else 0
    mask = ((1 << size) - 1) << shift
    if size == 16 and ":" not in kind and asked.target.is_gfx9 and not asked.row.keeps:
        old = old >> 32 << 32
    plain = kind.partition(":")[2] or kind
    return got & ~mask == old & ~mask and agree(plain, (got & mask) >> shift, value, asked.row)


def asked_of(name: str) -> list[Asked]:
    """An instruction on its target; one with a 16-bit result on RDNA too, which keeps halves."""
    row = VECTOR[name]
    targets = [TARGETS[row.target]]
    if row.result in ("f16", "u16", "i16", "b16"):
        targets.append(GFX1100)
    return [Asked(name, row, target) for target in targets]


@pytest.mark.parametrize("name", VECTOR)
def test_as_the_model(name: str) -> None:
    for asked in asked_of(name):
        found = wrong(asked, m := run(asked))
        assert not (more := others_changed(asked, m)), f"{asked.text} changes {more}"
        assert not found, "\n".join([f"{len(found)} of {len(asked.lanes)} lanes", *found[:5]])
        if name.startswith("v_cmpx"):
            assert np.array_equal(m.mask(EXEC), m.mask(RESULT_MASK))


def test_another_instruction_is_noticed() -> None:
    """At these values no two instructions of one signature are alike, but for names of one."""
    alike: dict[Any, set[int]] = defaultdict(set)
    names: dict[Any, list[str]] = defaultdict(list)
    for name, row in VECTOR.items():
        if row.form or name.startswith("v_cmpx"):
            continue
        asked = Asked(name, row, TARGETS[row.target])
        seen = tuple(tuple(asked.wanted(given)) for given in asked.lanes[:100])
        alike[row.sources, row.result, seen].add(id(row.function))
        names[row.sources, row.result, seen].append(name)
    same = [names[key] for key, functions in alike.items() if len(functions) > 1]
    assert same == [], "these would pass each other's test"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("v_sub_f32", "v_subrev_f32"),
        ("v_max_f32", "v_maximum_f32"),
        ("v_lshrrev_b32", "v_ashrrev_i32"),
        ("v_add_f16", "v_sub_f16"),
        ("v_mad_u64_u32", "v_mad_i64_i32"),
        ("v_cmp_nlt_f32", "v_cmp_ge_f32"),
        ("v_addc_co_u32", "v_subb_co_u32"),
        ("v_fma_mixlo_f16", "v_fma_mixhi_f16"),
    ],
)
def test_a_wrong_instruction_is_caught(name: str, instead: str) -> None:
    (asked, *_) = asked_of(name)
    step = build_step(parse_instruction(asked.text.replace(name, instead)), asked.target)
    assert wrong(asked, run(asked, step))


@pytest.mark.parametrize(("change", "what"), [
    (lambda m: m.set_v(1, np.uint32(0)), "v1"),
    (lambda m: m.set_s(EXEC, np.uint32(0)), "s126"),
    (lambda m: m.scc.fill(True), "SCC"),
])  # fmt: skip
def test_a_change_of_anything_else_is_caught(change: Callable[[State], None], what: str) -> None:
    (asked, *_) = asked_of("v_add_f32")
    right = build_step(parse_instruction(asked.text), asked.target)

    def step(m: State) -> None:
        right(m)
        change(m)

    assert others_changed(asked, run(asked, step)) == [what]


def test_a_write_to_lanes_that_are_off_is_caught() -> None:
    (asked, *_) = asked_of("v_add_f32")
    right = build_step(parse_instruction(asked.text), asked.target)

    def step(m: State) -> None:
        m.set_s(EXEC, np.full(WAVES, 0xFFFFFFFF, dtype=np.uint32))
        right(m)

    found = wrong(asked, run(asked, step))
    assert found and all("on=0" in line for line in found)


@pytest.mark.parametrize("text", ["v_fma_f16 v0, v1, v2, v3", "v_fmac_f16 v0, v1, v2",
                                  "v_pk_fma_f16 v0, v1, v2, v3"])  # fmt: skip
@pytest.mark.parametrize(("factor", "tiny", "expected"), [
    (0x3C01, 0, 0x3E02), (0x3C01, 1, 0x3E02), (0x3C01, 0x8001, 0x3E01),
    (0x3C03, 0, 0x3E04), (0x3C03, 1, 0x3E05), (0x3C03, 0x8001, 0x3E04),
])  # fmt: skip
def test_a_fused_half_is_rounded_once(text: str, factor: int, tiny: int, expected: int) -> None:
    """1.5 * (1 + 2**-10) lies half way between halves: a denormal decides, which float32 loses."""
    values = {0: tiny, 1: 0x3E00, 2: factor, 3: tiny}
    assert int(run_one(text, v=values).vector[0, 0, 0]) & 0xFFFF == expected


@pytest.mark.parametrize("text", ["v_fma_f32 v0, v1, v2, v3", "v_fmac_f32 v0, v1, v2",
                                  "v_pk_fma_f32 v[0:1], v[4:5], v[6:7], v[8:9]"])  # fmt: skip
@pytest.mark.parametrize(
    ("factor", "expected"), [(0x19FFFFFE, 0x00400001), (0x1A000001, 0x00400002)]
)
def test_a_fused_denormal_is_rounded_once(text: str, factor: int, expected: int) -> None:
    """The product is 2**-150, half a step, less or more by what float64 loses beside 2**-127."""
    odd = 0x00400001
    values = {0: odd, 1: 0x1A000001, 2: factor, 3: odd, 4: 0x1A000001, 6: factor, 8: odd}
    values |= dict.fromkeys((5, 7, 9), 0)
    assert hex(int(run_one(text, v=values).vector[0, 0, 0])) == hex(expected)
