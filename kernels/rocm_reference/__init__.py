"""The reference contestant: the selector of the specification and every ROCm attention backend.

This package never imports ``conformance``: the judge knows the contestant, not the other way round.
"""
