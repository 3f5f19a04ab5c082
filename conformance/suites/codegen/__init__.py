"""Whether a build's Triton kernels compile for every AMD target and fit its resources."""

from conformance.suites.codegen.artefacts import artefacts
from conformance.suites.codegen.options import CONFIGURATIONS, left_out, of_hip
from conformance.suites.codegen.tiles import closing_cases
from conformance.suites.suite import Suite

# It compiles hundreds of kernels, so a run has it only when it names it.
SUITE = Suite(
    "codegen",
    by_default=False,
    options=(CONFIGURATIONS,),
    left_out=left_out,
    closing_cases=closing_cases,
    artefacts=artefacts,
    many_groups=of_hip,
)
