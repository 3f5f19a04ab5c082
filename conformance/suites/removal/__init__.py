"""Whether the removed environment variable is gone: from code, docs, scripts and behaviour.

What a release says of itself is held against its own files here too: other variables, the table of
backends in its docs, the KV-cache dtypes of ROCM_ATTN.
"""

from conformance.suites.suite import Suite

SUITE = Suite("removal", reads_sources=True)
