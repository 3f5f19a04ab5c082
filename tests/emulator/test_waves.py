"""Waves do not mix: several at once, and some of them only, come to what each does alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.memory import Memory
from conformance.devices.isa.state import EXEC, NULL, SCALARS, Shape, State
from conformance.devices.isa.target import IsaTarget
from tests.emulator.native.texts import FORMS, arithmetic, matrices

# Waves 0 and 2 run; wave 1 waits, and must be left as it is.
WAVES, RUNNING = 3, (0, 2)
SHAPE = Shape(WAVES, 64, 128, 64, WAVES, 64, 64)
REGISTERS = ("vector", "scalar", "scratch")


def texts() -> dict[IsaTarget, list[str]]:
    """An instruction of every name; of the long matrix products in many formats, two."""
    found: dict[IsaTarget, list[str]] = {}
    for asked in (arithmetic(), matrices(), FORMS):
        for target, some in asked.items():
            found.setdefault(target, []).extend(
                text for text in some if "f8f6f4" not in text or text.endswith("99], 0 cbsz:1")
            )
    return found


def filled(target: IsaTarget, waves: int, generator: Any) -> State:
    m = State(replace(SHAPE, waves=waves, lanes=target.lanes, groups=waves), Memory([]), None)
    m.workgroup[:] = np.arange(waves)
    for name in REGISTERS:
        registers = getattr(m, name)
        registers[...] = generator.integers(0, 1 << 32, registers.shape, dtype=np.uint32)
    m.scalar[NULL] = 0
    # Small numbers in some: indices of lanes, counts of shifts, addresses.
    m.scalar[20] = generator.integers(0, 32, waves)
    m.scalar[EXEC, 0] = 0xFFFFFFFF
    if target.lanes == 32:
        m.scalar[[EXEC + 1, 107]] = 0
    m.scc[:] = generator.integers(0, 2, waves)
    assert m.scalar.shape[0] == SCALARS
    return m


def alone(m: State, wave: int, target: IsaTarget) -> State:
    """One wave of a state, by itself."""
    shape = replace(SHAPE, waves=1, lanes=target.lanes, groups=1)
    one = State(shape, Memory([]), None)
    for name in REGISTERS:
        getattr(one, name)[...] = getattr(m, name)[:, wave : wave + 1]
    one.scc[:] = m.scc[wave]
    return one


def mixed(text: str, target: IsaTarget, seed: int = 1) -> list[str]:
    """The places in which waves at once differ from each by itself."""
    step = build_step(parse_instruction(text), target)
    m = filled(target, WAVES, np.random.default_rng(seed))
    ones = [alone(m, wave, target) for wave in range(WAVES)]
    with np.errstate(all="ignore"):
        m.select(np.array(RUNNING))
        step(m)
        for wave in RUNNING:
            ones[wave].select(np.array([0]))
            step(ones[wave])
    found = [
        f"{name} of wave {wave}"
        for name in REGISTERS
        for wave in range(WAVES)
        if not np.array_equal(getattr(m, name)[:, wave], getattr(ones[wave], name)[:, 0])
    ]
    return found + [f"scc of wave {wave}" for wave in range(WAVES) if m.scc[wave] != ones[wave].scc]


@pytest.mark.parametrize("target", texts(), ids=lambda target: str(target.name))
def test_waves_do_not_mix(target: IsaTarget) -> None:
    wrong = {text: found for text in texts()[target] if (found := mixed(text, target))}
    assert wrong == {}


def test_waves_that_mix_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    (target, *_) = texts()
    text = "v_add_u32_e32 v0, v1, v2"
    assert mixed(text, target) == []
    right = State.set_v

    def turned(self: State, index: int, value: Any, only: Any = None) -> None:
        right(self, index, np.broadcast_to(value, (self.n, self.lanes))[::-1], only)

    monkeypatch.setattr(State, "set_v", turned)
    assert mixed(text, target) == ["vector of wave 0", "vector of wave 2"]
