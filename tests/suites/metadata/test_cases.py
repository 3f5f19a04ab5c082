"""The cases of the suite, and how each ends."""

from __future__ import annotations

import pytest

from conformance.config import RunConfig
from conformance.results import KINDS
from conformance.suites.case import Context, Nonconformance, Unsupported
from conformance.suites.metadata import test_metadata as suite
from conformance.suites.metadata.built import Finding
from conformance.suites.metadata.harness import Builders, Judged
from conformance.suites.metadata.options import OTHERS, USUAL
from vllm_editions import editions, load_edition

SUBJECT = "vllm==0.19.0"
BACKEND = "TRITON_ATTN"


def context(*subjects: str, tier: str = "quick", targets: tuple[str, ...] = ()) -> Context:
    known = {"releases": {SUBJECT: "0.19.0"}, "editions": {SUBJECT: "0.19", "reference": "0.33"}}
    return Context(RunConfig(subjects, ("rocm72-*",), tier=tier, targets=targets, **known))  # type: ignore[arg-type] # each has its own type


class Told(Builders):
    """Says what it was told."""

    def __init__(self, judged: Judged) -> None:
        self.told = judged

    def judged(self, spec: str, target: str, backend: str) -> Judged:
        assert (spec, target, backend) == (SUBJECT, USUAL, BACKEND)
        return self.told


def case(requirement: str) -> suite.MetadataCase:
    found = suite.cases(context(SUBJECT))
    return next(c for c in found if (c.requirement, c.backend) == (requirement, BACKEND))


def end(requirement: str, **judged: object) -> dict[str, int]:
    told = Judged(**{"reached": {"MET-003", "MET-015"}, "steps": 4, **judged})  # type: ignore[arg-type] # likewise
    return suite.test_metadata(case(requirement), context(SUBJECT), Told(told))


def test_each_backend_of_the_edition_is_asked_about_each_requirement() -> None:
    made = list(suite.cases(context(SUBJECT)))
    backends = load_edition("0.19").backends
    assert len(made) == len({one.name for one in made}) == 18 * len(backends)
    assert {one.platform.target for one in made} == {USUAL}
    assert all(one.platform.aiter and one.cells for one in made)
    whole = {one.platform.target for one in suite.cases(context(SUBJECT, tier="standard"))}
    assert whole == {USUAL, *OTHERS}
    named = suite.cases(context(SUBJECT, tier="standard", targets=("gfx1100",)))
    assert {one.platform.target for one in named} == {"gfx1100"}


def test_the_reference_has_no_builders_and_says_so() -> None:
    made = list(suite.cases(context("reference")))
    assert len(made) == 18
    for one in made:
        with pytest.raises(Unsupported, match="has no metadata builders") as caught:
            suite.test_metadata(one, context("reference"), Told(Judged()))
        assert str(caught.value) == suite.REFERENCE


def test_what_meets_a_requirement_passes_and_counts_its_calls() -> None:
    assert end("MET-003") == {"compared": 4}


def test_what_is_found_is_a_finding_that_a_waiver_can_name() -> None:
    found = [
        Finding("MET-015", "buffer", "softmax_segm_output", "is narrow (one token)"),
        Finding("MET-015", "buffer", "softmax_segm_output", "is narrow (decode)"),
        Finding("MET-003", "length", "seq_lens", "is another"),
    ]
    with pytest.raises(Nonconformance) as caught:
        end("MET-015", found=found)
    assert caught.value.findings == ("is narrow (one token)",)
    (identity,) = caught.value.identities
    assert (identity.kind, identity.kernels) == ("buffer", (f"{BACKEND}.softmax_segm_output",))
    assert identity.kind in KINDS
    assert "--suite metadata --subject vllm==0.19.0 --target gfx942" in caught.value.reproduce


def test_an_error_is_shown_with_its_traceback() -> None:
    found = [Finding("MET-003", "raised", "build", "build raises IndexError")]
    with pytest.raises(Nonconformance) as caught:
        end("MET-003", found=found, traces=["Traceback"])
    assert caught.value.detail == "Traceback"


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        ({"refused": "vLLM cannot import it", "steps": 0}, "vLLM cannot import it"),
        ({"reached": set()}, "nothing in TRITON_ATTN's metadata is about it"),
    ],
)
def test_what_cannot_be_asked_is_unsupported(judged: dict[str, object], reason: str) -> None:
    with pytest.raises(Unsupported) as caught:
        end("MET-003", **judged)
    assert str(caught.value) == reason


def test_a_layer_that_is_refused_does_not_hide_those_that_are_taken() -> None:
    assert end("MET-003", refused="blocks of 16 are not the kernels'") == {"compared": 4}


def test_every_edition_has_layers_for_its_backends() -> None:
    for series in editions():
        subject = f"vllm=={series}.0"
        config = RunConfig((subject,), ("*",), tier="quick", editions={subject: series})
        assert len(list(suite.cases(Context(config)))) == 18 * len(load_edition(series).backends)
