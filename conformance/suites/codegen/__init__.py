"""Whether a build's Triton kernels compile for every AMD target and fit its resources."""

from conformance.suites.codegen.artefacts import artefacts
from conformance.suites.suite import Suite

# Hundreds of compilations: only a run that names it has it.
SUITE = Suite("codegen", by_default=False, artefacts=artefacts)
