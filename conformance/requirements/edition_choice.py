"""Which edition judges a build, where the user names none."""

from __future__ import annotations

from packaging.version import Version

from vllm_editions import AUTO_EDITION, editions, is_release, nearest_edition


def edition_of_release(release: str) -> str:
    """The edition of a build's series; of a build that names no release, the newest."""
    return nearest_edition(release) if is_release(release) else editions()[-1]


def judging_edition(asked: str, release: str) -> str:
    """The edition that the user asked for, or with ``auto`` that of a build's release."""
    return edition_of_release(release) if asked == AUTO_EDITION else asked


def is_older_than(edition: str, release: str) -> bool:
    """Whether a build is of a later series than the newest edition, and judged by that."""
    newest = editions()[-1]
    return (
        edition == newest
        and is_release(release)
        and Version(release).release[:2] > Version(newest).release
    )


def edition_note(edition: str, release: str) -> str:
    """What a reader must know of a build that its edition was not written for; empty: nothing."""
    newest = editions()[-1]
    if not is_release(release):
        chosen = ", the newest" if edition == newest else ""
        return f"the build names no release ({release!r}): judged by edition {edition}{chosen}"
    series = Version(release).release[:2]
    if is_older_than(edition, release):
        return (
            f"vLLM {release} is newer than every edition of this suite: judged by edition "
            f"{edition}, the newest. A difference may be what {release} changed"
        )
    if edition == editions()[0] and series < Version(edition).release:
        return (
            f"vLLM {release} is older than every edition of this suite: judged by edition "
            f"{edition}, the oldest"
        )
    return ""
