"""A real engine with the CPU images of this checkout: `.ci/containers` makes both."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.containers.engine import Engine, connect
from conformance.runners.container_cells import leftovers


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Ctrl-C reaches the runs that tests start, also where a shell started these in the background.

    A signal that is ignored stays ignored in every process started; one that is handled does not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The engine; a test leaves it without containers, or fails."""
    found = connect()
    yield found
    assert leftovers(connect()) == []


@pytest.fixture(scope="session")
def engine_folder() -> Path:
    return Path(os.environ["CONFORMANCE_ENGINE"])
