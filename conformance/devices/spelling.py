"""The spelling of a device: what kind, which target, and how the emulator runs."""

from __future__ import annotations

from dataclasses import dataclass

from .targets import TARGETS, TargetFacts, UnknownTargetError

KINDS = ("aot", "isa")
MODES = ("masked", "serial", "poison", "races")
# How modes are asked for, as messages and help spell it.
MODES_TEXT = "".join(f"[,{mode}]" for mode in MODES)


@dataclass(frozen=True)
class DeviceName:
    """A device: ``kind`` aot or isa, a ``target``, and how the emulator runs.

    ``serial``: waves run one at a time between barriers, in an order drawn from ``seed``.
    ``poison``: registers and LDS start as garbage drawn from ``seed``. ``races``: accesses that no
    barrier orders are looked for. ``masked``: lanes that are off bring zeros to matrix products.
    """

    kind: str
    target: str
    serial: bool = False
    poison: bool = False
    seed: int = 0
    races: bool = False
    masked: bool = False

    def __str__(self) -> str:
        parts = [f"{self.kind}:{self.target}"]
        parts += [mode for mode in MODES if getattr(self, mode)]
        parts += [f"seed={self.seed}"] if self.seed else []
        return ",".join(parts)

    @property
    def facts(self) -> TargetFacts:
        return TARGETS[self.target]


def parse_device(text: str) -> DeviceName:
    """``aot:gfx942`` or ``isa:gfx942,serial,poison,seed=3``; a ValueError names what is wrong."""
    kind, colon, rest = text.partition(":")
    target, *modes = rest.split(",")
    if not colon or kind not in KINDS:
        raise ValueError(f"device {text!r}: expected aot:<target> or isa:<target>{MODES_TEXT}")
    if target not in TARGETS:
        raise ValueError(f"device {text!r}: {UnknownTargetError(target)}")
    seed = 0
    for mode in modes:
        if mode.startswith("seed=") and mode[5:].isdigit():
            seed = int(mode[5:])
        elif mode not in MODES:
            raise ValueError(f"device {text!r}: {mode!r} is not {', '.join(MODES)} or seed=N")
    if kind == "aot" and modes:
        raise ValueError(f"device {text!r}: modes are for isa: an aot device runs nothing")
    return DeviceName(kind, target, seed=seed, **{mode: mode in modes for mode in MODES})
