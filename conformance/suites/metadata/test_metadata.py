"""Each backend's metadata builder against each requirement."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conformance.config import RunConfig
from conformance.matrix.requests import AITER, Platform
from conformance.results import Identity
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.case import Case, Context, Nonconformance, Unsupported, in_one_line
from conformance.suites.metadata import SUITE
from conformance.suites.metadata.built import Finding
from conformance.suites.metadata.harness import Builders
from conformance.suites.metadata.options import USUAL, targets
from vllm_editions import load_edition

PREFIX = "MET-"
NONE_OF = "all backends"
REFERENCE = (
    "not applicable: the reference has no metadata builders; its backends take a batch's lengths, "
    "starts and tables as they are"
)
PROGRAM = "metadata builders are those of vLLMs: this program is none"


@dataclass(frozen=True)
class MetadataCase(Case):
    """One requirement of one backend's builder on one target, for all cells.

    A case without a ``backend`` reports why a subject's metadata is not judged.
    """

    backend: str = ""

    @property
    def name(self) -> str:
        return f"{self.requirement} {self.backend or NONE_OF} on {self.platform.target}"

    @property
    def group(self) -> str:
        return f"{self.subject} metadata on {self.platform.target}"

    @property
    def machine(self) -> str:
        return self.group

    @property
    def where(self) -> dict[str, str]:
        return {**super().where, "backend": self.backend}

    def command(self, config: RunConfig) -> str:
        """The command that asks again."""
        words = ["rocm-conformance", "run", "--suite", SUITE.name, "--subject", self.subject]
        words += ["--target", self.platform.target, "--problems", config.tier]
        return shlex.join([*words, "--seed", str(config.seed)])


def cases(context: Context) -> Iterator[MetadataCase]:
    for subject in context.config.subjects:
        known = [name for name in context.requirements(subject) if name.startswith(PREFIX)]
        of_vllm = kind_of(subject) is SubjectKind.VLLM
        backends = sorted(load_edition(context.edition(subject)).backends) if of_vllm else [""]
        for target in targets(context.config) if of_vllm else (USUAL,):
            platform = Platform.make(target, aiter=True, env={AITER: "1"})
            for backend in backends:
                for requirement in known:
                    yield MetadataCase(
                        SUITE.name,
                        backend,
                        subject,
                        requirement,
                        platform,
                        context.cells,
                        platform,
                        backend,
                    )


@pytest.fixture(scope="session")
def builders(context: Context) -> Iterator[Builders]:
    pool = Builders(context)
    yield pool
    pool.close()


def test_metadata(case: MetadataCase, context: Context, builders: Builders) -> dict[str, int]:
    if not case.backend:
        is_program = kind_of(case.subject) is SubjectKind.PROGRAM
        raise Unsupported(PROGRAM if is_program else REFERENCE)
    judged = builders.judged(case.subject, case.platform.target, case.backend)
    if judged.is_refused:
        raise Unsupported(judged.refused)
    found = [one for one in judged.found if one.requirement == case.requirement]
    if found:
        raise _nonconformance(case, context, found, judged.traces)
    if case.requirement not in judged.reached:
        raise Unsupported(f"nothing in {case.backend}'s metadata is about it")
    return {"compared": judged.steps}


def _nonconformance(
    case: MetadataCase, context: Context, found: list[Finding], traces: list[str]
) -> Nonconformance:
    """One finding for each field and kind: the first batch that shows it."""
    first = {(one.field, one.kind): one for one in reversed(found)}
    shown = [first[key] for key in sorted(first)]
    texts = [one.text for one in shown]
    return Nonconformance(
        f"expected {case.backend}'s metadata to describe its batches, but {in_one_line(texts)}",
        case.command(context.config),
        detail="\n".join(dict.fromkeys(traces)) if any(x.kind == "raised" for x in shown) else "",
        findings=texts,
        identities=[Identity(one.kind, (f"{case.backend}.{one.field}",)) for one in shown],
    )
