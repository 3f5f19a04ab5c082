"""What worker and judge share holds on both sides, and the worker needs nothing of the suite."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from conformance.problems.families import problems_for
from conformance.subjects.kernels import problem_fields
from conformance.subjects.workers import WORKER
from conformance.worker import contract, interfaces, metadata_contract, other_kernels
from conformance.worker.contract import PROTOCOL, Call
from rocm_reference import attention

# What a subject's own Python has for its kernels.
OF_THE_SUBJECT = {"torch", "triton"}
# Where a release's own tests are run.
PYTEST_IN = ("simulated", "without_gpu")


def foreign_imports(source: str) -> set[str]:
    """The top-level packages that a module imports, but the standard library's."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names)


def modules() -> Iterator[Path]:
    return WORKER.rglob("*.py")


def test_the_worker_imports_nothing_of_the_suite() -> None:
    assert len(list(modules())) > 20
    for path in modules():
        # A release's own tests run under pytest.
        allowed = OF_THE_SUBJECT | ({"pytest"} if path.parent.name in PYTEST_IN else set())
        assert foreign_imports(path.read_text(encoding="utf-8")) <= allowed, path


@pytest.mark.parametrize("module", [contract, metadata_contract, other_kernels])
def test_the_contract_needs_the_standard_library_alone(module: ModuleType) -> None:
    assert not foreign_imports(Path(module.__file__ or "").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "planted",
    ["import conformance.errors", "from conformance.matrix import targets", "import numpy"],
)
def test_a_foreign_import_is_seen_wherever_it_stands(planted: str) -> None:
    assert foreign_imports(f"import json\ndef run():\n    {planted}\n")
    assert not foreign_imports("import os.path\nfrom . import wire\nfrom ..contract import Call\n")


def test_a_problem_has_every_field_that_the_worker_reads() -> None:
    for backend in ("TRITON_ATTN", "TRITON_MLA", "TORCH_SDPA"):
        problem = problems_for(backend, "quick", 0)[0]
        sent = json.loads(json.dumps(problem_fields(problem, wants_lse=True)))
        for name, kind in get_type_hints(contract.ProblemFields).items():
            assert _is(sent[name], kind), f"{name} is {sent[name]!r}, not {kind}"


def _is(value: object, kind: Any) -> bool:
    """Whether a JSON value is of a type, as far as its outermost part tells."""
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    plain = [get_origin(k) or k for k in kinds]
    return any(isinstance(value, (int, float) if k is float else k) for k in plain)


@pytest.mark.parametrize("name", ["Geometry", "Batch", "Scores", "Scales"])
def test_the_reference_takes_the_same_fields(name: str) -> None:
    ours, theirs = getattr(interfaces, name), getattr(attention, name)
    assert [f.name for f in fields(ours)] == [f.name for f in fields(theirs)]


def test_a_call_survives_the_way_to_the_worker() -> None:
    call = Call("unified_2d", "bfloat16", window=16, sequences=((2, 9), (1, 4)))
    named = {f.name: getattr(call, f.name) for f in fields(call)}
    assert Call.from_json(json.loads(json.dumps(named))) == call


def test_a_worker_says_what_is_wrong_with_a_message() -> None:
    start = {"op": "start", "platform": {"target": "gfx942"}, "simulate": "always", "backends": []}
    messages: list[dict[str, object]] = [
        {"id": 1, "op": "attention"},
        {"id": 2, **start, "protocol": PROTOCOL + 1},
    ]
    done = subprocess.run(
        [sys.executable, str(WORKER), "reference"],
        input="".join(json.dumps(message) + "\n" for message in messages),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    before, other = (json.loads(line) for line in done.stdout.splitlines())
    assert before["id"] == 1 and before["error"]["kind"] == "usage"
    assert "no session: 'attention' before 'start'" in before["error"]["message"]
    assert other["id"] == 2 and other["error"]["kind"] == "usage"
    assert f"speaks protocol {PROTOCOL}, the suite {PROTOCOL + 1}" in other["error"]["message"]
