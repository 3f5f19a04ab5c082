"""What right code is known to get wrong: a release's own deviations, which waivers accept.

A release fails some problems as it is, and a run of the suite says so and goes on. An edit is
noticed by such a problem if it fails in a way that no waiver accepts, as in a run.
"""

from __future__ import annotations

from conformance.requirements.waivers import WaiverSet, load_waivers
from conformance.results import CaseResult, Outcome
from conformance.suites.case import Context, Nonconformance
from conformance.suites.parity.case import ParityCase


class KnownFaults:
    """The suite's waivers, for failures of kernels."""

    def __init__(self, waivers: WaiverSet | None = None) -> None:
        self._waivers = waivers or load_waivers()

    def accept(self, case: ParityCase, error: Nonconformance, context: Context) -> bool:
        """Whether a run would end a case that failed like this as ``waived``, in every cell."""
        if not error.identities:
            return False
        judged, where = error.requirement or case.requirement, case.where
        failed = CaseResult(
            suite=case.suite,
            name=case.name.replace(case.requirement, judged, 1),
            outcome=Outcome.FAILED,
            cells=case.cells,
            subject=case.subject,
            subject_version=context.config.releases.get(case.subject, ""),
            edition=context.edition(case.subject),
            requirement=judged,
            source="",
            target=where["target"],
            platform=where["platform"],
            backend=where["backend"],
            simulated=True,
            findings=error.findings,
            identities=error.identities,
        )
        return all(part.outcome is Outcome.WAIVED for part in self._waivers.apply(failed))
