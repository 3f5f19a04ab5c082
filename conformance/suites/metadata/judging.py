"""Whether what a builder made of its batches is right: findings by requirement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from conformance.suites.metadata import buffers, chunks, decodes, lengths, requests_split
from conformance.suites.metadata.asked import Question, Step
from conformance.suites.metadata.built import Built, Finding
from conformance.worker.metadata_contract import MetadataAnswer

BUILDS, CONSTRUCTED, DECODED = "MET-001", "MET-002", "MET-010"
DRAFTED, PADDED, UPDATED = "MET-011", "MET-012", "MET-018"
NEVER = "NEVER"
# With which a builder says that it has no cascade attention, and a backend that it has no
# implementation of its own, or none without a compiled operator.
NOT_CLAIMED = "NotImplementedError"
SINGLE = "UNIFORM_SINGLE_TOKEN_DECODE"
RULES: tuple[Callable[[Built], Iterator[Finding]], ...] = (
    *(lengths.lengths, lengths.tables, lengths.maps, lengths.cascade, lengths.dtypes),
    *(requests_split.findings, chunks.findings, decodes.pages, decodes.schedule),
    buffers.workspaces,
)


def asks(question: Question, answer: MetadataAnswer) -> bool:
    """Whether a builder claims what a question is about."""
    if question.role == "graph":
        many = question.layer["speculative"] > 0
        return answer["graphs"] not in (NEVER, SINGLE if many else NEVER)
    if question.role == "update":
        return answer["updates"]
    return True


def findings(question: Question, answer: MetadataAnswer) -> Iterator[Finding]:
    """What is wrong with the answer to a question."""
    if answer["constructed"] and not answer["constructed"].startswith(NOT_CLAIMED):
        yield _raised(CONSTRUCTED, "implementation", answer["constructed"])
    if answer["built"]:
        yield _raised(BUILDS, "builder", answer["built"])
        return
    yield from _threshold(question, answer)
    if not asks(question, answer):
        return
    captured: Built | None = None
    for number, (step, seen) in enumerate(zip(question.steps, answer["steps"], strict=True)):
        if question.role == "cascade" and seen["raised"].startswith(NOT_CLAIMED):
            continue
        if seen["raised"]:
            yield _raised(_of_call(step), step.call, f"{seen['raised']} ({step.placed.batch.name})")
            continue
        built = Built(
            step.call,
            step.placed,
            seen["fields"],
            seen["given"],
            answer["threshold"],
            answer["uniform"],
            [call for call in answer["planned"] if call["step"] <= number],
        )
        if step.call == "capture":
            captured = built
            yield from buffers.workspaces(built)
            continue
        yield from _attributed(step, question, built)
        if captured is not None:
            yield from buffers.persistent(captured, built)


# Fields by which a requirement is about some metadata at all, besides those that all are about.
ABOUT = {
    "MET-003": ("num_actual_tokens", "query_start_loc", "seq_lens"),
    "MET-004": ("block_table", "slot_mapping"),
    "MET-005": ("num_decodes",),
    "MET-006": ("workspace", "swa_workspace"),
    "MET-007": ("paged_kv_indptr",),
    "MET-008": ("req_id_per_token", "q_to_req", "doc_ids"),
    "MET-014": ("work_meta_data",),
    "MET-015": (*buffers.PARTIALS, "workspace", "swa_workspace"),
    "MET-016": (*lengths.INT32, "slot_mapping"),
}
ALWAYS = (BUILDS, lengths.LEFT_ALONE)


def reached(question: Question, answer: MetadataAnswer) -> set[str]:
    """The requirements that something in an answer was held against."""
    made = {*ALWAYS}
    if not answer["constructed"].startswith(NOT_CLAIMED):
        made.add(CONSTRUCTED)
    made |= (
        {DECODED} if answer["threshold"] is not None and question.layer["speculative"] else set()
    )
    if not asks(question, answer):
        return made
    made |= {"graph": {PADDED, buffers.PERSISTENT}, "update": {UPDATED}}.get(question.role, set())
    made |= {DRAFTED} if question.role == "drafting" else set()
    if question.role == "cascade":
        made |= {lengths.CASCADE} if _has_cascade(answer) else set()
    there = {
        path.rpartition(".")[2]
        for step in answer["steps"]
        for path, seen in step["fields"].items()
        if seen.get("value", 0) is not None
    }
    return made | {name for name, fields in ABOUT.items() if not there.isdisjoint(fields)}


def _has_cascade(answer: MetadataAnswer) -> bool:
    """Whether metadata has cascade attention, or a builder fails to give it."""
    return any(
        "use_cascade" in step["fields"]
        or (step["raised"] and not step["raised"].startswith(NOT_CLAIMED))
        for step in answer["steps"]
    )


def _attributed(step: Step, question: Question, built: Built) -> Iterator[Finding]:
    """A batch's findings, under the requirement of the call where it is about one."""
    own = {"draft": DRAFTED, "update": UPDATED}.get(step.call)
    if question.role == "graph" and step.placed.batch.reqs:
        own = PADDED
    for rule in RULES:
        for found in rule(built):
            general = found.requirement in (buffers.WORKSPACES, decodes.SCHEDULE)
            yield found if own is None or general else replace(found, requirement=own)
    if step.call != "update":
        yield from lengths.left_alone(built)


def _threshold(question: Question, answer: MetadataAnswer) -> Iterator[Finding]:
    """MET-010: a verification of draft tokens is a decode, or only single tokens are."""
    many, said = question.layer["speculative"] + 1, answer["threshold"]
    trees = [
        seen["shape"][0]
        for step in answer["steps"]
        for path, seen in step["fields"].items()
        if path == "tree_attn_bias" and seen.get("shape")
    ]
    if said not in (None, 1, many, *trees):
        text = f"a decode may have {said} tokens, with {many - 1} draft tokens a request"
        yield Finding(DECODED, "split", "reorder_batch_threshold", text)


def _of_call(step: Step) -> str:
    if step.call == "draft":
        return DRAFTED
    if step.call == "update":
        return UPDATED
    if step.placed.batch.prefix:
        return lengths.CASCADE
    return PADDED if step.placed.batch.reqs or step.call == "capture" else BUILDS


def _raised(requirement: str, what: str, said: str) -> Finding:
    return Finding(requirement, "raised", what, f"{what} raises {said}")
