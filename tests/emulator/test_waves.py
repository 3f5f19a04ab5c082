"""Waves do not mix: several at once, and some of them only, come to what each does alone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance.devices.assembly import parse_instruction
from conformance.devices.isa.instructions.table import build_step
from conformance.devices.isa.memory import Buffer, Memory
from conformance.devices.isa.state import EXEC, M0, NULL, SCALARS, Shape, State
from conformance.devices.isa.target import IsaTarget
from tests.emulator.isa_cases import buffer
from tests.emulator.native.texts import FORMS, arithmetic, matrices, memory

# Waves 0 and 2 run; wave 1 waits, and must be left as it is.
WAVES, RUNNING = 3, (0, 2)
LDS, SCRATCH = 1 << 12, 64
SHAPE = Shape(WAVES, 64, 128, 64, WAVES, LDS, SCRATCH)
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


def in_memory() -> dict[IsaTarget, list[str]]:
    """Loads, stores and atomics of every kind of memory, loads to LDS among them."""
    more = [
        *(f"{name} v8, v4, s[20:23], s24 offen sc0" for name in ("buffer_atomic_add",
                                                                 "buffer_atomic_cmpswap_x2")),
        "global_atomic_add v9, v[4:5], v8, off sc0",
        "global_atomic_umax_x2 v[10:11], v[4:5], v[8:9], off sc0",
        "global_load_lds_dword v[4:5], off offset:16",
        "buffer_load_dwordx4 v4, s[20:23], s24 offen lds",
        "ds_add_rtn_u32 v9, v6, v8 offset:4",
        "ds_cmpst_rtn_b64 v[10:11], v6, v[8:9], v[12:13]",
        "ds_max_f32 v6, v8",
        "scratch_load_ubyte v9, v7, off offset:4",
        "scratch_store_short_d16_hi v7, v8, off",
    ]  # fmt: skip
    near = re.compile(r"^ds_\w+ (v8|v\[8:\d+\], )?.*v4")
    return {
        target: [re.sub(r"\bv4\b", "v6", text) if near.match(text) else text
                 for text in [*some, *(more if target.is_gfx9 else [])]]
        for target, some in memory().items()
    }  # fmt: skip


def filled(target: IsaTarget, waves: int, generator: Any, *buffers: Buffer) -> State:
    shape = replace(SHAPE, waves=waves, lanes=target.lanes, groups=waves)
    m = State(shape, Memory(buffers), None)
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
    m.lds[:] = generator.integers(0, 256, m.lds.shape, dtype=np.uint8)
    if buffers:
        _address(m, generator, buffers[0])
    assert m.scalar.shape[0] == SCALARS
    return m


def _address(m: State, generator: Any, data: Buffer) -> None:
    """Places that do not overlap: in the buffer in v[4:5], in LDS in v6, in scratch in v7; the
    buffer in s[12:13], its descriptor, which leaves some lanes out, in s[20:23]."""
    shape = m.vector[4].shape
    offset = 16 * generator.permutation(shape[0] * shape[1]).reshape(shape)
    m.vector[4], m.vector[5] = (data.start + offset) & 0xFFFFFFFF, data.start >> 32
    m.vector[6] = 16 * generator.permutation(shape[1])
    m.vector[7] = 4 * generator.integers(0, 8, shape)
    for register in (12, 20):
        m.scalar[register], m.scalar[register + 1] = data.start & 0xFFFFFFFF, data.start >> 32
    m.scalar[22], m.scalar[24], m.scalar[M0] = 2900, 12, generator.integers(0, 64, m.n) * 4


def alone(m: State, wave: int, target: IsaTarget) -> State:
    """One wave of a state, by itself."""
    shape = replace(SHAPE, waves=1, lanes=target.lanes, groups=1)
    one = State(shape, m.memory, None)
    for name in REGISTERS:
        getattr(one, name)[...] = getattr(m, name)[:, wave : wave + 1]
    one.scc[:] = m.scc[wave]
    one.lds[:] = m.lds[wave * LDS : (wave + 1) * LDS]
    return one


def mixed(text: str, target: IsaTarget, *buffers: Buffer) -> list[str]:
    """The places in which waves at once differ from each by itself."""
    step = build_step(parse_instruction(text), target)
    m = filled(target, WAVES, np.random.default_rng(1), *buffers)
    if buffers and text.startswith("buffer"):
        m.vector[4] -= np.uint32(buffers[0].start & 0xFFFFFFFF)
    before = [data.data.copy() for data in buffers]
    ones = [alone(m, wave, target) for wave in range(WAVES)]
    with np.errstate(all="ignore"):
        m.select(np.array(RUNNING))
        step(m)
        at_once = [data.data.copy() for data in buffers]
        for data, was in zip(buffers, before, strict=True):
            data.data[:] = was
        for wave in RUNNING:
            ones[wave].select(np.array([0]))
            step(ones[wave])
    found = [
        f"{name} of wave {wave}"
        for name in REGISTERS
        for wave in range(WAVES)
        if not np.array_equal(getattr(m, name)[:, wave], getattr(ones[wave], name)[:, 0])
    ]
    found += [
        f"LDS of wave {wave}"
        for wave in range(WAVES)
        if not np.array_equal(m.lds[wave * LDS : (wave + 1) * LDS], ones[wave].lds)
    ]
    found += [
        f"byte {np.argmax(data.data != other)} of memory"
        for data, other in zip(buffers, at_once, strict=True)
        if not np.array_equal(data.data, other)
    ]
    return found + [f"scc of wave {wave}" for wave in range(WAVES) if m.scc[wave] != ones[wave].scc]


@pytest.mark.parametrize("target", texts(), ids=lambda target: str(target.name))
def test_waves_do_not_mix(target: IsaTarget) -> None:
    wrong = {text: found for text in texts()[target] if (found := mixed(text, target))}
    assert wrong == {}


@pytest.mark.parametrize("target", in_memory(), ids=lambda target: str(target.name))
def test_waves_do_not_mix_in_memory(target: IsaTarget) -> None:
    words = np.random.default_rng(3).integers(0, 1 << 32, 1 << 10, dtype=np.uint32)
    _, data = buffer("data", words)
    wrong = {t: found for t in in_memory()[target] if (found := mixed(t, target, data))}
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
