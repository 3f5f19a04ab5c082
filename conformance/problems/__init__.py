"""Attention problems: what they are, how their tensors are made, and which ones are asked."""

from conformance.problems.families import backends, huge_cache_problem, problems_for
from conformance.problems.problem import FP8_CACHES, Kind, Problem
from conformance.problems.tensors import Tensors, materialise, stored

__all__ = [
    "FP8_CACHES",
    "Kind",
    "Problem",
    "Tensors",
    "backends",
    "huge_cache_problem",
    "materialise",
    "problems_for",
    "stored",
]
