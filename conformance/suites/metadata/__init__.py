"""Whether a build's attention metadata describes its batches: all that needs no kernel, and no GPU.

A backend's metadata builder says which tokens are whose, where keys lie, and what memory kernels
may use. It is Python, so it is made and called on a simulated AMD machine, for every backend: those
whose kernels need a GPU too.
"""

from conformance.suites.metadata.options import left_out
from conformance.suites.suite import Suite

# A run has it only when it names it: each vLLM is started once more, on a machine with aiter.
SUITE = Suite("metadata", by_default=False, left_out=left_out)
