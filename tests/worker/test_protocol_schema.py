"""The JSON Schema of the worker protocol against what really passes between suite and workers.

``tee`` stands on both sides of each worker, so what is checked is the bytes that were sent. The
schema allows no field and no op that it does not name: whoever adds one to the code changes the
schema as well, or a test here fails.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from conformance.errors import InfrastructureError
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Vit
from conformance.problems.tensors import materialise
from conformance.subjects.base import Options
from conformance.subjects.kernels import KernelWorker, reference_command
from conformance.subjects.protocol import Worker, ask_all, encode, start
from conformance.subjects.spellings import parse_subject
from conformance.subjects.workers import WORKER, WorkerSubject
from conformance.suites.metadata.asked import questions
from conformance.worker import contract, metadata_contract
from tests.kernels.kernel_faults.problems import FLEX, TRITON, decode

Json = dict[str, Any]

SCHEMA: Json = json.loads(
    resources.files("conformance.worker").joinpath("protocol.schema.json").read_text("utf-8")
)
OPS = frozenset(SCHEMA["$defs"]["message"]["properties"]["op"]["enum"])
PLATFORM = Platform.make("gfx942", aiter=True)
# The contract's types, each with the definition that has the same fields.
TYPES: dict[str, Any] = {
    "start-message": contract.StartMessage,
    "attention-message": contract.SelectMessage,
    "paged_attention-message": contract.SelectMessage,
    "vit-message": contract.SelectMessage,
    "bare-message": contract.BareMessage,
    "variable-message": contract.VariableMessage,
    "environment-message": contract.EnvironmentMessage,
    "describe-message": contract.DescribeMessage,
    "cpu-message": contract.PlainMessage,
    "stop-message": contract.PlainMessage,
    "attend-message": contract.AttendMessage,
    "call": contract.CallFields,
    "start-answer": contract.StartAnswer,
    "selections": contract.SelectAnswer,
    "variable-answer": contract.VariablesAnswer,
    "describe-answer": contract.DescribeAnswer,
    "cpu-answer": contract.SecondsAnswer,
    "bare-answer": contract.SecondsAnswer,
    "attend-answer": contract.AttendAnswer,
    "compile-answer": contract.CompileAnswer,
    "metadata-message": metadata_contract.MetadataMessage,
    "metadata-layer": metadata_contract.LayerFields,
    "metadata-batch": metadata_contract.BatchFields,
    "metadata-answer": metadata_contract.MetadataAnswer,
    "error": contract.Error,
}
PATIENCE = 600.0  # seconds for an answer: on a busy machine an import of vLLM takes minutes
TAP = 'sent=$1 answered=$2; shift 2; tee "$sent" | "$@" | tee "$answered"'


@dataclass
class Traffic:
    """What passed between the suite and some workers; ``known``: the ops that they said to have."""

    messages: list[Json] = field(default_factory=list)
    answers: list[tuple[str, Json]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def tapped(self, command: Sequence[str], folder: Path) -> list[str]:
        """The command of a worker whose traffic is kept in a folder."""
        folder.mkdir()
        return ["sh", "-c", TAP, "sh", str(folder / "sent"), str(folder / "answered"), *command]

    def add(self, folder: Path) -> None:
        """Takes in what a worker that has ended was sent and answered."""
        sent = [json.loads(line) for line in (folder / "sent").read_text().splitlines()]
        answered = [json.loads(line) for line in (folder / "answered").read_text().splitlines()]
        assert [m["id"] for m in sent] == [a["id"] for a in answered]
        for message, answer in zip(sent, answered, strict=True):
            if message["op"] in OPS:
                self.messages.append(message)
                self.answers.append((message["op"], answer))
            else:  # asked on purpose: the refusal lists what the worker knows
                listed = re.search(r"know\w*: (.*)", answer["error"]["message"])
                assert listed is not None
                self.known |= set(listed[1].split(", "))


def of_selector(traffic: Traffic, folder: Path) -> None:
    """Every question about selections, one that breaks the worker, and a compilation."""
    subject = parse_subject("vllm==0.19.0", Options("0.19", "always"))
    assert isinstance(subject, WorkerSubject)
    worker = Worker(traffic.tapped(subject.command, folder), subject.environment, PATIENCE)
    try:
        start(worker, PLATFORM, "always", ["ROCM_ATTN"])
        for question in (Request(has_sink=True), PagedAttention(), Vit()):
            list(ask_all(worker, [Ask(question), Ask(question, "ROCM_ATTN")]))
        worker.call("variable", names=["VLLM_ROCM_USE_AITER", "VLLM_ROCM_CUSTOM_PAGED_ATTN"])
        worker.call("environment", env={"VLLM_ROCM_USE_AITER": "1"})
        worker.call("describe", backends=["ROCM_ATTN", "TRITON_MLA"])
        _, fields, rows = encode([Ask(Request())])
        worker.call("bare", fields=fields, rows=rows)
        worker.call("cpu")
        worker.call("compile", call=asdict(contract.Call("merge")))
        asked = questions("ROCM_AITER_FA", "0.19", "quick", 0)
        drafting = next(each for each in asked if each.role == "drafting")
        steps = [step.fields() for step in drafting.steps]
        worker.call("metadata", backend="ROCM_AITER_FA", layer=drafting.layer, steps=steps)
        refused(worker, "attention", fields=fields, rows=[rows[0][1:]])
        refused(worker, "unheard_of")
        worker.call("stop")
        settle(folder, "stop")
    finally:
        worker.close()
    traffic.add(folder)


def of_kernels(
    traffic: Traffic,
    folder: Path,
    command: Sequence[str],
    device: str,
    env: dict[str, str] | None = None,
) -> None:
    """A problem that a worker's kernels attend, or compile."""
    worker = KernelWorker(traffic.tapped(command, folder), device, PATIENCE, env)
    try:
        problem = decode(FLEX if device == "interpreter" else TRITON)
        if device.startswith("aot:"):
            worker.compile(problem, materialise(problem))
            settle(folder, "compile")
        else:
            worker.attend(problem, materialise(problem), wants_lse=env is None)
            settle(folder, "attend")
    finally:
        worker.close()
    traffic.add(folder)


