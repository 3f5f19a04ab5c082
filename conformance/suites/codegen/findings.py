"""Judges what a configuration's kernels compiled to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.matrix.targets import Target
from conformance.results.codegen_table import COLUMNS

# Triton's names of fp8 types, each with its encoding: the Open Compute Project's or AMD's own.
_ENCODINGS = {"fp8e4nv": "ocp", "fp8e5": "ocp", "fp8e4b8": "fnuz", "fp8e5b16": "fnuz"}
# What is required of kernels as served, each with the requirement that it is like.
# What aiter may be asked has a kernel.
TABLES = "CGN-014"
AS_SERVED = {"CGN-010": "CGN-001", "CGN-011": "CGN-002", "CGN-012": "CGN-003"}


@dataclass(frozen=True)
class Compiled:
    """The outcome of one call: its kernels, as the device reports them, or how it failed.

    ``refused``: why the subject does not claim to support the call; then it has no kernels.
    """

    kernels: tuple[Mapping[str, Any], ...]
    failed: str = ""
    trace: str = ""
    refused: str = ""

    def measures(self) -> dict[str, float]:
        """The resources: one number for each kernel and column, named ``kernel vgprs``.

        A kernel that one call launches in several configurations is ``kernel``, ``kernel#2``, ...
        """
        measures: dict[str, float] = {}
        times: Counter[str] = Counter()
        for kernel in self.kernels:
            name = str(kernel["name"])
            times[name] += 1
            name += f"#{times[name]}" if times[name] > 1 else ""
            measures |= {f"{name} {column}": kernel["resources"][column] for column in COLUMNS}
        return measures


def findings(requirement: str, compiled: Compiled, target: Target) -> list[str]:
    """How a call's kernels break one requirement, a sentence each."""
    requirement = AS_SERVED.get(requirement, requirement)
    if requirement == TABLES:
        return [compiled.failed] if compiled.failed else []
    if requirement == "CGN-001":
        out_of_lds = "OutOfResources" in compiled.failed
        return [compiled.failed] if compiled.failed and not out_of_lds else []
    check = _CHECKS[requirement]
    wrong = [f"{k['name']}: {text}" for k in compiled.kernels for text in check(k, target)]
    if requirement == "CGN-002" and "OutOfResources" in compiled.failed and not wrong:
        wrong.append(compiled.failed)
    return wrong


def _lds(kernel: Mapping[str, Any], target: Target) -> list[str]:
    lds = kernel["resources"]["lds"]
    if lds <= target.lds_bytes:
        return []
    return [f"{lds:,} bytes of LDS where {target.name} has {target.lds_bytes:,} a workgroup"]


def _spills(kernel: Mapping[str, Any], _target: Target) -> list[str]:
    had = kernel["resources"]
    if not had["spills"] and not had["scratch"]:
        return []
    return [f"{had['spills']} spilled vector registers, {had['scratch']} bytes of scratch a lane"]


def _matrix(kernel: Mapping[str, Any], target: Target) -> list[str]:
    if not kernel["dots"] or kernel["resources"]["matrix"]:
        return []
    return [f"{kernel['dots']} matrix products and not one {target.matrix} instruction"]


def _fp8_types(kernel: Mapping[str, Any]) -> list[str]:
    return [t.removeprefix("*") for t in kernel["types"] if t.removeprefix("*") in _ENCODINGS]


def _encoding(kernel: Mapping[str, Any], target: Target) -> list[str]:
    wrong = [t for t in _fp8_types(kernel) if _ENCODINGS[t] != target.fp8]
    return [f"{t} is not {target.name}'s encoding ({target.fp8})" for t in dict.fromkeys(wrong)]


def _conversions(kernel: Mapping[str, Any], target: Target) -> list[str]:
    # The reference's kernels take fp8 as bytes, with a constant that names the encoding.
    has_fp8 = _fp8_types(kernel) or kernel.get("constants", {}).get("FORMAT", 0)
    if target.fp8 == "none" or not has_fp8 or kernel["resources"]["fp8"]:
        return []
    return [f"fp8 values, and not one of {target.name}'s fp8 instructions"]


def _consistent(kernel: Mapping[str, Any], target: Target) -> list[str]:
    had, wrong = kernel["resources"], []
    lanes = kernel["num_warps"] * target.wave_size
    if had["wave"] != target.wave_size or had["block"] != lanes:
        wrong.append(
            f"compiled for workgroups of {had['block']} lanes in waves of {had['wave']}, "
            f"launched with {lanes} in waves of {target.wave_size}"
        )
    given = len(kernel["types"])
    if had["arguments"] not in (given, given + 1, given + 2):
        wrong.append(f"takes {had['arguments']} arguments, the launch gives {given}")
    return wrong


def _waits(kernel: Mapping[str, Any], _target: Target) -> list[str]:
    # None: the emulator cannot read the kernel, which says nothing about it.
    return list(kernel.get("waits") or ())


def _hazards(kernel: Mapping[str, Any], _target: Target) -> list[str]:
    return list(kernel.get("hazards") or ())


_CHECKS = {
    "CGN-002": _lds,
    "CGN-003": _spills,
    "CGN-004": _matrix,
    "CGN-005": _encoding,
    "CGN-006": _conversions,
    "CGN-007": _consistent,
    "CGN-008": _waits,
    "CGN-009": _hazards,
}
