"""Each report, asked of a release that shows it and of one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from conformance.config import RunConfig
from conformance.errors import UsageError
from conformance.runners.preparation import settle_all
from conformance.subjects.reference import answer, edition_table, selector_on
from conformance.suites.case import Context
from tests.public_reports.report import is_right, reports
from vllm_editions import nearest_edition

SHOWN = [(report.shown_by, name) for name, report in reports().items() if report.shown_by]
RIGHT = [(report.right_in, name) for name, report in reports().items() if report.right_in]
RELEASES = tuple(dict.fromkeys(release for release, _ in sorted(SHOWN + RIGHT)))


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    subjects = tuple(f"vllm=={release}" for release in RELEASES)
    config = RunConfig(subjects=subjects, cells=("*",), tier="quick", device="interpreter")
    try:
        settled = settle_all(config, lambda _text: None)
    except UsageError as error:
        pytest.fail(str(error))
    with closing(Context(settled)) as made:
        yield made


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("release", "name"), sorted(SHOWN))
def test_a_release_that_shows_it_is_caught(release: str, name: str, context: Context) -> None:
    assert not is_right(name, release, context)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("release", "name"), sorted(RIGHT))
def test_a_release_that_is_right_passes(release: str, name: str, context: Context) -> None:
    assert is_right(name, release, context)


REQUESTS = [name for name, report in reports().items() if report.request]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_editions_answer_as_the_releases_do(name: str) -> None:
    """What the reference says under the edition of each release: a report is what it states."""
    report = reports()[name]
    asked = report.request
    assert asked is not None
    for release, expected in ((report.shown_by, asked.wrong), (report.right_in, asked.right)):
        if release:
            edition = edition_table(nearest_edition(release), release)
            got = answer(selector_on(edition, asked.platform), asked.ask)
            assert (got.selected or got.error) == expected, release


def test_each_report_is_one() -> None:
    for name, report in reports().items():
        assert report.url.startswith("https://github.com/"), name
        assert report.shown_by or report.right_in, name
        assert report.shown_by != report.right_in, name
        assert (report.problem is None) != (report.request is None), name
        if report.problem is not None:
            report.defect(name)
        if report.request is not None:
            assert report.request.right != report.request.wrong, name
