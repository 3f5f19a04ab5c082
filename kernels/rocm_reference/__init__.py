"""The reference: the specification's backend selector and an implementation of every ROCm backend.

This package never imports ``conformance``: the suite tests the reference, and the reference must
not know how.
"""
