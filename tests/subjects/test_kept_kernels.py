"""What Triton compiles for an AMD target is kept, under a limit, and shared by processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from conformance.cache import CACHE_VARIABLE, TRITON_VARIABLE, prune, triton_cache
from conformance.subjects import kernels
from conformance.subjects.kernels import KernelWorker


class Worker:
    """Starts nothing; remembers the environment that it was given."""

    alive = True

    def __init__(self, _command: object, env: dict[str, str], _timeout: float) -> None:
        self.env = env

    def close(self) -> None:
        pass


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv(TRITON_VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "Worker", Worker)
    answer = {"subject": "reference", "version": "", "simulated": True}
    monkeypatch.setattr(kernels, "start", lambda *_: answer)

    def environment(device: str) -> dict[str, str]:
        worker = KernelWorker(["worker"], device, 1.0)
        worker.close()
        env: dict[str, str] = worker._worker.env  # type: ignore[attr-defined]
        return env

    return environment


def test_workers_for_amd_targets_share_what_is_compiled(started: Any, tmp_path: Path) -> None:
    wanted = str(tmp_path / "triton")
    assert [started(f"{kind}:gfx942")[TRITON_VARIABLE] for kind in ("isa", "aot")] == [wanted] * 2
    one, two = (started("interpreter")[TRITON_VARIABLE] for _ in range(2))
    assert one != two


def test_the_users_own_folder_is_taken(
    started: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TRITON_VARIABLE, str(tmp_path / "own"))
    assert started("isa:gfx942")[TRITON_VARIABLE] == str(tmp_path / "own")
    assert triton_cache() == tmp_path / "own"


def made(folder: Path, name: str, hours: float) -> Path:
    kernel = folder / name
    kernel.mkdir()
    (kernel / "kernel.amdgcn").write_bytes(bytes(1000))
    then = time.time() - 3600 * hours
    os.utime(kernel, (then, then))
    return kernel


def test_the_oldest_kernels_go_first(tmp_path: Path) -> None:
    for name, hours in (("c", 2.0), ("a", 9.0), ("b", 5.0)):
        made(tmp_path, name, hours)
    prune(tmp_path, 3000)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "c"]
    prune(tmp_path, 1500)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_a_worker_that_ends_keeps_to_the_limit(
    started: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "triton"
    folder.mkdir()
    made(folder, "old", 2.0)
    started("isa:gfx942")
    assert [entry.name for entry in folder.iterdir()] == ["old"]
    monkeypatch.setattr(kernels, "TRITON_BYTES", 0)
    started("interpreter")
    assert [entry.name for entry in folder.iterdir()] == ["old"]
    started("isa:gfx942")
    assert [*folder.iterdir()] == []


def test_what_was_just_made_stays(tmp_path: Path) -> None:
    made(tmp_path, "old", 2.0)
    made(tmp_path, "new", 0.0)
    prune(tmp_path, 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
    prune(tmp_path / "missing", 0)
