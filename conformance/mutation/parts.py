"""The parts that campaigns go through, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conformance.errors import UsageError
from conformance.mutation.campaign import tree_digest
from conformance.mutation.results import SUFFIX, Header
from conformance.mutation.verdict import Part

RELEASES = ("0.19.0", "0.33.0")
VLLM = "vllm"
PARTS = ("kernels", *(f"{VLLM}-{release}" for release in RELEASES))
PARTS = (*PARTS, "editions", "selector", "requirements", "emulator")
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Opened:
    """A part, and the first line of its record, which is kept in the file ``record``."""

    part: Part
    header: Header
    record: Path


def open_part(
    name: str, results: Path, standard_seconds: float, say: Callable[[str], None]
) -> Opened:
    """Makes a part ready; what it finds out of right code is kept in ``results``.

    Raises:
        UsageError: there is none of that name, or it needs the checkout.
    """
    # Here, because some take seconds to import, and `--help` reads the names alone.
    from conformance.mutation.kernel_sources import reference_source, vllm_source  # noqa: PLC0415
    from conformance.mutation.kernels import KernelPart  # noqa: PLC0415
    from conformance.mutation.requirement_rows import RequirementPart  # noqa: PLC0415
    from conformance.mutation.selection import EditionPart, SelectorPart  # noqa: PLC0415
    from conformance.mutation.tested import TESTS, EmulatorPart  # noqa: PLC0415

    folders: list[Path] = []
    settings = ""
    part: Part
    if name == "kernels" or name.startswith(f"{VLLM}-"):
        release = name.removeprefix(f"{VLLM}-")
        source = reference_source() if name == "kernels" else vllm_source(release)
        settings = f"standard tier for {standard_seconds:g} s"
        tree = tree_digest()
        part = KernelPart(source, standard_seconds, say, results / f"{name}-{tree}.baseline.json")
    elif name == "editions":
        part = EditionPart()
    elif name == "selector":
        part = SelectorPart()
    elif name == "requirements":
        part = RequirementPart()
    elif name == "emulator":
        folders = [CHECKOUT / tests for tests in TESTS]
        if not all(folder.is_dir() for folder in folders):
            raise UsageError("--part emulator needs the checkout: its tests are not in a wheel")
        kept = results / f"{name}-{tree_digest(*folders)}.baseline.json"
        part = EmulatorPart(say, kept)
    else:
        raise UsageError(f"unknown part {name!r}: there are {', '.join(PARTS)}")
    header = Header(name, part.says, tree_digest(*folders), 0, settings)
    return Opened(part, header, results / f"{name}{SUFFIX}")
