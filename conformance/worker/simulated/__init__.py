"""The folder that ``rocm-conformance simulate`` puts first on a command's PYTHONPATH."""
