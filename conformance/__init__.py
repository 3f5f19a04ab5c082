"""The judge: requirements, subjects, suites and reports for attention backends on AMD ROCm."""

__version__ = "0.1.0"
