"""Which releases show which known defect: the smallest problem of each, given to each release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from packaging.version import Version

from conformance.errors import InfrastructureError
from conformance.problems.defects import KnownDefect
from conformance.problems.tensors import materialise
from conformance.requirements.waivers import Waiver
from conformance.suites.case import Context, Unsupported
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.defects_table import HIDDEN, RIGHT, WRONG, Seen
from conformance.suites.parity.harness import KernelWorkers, attend
from conformance.suites.parity.judging import Verdict, verdict
from conformance.suites.parity.shown_gpu import shown_gpu


def seen_in(
    defects: Sequence[KnownDefect],
    subjects: Sequence[str],
    context: Context,
    waivers: Sequence[Waiver],
) -> Iterator[Seen]:
    """Each problem's answer of each release whose engine gives its backend such a problem."""
    deviations = {waiver.id: frozenset(waiver.deviations) for waiver in waivers}
    platform = next(iter(context.platforms))
    with closing(KernelWorkers(context)) as workers:
        for subject in subjects:
            release, edition = context.release(subject), context.edition(subject)
            for defect in defects:
                problem = defect.problem
                case = ParityCase(
                    *("parity", "parity", subject, "", platform, (), platform),
                    problem=problem,
                    backend=problem.backend,
                    device=context.config.device,
                    target=shown_gpu(context.config, problem),
                )
                if defect.asked_in(edition):
                    yield Seen(
                        defect,
                        Version(release),
                        _answer(case, defect, workers, deviations.get(defect.waiver, frozenset())),
                    )


def _answer(
    case: ParityCase, defect: KnownDefect, workers: KernelWorkers, deviations: frozenset[str]
) -> str:
    """Whether an answer is wrong as the defect makes it.

    ``deviations``: what that is called; nothing has a name where the backend refuses, and then
    whatever is wrong is taken for it.
    """
    tensors = materialise(defect.problem)

    def judged(filling: str) -> Verdict:
        attended = attend(case, defect.problem, workers, tensors, cache_filling=filling)
        return verdict(case, attended, tensors, poison=filling != "zero")

    try:
        answer = judged(defect.filling)
        if not answer.wrong:
            return RIGHT
        if not defect.filling and (zeros := judged("zero")).wrong:
            answer = answer.with_zeros_too(zeros)
    except (Unsupported, InfrastructureError) as error:
        return str(error)
    seen = {name for _, identity in answer.found for name in identity.deviations}
    return WRONG if not deviations or deviations & seen else HIDDEN