def settle(folder: Path, last: str) -> None:
    """Waits until ``tee`` has kept the answer to the last op; whoever reads it may be faster."""
    for _ in range(1000):
        sent, answered = ((folder / name).read_text() for name in ("sent", "answered"))
        if f'"{last}"' in sent and sent.count("\n") == answered.count("\n"):
            return
        time.sleep(0.01)
    raise AssertionError(f"no answer to {last} in {folder}")


def refused(worker: Worker, op: Any, **payload: Any) -> None:
    with pytest.raises(InfrastructureError):
        worker.call(op, **payload)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """Of vLLM 0.19.0 and of the reference kernels, on every kind of device but a GPU."""
    recorded, folder = Traffic(), tmp_path_factory.mktemp("traffic")
    of_selector(recorded, folder / "selector")
    subject = parse_subject("vllm==0.19.0", Options("0.19"))
    assert isinstance(subject, WorkerSubject)
    of_kernels(recorded, folder / "vllm", subject.command, "interpreter", subject.environment)
    reference = reference_command(sys.executable)
    for device in ("interpreter", "isa:gfx942", "aot:gfx942"):
        of_kernels(recorded, folder / device, reference, device)
    worker = Worker(recorded.tapped(reference, folder / "reference"), {**os.environ}, PATIENCE)
    try:
        start(worker, PLATFORM, "auto", [])
        refused(worker, "unheard_of")
        worker.call("stop")
        settle(folder / "reference", "stop")
    finally:
        worker.close()
    recorded.add(folder / "reference")
    return recorded


def errors(definition: str, value: Json) -> list[ValidationError]:
    """What a value has against a definition of the schema."""
    schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    return list(Draft202012Validator(schema).iter_errors(value))


