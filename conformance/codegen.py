"""Judges what a call's kernels compiled to, and the table of resources with its baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from conformance.results import CaseResult
from conformance.subjects.worker.kernel_calls import Call, shipped_calls
from conformance.targets import Target

BASELINE = "baseline.json"
COLUMNS = ("vgprs", "agprs", "sgprs", "lds", "spills", "scratch", "code", "occupancy")
# Triton's names of fp8 types, by the encoding of the Open Compute Project or AMD's own.
_ENCODINGS = {"fp8e4nv": "ocp", "fp8e5": "ocp", "fp8e4b8": "fnuz", "fp8e5b16": "fnuz"}


@dataclass(frozen=True)
class Compiled:
    """What became of one call: its kernels as the device reports them, or how it failed."""

    kernels: tuple[Mapping[str, Any], ...]
    failed: str = ""
    trace: str = ""

    def measures(self) -> dict[str, float]:
        """The resources, as one number per kernel and column: ``kernel vgprs``."""
        return {
            f"{kernel['name']} {column}": kernel["resources"][column]
            for kernel in self.kernels
            for column in COLUMNS
        }


def calls_for(target: Target) -> list[Call]:
    """The calls that a vLLM is judged in on a target."""
    return list(shipped_calls(target.fp8 != "none"))


def findings(requirement: str, compiled: Compiled, target: Target) -> list[str]:
    """What a call's kernels do against one requirement, a sentence each."""
    if requirement == "CGN-001":
        out_of_lds = "OutOfResources" in compiled.failed
        return [compiled.failed] if compiled.failed and not out_of_lds else []
    check = _CHECKS[requirement]
    found = [f"{k['name']}: {text}" for k in compiled.kernels for text in check(k, target)]
    if requirement == "CGN-002" and "OutOfResources" in compiled.failed and not found:
        found.append(compiled.failed)
    return found


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
    if target.fp8 == "none" or not _fp8_types(kernel) or kernel["resources"]["fp8"]:
        return []
    return [f"fp8 values, and not one of {target.name}'s fp8 instructions"]


def _consistent(kernel: Mapping[str, Any], target: Target) -> list[str]:
    had, found = kernel["resources"], []
    lanes = kernel["num_warps"] * target.wave_size
    if had["wave"] != target.wave_size or had["block"] != lanes:
        found.append(
            f"compiled for workgroups of {had['block']} lanes in waves of {had['wave']}, "
            f"launched with {lanes} in waves of {target.wave_size}"
        )
    given = len(kernel["types"])
    if had["arguments"] not in (given, given + 1, given + 2):
        found.append(f"takes {had['arguments']} arguments, the launch gives {given}")
    return found


_CHECKS = {
    "CGN-002": _lds,
    "CGN-003": _spills,
    "CGN-004": _matrix,
    "CGN-005": _encoding,
    "CGN-006": _conversions,
    "CGN-007": _consistent,
}


# -- the table -----------------------------------------------------------------------------------
Row = dict[str, int]


def table_of(cases: Iterable[CaseResult]) -> dict[str, Row]:
    """The resource table of a run: ``target | call | kernel`` -> column -> number."""
    rows: dict[str, Row] = {}
    for case in cases:
        if case.suite != "codegen" or case.requirement != "CGN-001":
            continue
        call = case.name.partition(" ")[2].rpartition(" on ")[0]
        for name, number in case.measures.items():
            kernel, _, column = name.rpartition(" ")
            rows.setdefault(f"{case.target} | {call} | {kernel}", {})[column] = int(number)
    return rows


def load_baseline() -> dict[str, Row]:
    """The stored table of vLLM 0.19.0 under the Triton that it names."""
    text = resources.files("conformance").joinpath("suites", "codegen", BASELINE).read_text("utf-8")
    rows: dict[str, Row] = {
        key: dict(zip(COLUMNS, values, strict=True))
        for key, values in json.loads(text)["rows"].items()
    }
    return rows


def differences(now: Mapping[str, Row], before: Mapping[str, Row]) -> list[str]:
    """Rows of this run that differ from the baseline's, in words; rows not run are not missed."""
    lines = []
    for key, row in now.items():
        old = before.get(key)
        if old is None:
            lines.append(f"{key}: not in the baseline")
        elif old != row:
            changed = [f"{c} {old[c]} -> {row[c]}" for c in COLUMNS if old[c] != row[c]]
            lines.append(f"{key}: {', '.join(changed)}")
    return lines


def dump_table(rows: Mapping[str, Row], versions: str) -> str:
    """The table as the baseline file holds it."""
    body = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps([row[c] for c in COLUMNS])}"
        for key, row in sorted(rows.items())
    )
    return (
        f'{{"of": {json.dumps(versions)},\n "columns": {json.dumps(COLUMNS)},\n'
        f' "rows": {{\n{body}\n}}}}\n'
    )


def markdown(rows: Mapping[str, Row]) -> str:
    """The table for a reader."""
    lines = [f"| target | call | kernel | {' | '.join(COLUMNS)} |"]
    lines.append("|" + "---|" * (3 + len(COLUMNS)))
    for key, row in rows.items():
        lines.append(f"| {key} | {' | '.join(f'{row[c]:,}' for c in COLUMNS)} |")
    return "\n".join(lines) + "\n"


def call_json(call: Call) -> dict[str, Any]:
    return asdict(call)
