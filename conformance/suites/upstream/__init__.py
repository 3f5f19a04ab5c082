"""A vLLM's own tests, on a simulated AMD machine.

They are taken from the release's source distribution and run unmodified. ``rocm-conformance
simulate`` runs those that a user names; ``rocm-conformance upstream`` those of a table, and judges
how they end.
"""
