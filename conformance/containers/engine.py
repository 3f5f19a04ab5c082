"""The container engine, used through the docker SDK, with readable errors.

Made for Docker's engine. Podman's socket works as far as it imitates Docker's: see
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

# What a call raises if the engine misbehaves. A dead engine and an expired wait raise the same
# class, so callers look at the clock and ping.
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
        """Whether this is Podman, which has no OOM flag and other defaults: best effort."""
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
        """Whether the engine answers within ``seconds``; asks repeatedly until then."""
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
        """The id of a local image, or None if there is none. Never pulls."""
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
        """Containers with a label, in any state."""
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
    """Kills and removes a container; returns whether it is gone. Engine errors are not raised."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return True
    except APIError as error:
        # Something else, such as this run's watchdog, is removing it at the same time.
        return "already in progress" in str(error)
    except TROUBLE:
        return False
    return True


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turns engine errors into ones that say what was being done; lets "not found" pass."""
    try:
        yield
    except NotFound:
        raise
    except TROUBLE as error:
        raise InfrastructureError(
            f"the container engine could not {what}: {short(error)}. Check with "
            "`docker info` that it is running, then run again"
        ) from error


def short(error: BaseException) -> str:
    """The useful part of an SDK error."""
    text = getattr(error, "explanation", None) or str(error) or type(error).__name__
    lines: Sequence[str] = str(text).strip().splitlines() or [type(error).__name__]
    return lines[-1][:400]
