"""Finds the CI job of a results file: from a ``job.json``, its name, or its folder's name.

In Buildkite, a run writes ``job.json`` beside its results. Buildkite's junit-annotate plugin finds
jobs by the file name ``junit-<job id>.xml``:
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
    """A CI job; ``url`` is empty or http(s), ``label`` is its display name."""

    id: str
    url: str = ""
    label: str = ""

    def link(self, build_url: str = "") -> str:
        """A link to the job: its own page, its place on the build's page, or an anchor.

        Annotations are shown on the build's page, so an anchor is enough there.
        """
        return self.url or (f"{build_url if is_link(build_url) else ''}#{self.id}")


def is_link(text: str) -> bool:
    """Whether ``text`` is safe to use as a link: http or https only."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    spaced = any(character.isspace() or not character.isprintable() for character in text)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not spaced


def read_job(path: Path) -> Job:
    """Reads ``{"id": "<uuid>", "url": "https://…", "label": "…"}``; needs an id or a url.

    Raises:
        ValueError: the file is something else; the message says what is wrong.
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
    """The Buildkite job that this process runs in, or None.

    https://buildkite.com/docs/pipelines/configure/environment-variables
    """
    found = environment.get("BUILDKITE_JOB_ID", "")
    if not _ID.fullmatch(found):
        return None
    build = environment.get("BUILDKITE_BUILD_URL", "")
    url = f"{build}#{found}" if is_link(build) else ""
    return Job(found, url, environment.get("BUILDKITE_LABEL", ""))


def write_job(folder: Path, job: Job | None) -> None:
    """Writes ``job.json`` into a results folder; without a job, removes an older run's file.

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
            "and has free space"
        ) from error


def job_in_name(relative: Path) -> Job | None:
    """The job whose id is in the file's name or in its path, closest to the file."""
    for part in reversed(relative.parts):
        if found := _ID.search(part):
            return Job(found.group().lower())
    return None
