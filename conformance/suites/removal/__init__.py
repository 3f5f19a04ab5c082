"""Whether the removed environment variable is gone: from code, docs, scripts and behaviour."""

from conformance.suites.suite import Suite

SUITE = Suite("removal", reads_sources=True)
