"""Which CI job a results file came from, as a ``job.json``, its name or its folder says.

A run that Buildkite started writes the ``job.json`` itself, beside its results.

``junit-<job id>.xml`` is the name Buildkite's junit-annotate plugin finds jobs by:
https://github.com/buildkite-plugins/junit-annotate-buildkite-plugin
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from conformance.errors import InfrastructureError

JOB_FILE = "job.json"
_SIZE_LIMIT = 64 * 1024
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """A CI job; ``url`` is empty or http(s), ``label`` is for people."""

    id: str
    url: str = ""
    label: str = ""

    def link(self, build_url: str = "") -> str:
        """Where the job is seen: its own page, its place on the build's page, or an anchor there.

        An annotation is shown on the build's page, so there even the anchor leads to the job.
        """
        return self.url or (f"{build_url if is_link(build_url) else ''}#{self.id}")


def is_link(text: str) -> bool:
    """Whether ``text`` may become a link of a report: http or https, and nothing that runs."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    spaced = any(character.isspace() or not character.isprintable() for character in text)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not spaced


def read_job(path: Path) -> Job:
    """A ``job.json``: ``{"id": "<uuid>", "url": "https://…", "label": "…"}``, id or url needed.

    Raises:
        ValueError: it is not that; the message says how.
    """
    if path.stat().st_size > _SIZE_LIMIT:
        raise ValueError(f"larger than {_SIZE_LIMIT:,} bytes")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    texts = {key: value.get(key, "") for key in ("id", "url", "label")}
    if wrong := [key for key, text in texts.items() if not isinstance(text, str)]:
        raise ValueError(f"{' '.join(wrong)}: expected text")
    if texts["id"] and not _ID.fullmatch(texts["id"]):
        raise ValueError(f"id {texts['id']!r:.80}: expected a Buildkite job id, a UUID")
    if texts["url"] and not is_link(texts["url"]):
        raise ValueError(f"url {texts['url']!r:.80}: expected http:// or https://")
    if not texts["id"] and not texts["url"]:
        raise ValueError("expected an id or a url")
    return Job(**texts)


def job_of(environment: Mapping[str, str]) -> Job | None:
    """The job that this process runs in, as Buildkite's variables say; None outside of one.

    https://buildkite.com/docs/pipelines/configure/environment-variables
    """
    found = environment.get("BUILDKITE_JOB_ID", "")
    if not _ID.fullmatch(found):
        return None
    build = environment.get("BUILDKITE_BUILD_URL", "")
    url = f"{build}#{found}" if is_link(build) else ""
    return Job(found, url, environment.get("BUILDKITE_LABEL", ""))


def write_job(folder: Path, job: Job | None) -> None:
    """Write ``job.json`` into a folder of results; without a job, remove an older run's.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    path = folder / JOB_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if job is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(asdict(job)) + "\n", encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {path}: {error.strerror or error}; give a folder that can be written "
            "and has space left"
        ) from error


def job_in_name(relative: Path) -> Job | None:
    """The job whose id is in a file's name or in a folder of its path, the nearest first."""
    for part in reversed(relative.parts):
        if found := _ID.search(part):
            return Job(found.group().lower())
    return None
