"""Made-up results files for the tests of reports: no number in them was measured anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.results import (
    CaseResult,
    Host,
    JudgedSubject,
    Outcome,
    ResultsWriter,
    RunHeader,
)

A, B, C = "rocm72-aiter-mha", "rocm72-noaiter-mha", "rocm70-aiter-mha"
SUBJECT = JudgedSubject("vllm==0.19.0", "0.19.0", True)
HEADER = RunHeader(
    started="2027-01-02T03:04:05+00:00",
    suite_version="0.1.0",
    edition="0.19",
    subjects=(SUBJECT,),
    cells=(A,),
    suites=("selection",),
    seed=7,
    sweep=100,
    command_line="rocm-conformance run",
    python="3.11.7",
    host=Host("Linux", 2),
)
CASE = CaseResult(
    suite="selection",
    name="SEL-004 rows [gfx942]",
    outcome=Outcome.PASSED,
    cells=(A,),
    subject=SUBJECT.name,
    subject_version=SUBJECT.version,
    edition="0.19",
    requirement="SEL-004",
    source="https://example.org/source",
    target="gfx942",
    platform="gfx942+aiter",
    simulated=True,
)
FAILED = replace(
    CASE,
    name="SEL-004 rows [gfx950]",
    outcome=Outcome.FAILED,
    target="gfx950",
    message="expected ROCM_ATTN, got TRITON_ATTN; candidates: ROCM_AITER_FA (attention sinks not "
    "supported, compute capability not supported), TRITON_ATTN; request: has_sink=True (1 of 4 "
    "rows are wrong)",
    reproduce="rocm-conformance select --cell {cell} --target gfx950",
)
JOB = "0193f1a2-0000-4000-8000-00000000000"


def write_run(
    folder: Path, cases: Iterable[CaseResult], *, name: str = "results.jsonl", **header: Any
) -> Path:
    """A whole results file in ``folder``, with the cells and subjects of its cases."""
    cases = list(cases)
    asked = {
        "cells": tuple(dict.fromkeys(cell for case in cases for cell in case.cells)),
        "subjects": tuple(
            dict.fromkeys(JudgedSubject(c.subject, c.subject_version, c.simulated) for c in cases)
        ),
        **header,
    }
    path = folder / name
    with ResultsWriter(path, replace(HEADER, **asked)) as writer:
        for case in cases:
            writer.write(case)
    return path


def parity_cases(number: int, seed: int = 1) -> Iterator[CaseResult]:
    """Parity cases of five backends whose error ratios spread over some decades; a few fail."""
    draw = random.Random(seed)
    backends = {
        "ROCM_ATTN": -1.6,
        "ROCM_AITER_FA": -1.1,
        "ROCM_AITER_UNIFIED_ATTN": -1.3,
        "TRITON_ATTN": -1.8,
        "TRITON_MLA": -0.62,
    }
    for i in range(number):
        backend = draw.choice(list(backends))
        ratio = 10 ** draw.gauss(backends[backend], 0.28)
        bound = 10 ** draw.uniform(-3.5, -2.5)
        failed = ratio > 1
        yield replace(
            CASE,
            suite="parity",
            name=f"PAR-001 {backend} p{i:05d}",
            requirement="PAR-001",
            outcome=Outcome.FAILED if failed else Outcome.PASSED,
            cells=(draw.choice([A, B, C]),),
            target=draw.choice(["gfx90a", "gfx942", "gfx950", "gfx1201"]),
            message=f"error is {ratio:.2f} of its bound at [3, 7, 12]" if failed else "",
            backend=backend,
            measures={
                "error_over_bound": ratio,
                "max_error": 3 * ratio * bound,
                "bound_at_max": bound,
                "torch_error": bound * math.exp(draw.gauss(-1, 0.2)),
            },
        )


def many_cases(number: int) -> Iterator[CaseResult]:
    """Selection cases of many names and outcomes, most of them passed."""
    outcomes = [Outcome.PASSED] * 17 + [Outcome.FAILED, Outcome.UNSUPPORTED, Outcome.WAIVED]
    for i in range(number):
        outcome = outcomes[i % len(outcomes)]
        model = FAILED if outcome is Outcome.FAILED else CASE
        yield replace(
            model,
            name=f"SEL-{i % 40:03d} rows [gfx942 number {i}]",
            requirement=f"SEL-{i % 40:03d}",
            outcome=outcome,
            cells=[(A,), (A, B), (A, B, C)][i % 3],
            waiver="W-001" if outcome is Outcome.WAIVED else "",
            message=model.message or ("no such backend" if outcome is not Outcome.PASSED else ""),
        )
