"""Whether every backend's kernels compute attention, to within a proven error bound."""

from conformance.suites.parity.artefacts import artefacts
from conformance.suites.parity.coverage import closing_cases
from conformance.suites.parity.options import PROBLEM, left_out
from conformance.suites.suite import Suite

SUITE = Suite(
    "parity",
    options=(PROBLEM,),
    left_out=left_out,
    closing_cases=closing_cases,
    artefacts=artefacts,
    many_groups=True,
)
