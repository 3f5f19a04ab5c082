"""What the subject's Triton kernels compile to for each target; this needs no AMD GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import Platform
from conformance.matrix.targets import Target
from conformance.matrix.targets import target as known_target
from conformance.problems.aiter import planned_problems
from conformance.suites.case import (
    Case,
    Context,
    Measured,
    Nonconformance,
    Unsupported,
    in_one_line,
)
from conformance.suites.codegen import SUITE
from conformance.suites.codegen.compilers import (
    Asked,
    Compilations,
    Configuration,
    configurations,
    is_of_hip,
    libraries,
    name_of,
)
from conformance.suites.codegen.findings import AS_SERVED, TABLES, findings
from conformance.suites.codegen.identities import identity_of
from conformance.suites.codegen.options import as_served, of_hip
from conformance.suites.codegen.tiles import choices_of

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
REQUIREMENTS = tuple(f"CGN-00{n}" for n in range(1, 8))
# Asked of code that ships besides: what compilers make has none of these, as tests show.
OF_ASSEMBLY = ("CGN-008", "CGN-009")
# Asked of HIP kernels: their arguments and their workgroups are the host code's.
OF_HIP = ("CGN-001", "CGN-002", "CGN-003", *OF_ASSEMBLY)
# aiter ships code objects for these.
CODE_OBJECTS = ("gfx942", "gfx950")
NOTHING = "all"


@dataclass(frozen=True)
class CodegenCase(Case):
    """One requirement of one configuration's kernels on one target.

    A case without a ``configuration`` reports why a library's kernels are not judged.
    """

    library: str = ""
    missing: str = ""
    configuration: Configuration | None = None

    @property
    def name(self) -> str:
        name = name_of(self.configuration) if self.configuration else f"{self.library} {NOTHING}"
        return f"{self.requirement} {name} on {self.platform.target}"

    @property
    def group(self) -> str:
        # One process compiles for one target, because Triton keeps state that depends on it. Of
        # HIP there are hundreds of instances, and no two of them share anything.
        one = f"{name_of(self.configuration)} " if self.of_hip and self.configuration else ""
        return f"{self.subject} {self.library} codegen {one}on {self.platform.target}"

    @property
    def machine(self) -> str:
        return self.group

    @property
    def of_hip(self) -> bool:
        """Whether it is about an instance of vLLM's HIP decode."""
        return self.configuration is not None and is_of_hip(self.configuration)

    @property
    def where(self) -> dict[str, str]:
        """A result's fields; waivers of HIP kernels, which usual runs leave out, name them."""
        if not self.of_hip:
            return super().where
        return {**super().where, "platform": f"{self.asked_on}, HIP kernels"}


def cases(context: Context) -> Iterator[CodegenCase]:
    for subject in context.config.subjects:
        known = context.requirements(subject)
        for library, missing in libraries(context, subject).items():
            wanted = [name for name in _wanted(context.config, library) if name in known]
            for platform, cells in _platforms(context).items():
                made = CodegenCase(SUITE.name, "codegen", subject, "", platform, cells, platform)
                made = replace(made, library=library, missing=missing)
                target = known_target(platform.target)
                asked: list[Configuration | None] = [None]
                if not missing:
                    asked = [*_configurations(context, subject, library, target)]
                for configuration in asked:
                    for requirement in wanted:
                        yield replace(made, requirement=requirement, configuration=configuration)
                if library == "aiter" and TABLES in known and not missing:
                    yield from _asked_of_tables(made, target, context.config)


def _wanted(config: RunConfig, library: str) -> Sequence[str]:
    """The requirements of a library's kernels."""
    if as_served(config):
        return tuple(AS_SERVED)
    if of_hip(config):
        return OF_HIP
    return (*REQUIREMENTS, *OF_ASSEMBLY) if library == "aiter" else REQUIREMENTS


def _configurations(
    context: Context, subject: str, library: str, target: Target
) -> Iterator[Configuration]:
    config, edition = context.config, context.edition(subject)
    choices = {"as_served": as_served(config), "of_hip": of_hip(config)}
    return configurations(library, target, edition, **choices)


def _asked_of_tables(made: CodegenCase, target: Target, config: RunConfig) -> Iterator[CodegenCase]:
    """What vLLM may ask of aiter's code objects, on a target that has any."""
    if target.name in CODE_OBJECTS and not as_served(config) and not of_hip(config):
        for problem in planned_problems(target.fp8):
            yield replace(made, requirement=TABLES, configuration=problem)


def _platforms(context: Context) -> dict[Platform, tuple[str, ...]]:
    """The platform of each target with nothing set, and the cells that have the target."""
    platforms: dict[Platform, tuple[str, ...]] = {}
    for name in TARGETS:
        of = [cells for platform, cells in context.platforms.items() if platform.target == name]
        if of:
            platforms[Platform.make(name)] = tuple(dict.fromkeys(c for cells in of for c in cells))
    return platforms


@pytest.fixture(scope="session")
def compilations(context: Context) -> Iterator[Compilations]:
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    compiled = Compilations(context)
    yield compiled
    compiled.close()


def test_codegen(case: CodegenCase, compilations: Compilations) -> Measured:
    if case.configuration is None:
        raise Unsupported(case.missing)
    target = known_target(case.platform.target)
    asked = Asked(case.subject, case.library, case.platform)
    compiled = compilations.of(asked, case.configuration)
    counts = {"kernels": len(compiled.kernels)}
    counts |= choices_of(compiled) if case.requirement in AS_SERVED else {}
    measures = compiled.measures() if case.requirement == "CGN-001" else {}
    measured = Measured(counts, measures)
    wrong = findings(case.requirement, compiled, target)
    if wrong:
        reproduce = f"rocm-conformance run --suite codegen --subject '{case.subject}'"
        if case.requirement in AS_SERVED:
            reproduce += f" --configurations served --target {case.platform.target}"
        elif is_of_hip(case.configuration):
            reproduce += f" --configurations hip --target {case.platform.target}"
        raise Nonconformance(
            in_one_line(wrong),
            reproduce,
            measured,
            compiled.trace,
            findings=wrong,
            identities=[identity_of(case.requirement, text, compiled) for text in wrong],
        )
    if not compiled.kernels:
        raise Unsupported("nothing was compiled: see CGN-001")
    return measured
