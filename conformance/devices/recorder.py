"""What a device did: launches, time, instructions that ran, violations; for reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .assembly import AssemblyError
from .kernel import Kernel, Launch
from .spelling import DeviceName

if TYPE_CHECKING:
    from .isa.launch import Run


@dataclass
class Compilation:
    """How many instructions one compilation has, the numbers of those that ran, and the source line
    of each."""

    instructions: int
    executed: set[int] = field(default_factory=set)
    lines: tuple[str, ...] = ()


@dataclass
class Ran:
    """A kernel's launches since the last collection.

    ``compilations`` go by their text: what is known of an argument (a multiple of 16) makes other
    code of the same configuration.
    """

    kernel: Kernel
    launches: int = 0
    seconds: float = 0.0
    wave_instructions: int = 0
    compilations: dict[str, Compilation] = field(default_factory=dict)
    lanes_off: bool = False


class Recorder:
    """Runs launches on a device and keeps what they did until it is collected.

    ``lanes_off``: "zero" where lanes that are off bring zeros to matrix products, as they do on a
    ``masked`` device.
    """

    def __init__(self, name: DeviceName) -> None:
        self.name = name
        self.lanes_off = ""
        self.ran: dict[str, Ran] = {}
        self.violations: list[dict[str, str]] = []
        # Instructions of each compilation that ever ran in this process.
        self._ever: dict[str, set[int]] = {}

    def compiled(self, kernel: Kernel) -> None:
        """A kernel was compiled; whether it can be launched is not known yet."""
        self.ran.setdefault(kernel.key, Ran(kernel))

    def compiled_only(self, kernel: Kernel) -> None:
        """A launch that stops at the compiled code: nothing runs."""
        self.ran.setdefault(kernel.key, Ran(kernel)).launches += 1

    def run(self, launch: Launch) -> Run:
        """Executes a launch by emulation; its tensors are changed in place.

        Raises:
            Violation: the kernel did what it must not; it is kept for the report, too.
            UnknownInstructionError: it holds what the emulator does not know.
        """
        from .isa import Violation, execute  # noqa: PLC0415 - numpy only where it executes

        kernel = launch.kernel
        ran = self.ran.setdefault(kernel.key, Ran(kernel))
        ran.launches += 1
        try:
            run = execute(launch, self._as_asked())
        except Violation as violation:
            self.violations.append({"kernel": kernel.name, "message": str(violation)})
            raise
        ran.seconds += run.seconds
        ran.wave_instructions += run.wave_instructions
        ran.lanes_off |= run.lanes_off
        compilation = ran.compilations.setdefault(kernel.text, Compilation(run.instructions))
        compilation.lines = run.lines
        compilation.executed.update(run.executed)
        return run

    def _as_asked(self) -> DeviceName:
        return replace(self.name, masked=True) if self.lanes_off == "zero" else self.name

    def collect(self) -> dict[str, Any]:
        """What ran since the last call, as JSON values."""
        ran, self.ran = self.ran, {}
        violations, self.violations = self.violations, []
        return {
            "device": str(self.name),
            "violations": violations,
            "kernels": [self._report(entry) for entry in ran.values()],
        }

    def _report(self, ran: Ran) -> dict[str, Any]:
        """``newly_loaded``: the instructions of compilations that had never run in this process;
        ``newly_executed``: the instructions that had not, and ``lines`` how many of them each
        source line has, those of what was newly loaded all among them."""
        loaded = executed = 0
        lines: Counter[str] = Counter()
        for text, compilation in ran.compilations.items():
            if text not in self._ever:
                loaded += compilation.instructions
                lines.update(dict.fromkeys(compilation.lines, 0))
            ever = self._ever.setdefault(text, set())
            new = compilation.executed - ever
            executed += len(new)
            lines.update(compilation.lines[number] for number in new if compilation.lines)
            ever |= compilation.executed
        del lines[""]
        counts = {"newly_loaded": loaded, "newly_executed": executed, "lines": dict(lines)}
        return {**_report(ran), **counts, **self._proofs(ran.kernel)}

    def _proofs(self, kernel: Kernel) -> dict[str, list[str] | None]:
        """What compiled code uses before its wait, and what it uses too soon after another
        instruction; None where it is run, or cannot be read."""
        if self.name.kind != "aot":
            return {"waits": None, "hazards": None}
        from .isa.proofs.hazards import hazard_findings  # noqa: PLC0415 - numpy only where needed
        from .isa.proofs.waits import wait_findings  # noqa: PLC0415 - likewise

        known = (kernel.text, self.name.target, kernel.wave_size)
        try:
            waits = [str(finding) for finding in wait_findings(*known)]
            hazards = [str(finding) for finding in hazard_findings(*known)]
        except AssemblyError:
            return {"waits": None, "hazards": None}
        return {"waits": waits, "hazards": hazards}


def _report(ran: Ran) -> dict[str, Any]:
    kernel = ran.kernel
    return {
        "name": kernel.name,
        "key": kernel.key,
        "dots": kernel.dots,
        "num_warps": kernel.num_warps,
        "constants": {k: value for k, value in kernel.constants.items() if type(value) is int},
        "types": kernel.types,
        "launches": ran.launches,
        "resources": kernel.resources.as_dict(),
        "seconds": round(ran.seconds, 4),
        "wave_instructions": ran.wave_instructions,
        "lanes_off": ran.lanes_off,
        "instructions": sum(c.instructions for c in ran.compilations.values()),
        "executed": sum(len(c.executed) for c in ran.compilations.values()),
    }