def wrong(traffic: Traffic) -> Iterator[str]:
    """What of the traffic is not as the schema says."""
    for message in traffic.messages:
        yield from (f"{message['op']}: {error.message}" for error in errors("message", message))
    for op, answer in traffic.answers:
        yield from (f"{op} answer: {error.message}" for error in errors("answer", answer))
        if "ok" in answer:
            of_op = errors(f"{op}-answer", answer["ok"])
            yield from (f"{op} answer: {error.message}" for error in of_op)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", TYPES)
def test_the_contract_and_the_schema_have_the_same_fields(name: str) -> None:
    fields = TYPES[name].__required_keys__ | TYPES[name].__optional_keys__
    assert fields_of(SCHEMA["$defs"][name]) == fields


def test_what_a_worker_reads_of_a_problem_is_in_the_schema() -> None:
    """The schema has more: the message has every field of a problem."""
    assert fields_of(SCHEMA["$defs"]["problem"]) > contract.ProblemFields.__required_keys__


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
def test_real_traffic_is_as_the_schema_says(traffic: Traffic) -> None:
    assert list(wrong(traffic)) == []
    assert any("error" in answer for _, answer in traffic.answers)


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
def test_the_schema_has_every_op_of_the_workers_and_no_other(traffic: Traffic) -> None:
    assert traffic.known | {"start", "stop"} == OPS
    assert {message["op"] for message in traffic.messages} == OPS


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
def test_no_field_of_the_schema_is_one_that_nobody_sends(traffic: Traffic) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for message in traffic.messages:
        seen[f"{message['op']}-message"] |= set(message)
    for op, answer in traffic.answers:
        seen[f"{op}-answer"] |= set(answer.get("ok", ()))
        seen["error"] |= set(answer.get("error", ()))
    for name in (*(f"{op}-{way}" for op in OPS for way in ("message", "answer")), "error"):
        assert fields_of(SCHEMA["$defs"][name]) == seen[name], name


def fields_of(schema: Json) -> set[str]:
    """The names of a definition's fields, in all its forms."""
    if "$ref" in schema:
        return fields_of(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    forms = schema.get("oneOf", [schema])
    return {name for form in forms for name in form["properties"]}


def _add_field(message: Json) -> None:
    message["added"] = 1


def _drop_field(message: Json) -> None:
    del message[next(name for name in message if name not in ("id", "op"))]


def _rename_op(message: Json) -> None:
    message["op"] += "s"


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
@pytest.mark.parametrize("change", [_add_field, _drop_field, _rename_op])
def test_a_message_that_is_another_breaks_the_schema(
    traffic: Traffic, change: Callable[[Json], None]
) -> None:
    for message in copy.deepcopy(traffic.messages):
        if len(message) > 2 or change is not _drop_field:
            change(message)
            assert errors("message", message), message["op"]


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
def test_a_new_field_of_a_request_or_a_problem_breaks_the_schema(traffic: Traffic) -> None:
    by_op = {message["op"]: copy.deepcopy(message) for message in traffic.messages}
    by_op["attention"]["fields"].append("use_new_thing")
    by_op["attend"]["problem"]["new_option"] = 0
    assert errors("message", by_op["attention"])
    assert errors("message", by_op["attend"])


@pytest.mark.vllm
@pytest.mark.xdist_group("protocol")
def test_an_answer_that_is_another_breaks_the_schema(traffic: Traffic) -> None:
    for op, answer in copy.deepcopy(traffic.answers):
        if "ok" not in answer:
            continue
        assert errors("answer", {**answer, "error": {"kind": "worker", "message": "both"}}), op
        if answer["ok"]:
            name = next(iter(answer["ok"]))
            assert errors(f"{op}-answer", {**answer["ok"], "added": 1}), op
            assert errors(f"{op}-answer", {k: v for k, v in answer["ok"].items() if k != name}), op


def test_the_inventory_is_as_the_schema_says() -> None:
    """It is a program of its own, asked before a worker starts."""
    command = [sys.executable, str(WORKER / "inventory.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert errors("inventory", json.loads(done.stdout)) == []
    assert errors("inventory", {**json.loads(done.stdout), "another": ""})
