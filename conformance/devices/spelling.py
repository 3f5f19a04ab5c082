"""The spelling of a device, and the facts of each AMD target that a driver must answer."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("aot", "isa")


@dataclass(frozen=True)
class TargetFacts:
    """What Triton asks of a device. ``wave_size`` in lanes; ``lds_bytes`` at most per workgroup.

    ``lds_pool`` bytes are shared by the workgroups on ``simds`` SIMDs: a compute unit's on CDNA, a
    work group processor's on RDNA. Source: https://llvm.org/docs/AMDGPUUsage.html
    """

    wave_size: int
    lds_bytes: int
    lds_pool: int
    simds: int = 4
    max_registers: int = 512


# A test holds it to conformance/matrix/targets.toml: a worker has this folder alone.
TARGETS: dict[str, TargetFacts] = {
    "gfx90a": TargetFacts(64, 65536, 65536),
    "gfx942": TargetFacts(64, 65536, 65536),
    "gfx950": TargetFacts(64, 163840, 163840),
    "gfx1100": TargetFacts(32, 65536, 131072),
    "gfx1101": TargetFacts(32, 65536, 131072),
    "gfx1150": TargetFacts(32, 65536, 131072),
    "gfx1151": TargetFacts(32, 65536, 131072),
    "gfx1200": TargetFacts(32, 65536, 131072),
    "gfx1201": TargetFacts(32, 65536, 131072),
}


@dataclass(frozen=True)
class DeviceName:
    """A device: ``kind`` aot or isa, a ``target``, and how the emulator runs.

    ``serial``: waves run one at a time between barriers, in an order drawn from ``seed``.
    ``poison``: registers and LDS start as garbage drawn from ``seed``.
    """

    kind: str
    target: str
    serial: bool = False
    poison: bool = False
    seed: int = 0

    def __str__(self) -> str:
        parts = [f"{self.kind}:{self.target}"]
        parts += [mode for mode in ("serial", "poison") if getattr(self, mode)]
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
        raise ValueError(
            f"device {text!r}: expected aot:<target> or isa:<target>[,serial][,poison]"
        )
    if target not in TARGETS:
        raise ValueError(f"device {text!r}: unknown target {target!r}; known: {', '.join(TARGETS)}")
    seed = 0
    for mode in modes:
        if mode.startswith("seed=") and mode[5:].isdigit():
            seed = int(mode[5:])
        elif mode not in ("serial", "poison"):
            raise ValueError(f"device {text!r}: {mode!r} is not serial, poison or seed=N")
    if kind == "aot" and modes:
        raise ValueError(f"device {text!r}: modes are for isa: an aot device runs nothing")
    return DeviceName(kind, target, "serial" in modes, "poison" in modes, seed)
