"""Which CI job a results file came from, as its name, its folder or a ``job.json`` says.

``junit-<job id>.xml`` is the name Buildkite's junit-annotate plugin finds jobs by:
https://github.com/buildkite-plugins/junit-annotate-buildkite-plugin
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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


def job_in_name(relative: Path) -> Job | None:
    """The job whose id is in a file's name or in a folder of its path, the nearest first."""
    for part in reversed(relative.parts):
        if found := _ID.search(part):
            return Job(found.group().lower())
    return None
