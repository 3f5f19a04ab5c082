"""The container engine, through the docker SDK: what is asked of it, and its errors in words.

Docker's engine is what this is made for. Podman's socket works as far as podman imitates it: see
:attr:`Engine.podman`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import docker  # type: ignore[import-untyped] # the SDK ships no types
import requests
from docker.errors import (  # type: ignore[import-untyped] # likewise
    APIError,
    DockerException,
    ImageNotFound,
    NotFound,
)
from urllib3.exceptions import HTTPError

from conformance.errors import InfrastructureError

# What a call raises when the engine does not answer as it should; a dead engine and an expired
# wait are the same class, which is why callers look at the clock and ping.
TROUBLE = (DockerException, requests.exceptions.RequestException, HTTPError, OSError)
PING_SECONDS = 5.0
CALL_SECONDS = 60
NO_ENGINE = (
    "start docker (or give its socket in DOCKER_HOST), or run without containers: --runner local"
)


class Engine:
    """A container engine that answered."""

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url

    @property
    def podman(self) -> bool:
        """Podman has no OOM flag and other defaults: it is served as well as it can be."""
        components = self._version.get("Components") or ()
        return any("podman" in str(part.get("Name", "")).lower() for part in components)

    @property
    def version(self) -> str:
        return str(self._version.get("Version", "?"))

    @property
    def _version(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.version()
        return found

    @property
    def memory(self) -> int:
        """The bytes of memory of the engine's host."""
        return int(self.client.info().get("MemTotal", 0))

    def answers(self, seconds: float = PING_SECONDS) -> bool:
        """Whether the engine answers within some seconds; asked more than once until then."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.client.ping():
                    return True
            except TROUBLE:
                pass
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)

    def image_id(self, reference: str) -> str | None:
        """The id of a local image; None where there is none. Never pulls."""
        if not reference:
            return None
        try:
            with in_words(f"look for the image {reference}"):
                return str(self.client.images.get(reference).id)
        except ImageNotFound:
            return None

    def images(self, label: str) -> list[Any]:
        """Local images with a label (``NAME`` or ``NAME=VALUE``), newest first."""
        with in_words("list images"):
            found = self.client.images.list(filters={"label": label})
        return sorted(found, key=lambda image: str(image.attrs.get("Created")), reverse=True)

    def containers(self, label: str) -> list[Any]:
        """Containers with a label, in whatever state."""
        with in_words("list containers"):
            found: list[Any] = self.client.containers.list(
                all=True, filters={"label": label}, ignore_removed=True
            )
        return found


def connect() -> Engine:
    """The engine of ``DOCKER_HOST``, or of docker's usual socket.

    Raises:
        InfrastructureError: nothing answers there.
    """
    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        client = docker.from_env(timeout=CALL_SECONDS, version="auto")
        client.ping()
    except TROUBLE as error:
        raise InfrastructureError(
            f"no container engine answers at {url} ({short(error)}): {NO_ENGINE}"
        ) from error
    return Engine(client, url)


def remove(container: Any) -> bool:
    """Kills and removes a container; whether it is gone. Never raises for an engine in trouble."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return True
    except APIError as error:
        # Somebody else, such as the watchdog of this run, is removing it at the same time.
        return "already in progress" in str(error)
    except TROUBLE:
        return False
    return True


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turns an engine's error into one that says what was being done; not-found ones pass."""
    try:
        yield
    except NotFound:
        raise
    except TROUBLE as error:
        raise InfrastructureError(
            f"the container engine could not {what}: {short(error)}. Is it still running? "
            "`docker info` shows; then run again"
        ) from error


def short(error: BaseException) -> str:
    """The part of an SDK's error that a person can use."""
    text = getattr(error, "explanation", None) or str(error) or type(error).__name__
    lines: Sequence[str] = str(text).strip().splitlines() or [type(error).__name__]
    return lines[-1][:400]
