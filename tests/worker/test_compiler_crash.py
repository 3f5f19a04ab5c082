"""A crash of the assembler is told as one: by signal, kernel and constants."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from conformance.worker.compiler_crash import compiler_crash


class PTXASError(Exception):
    """As Triton names it."""


def context_kernel() -> None:
    """A kernel, as far as its name goes."""


class Launcher:
    fn = staticmethod(context_kernel)

    def run(self, message: str, **kwargs: object) -> None:
        assert kwargs
        raise PTXASError(message)


def _raised(message: str) -> Exception:
    with pytest.raises(PTXASError) as caught:
        Launcher().run(
            message, grid=(1,), num_warps=8, num_stages=2, BLOCK_M=128, query_token=4096, LEFT=True
        )
    return caught.value


def test_a_signal_is_a_crash() -> None:
    error = _raised("PTXAS error: `ptxas` failed with error code -11\nRepro command: ptxas ...")
    assert compiler_crash(error) == (
        "the compiler ptxas crashed (signal 11) on context_kernel with "
        "BLOCK_M=128, LEFT=True, num_stages=2, num_warps=8"
    )


def test_a_complaint_is_none() -> None:
    assert compiler_crash(_raised("PTXAS error: `ptxas` failed with error code 255")) is None


def test_another_error_is_none() -> None:
    assert compiler_crash(ValueError("`ptxas` failed with error code -11")) is None


def test_without_a_launch_in_sight_the_rest_is_said() -> None:
    error = PTXASError("PTXAS error: `ptxas` failed with error code -6")
    assert compiler_crash(error) == "the compiler ptxas crashed (signal 6)"


def test_a_worker_says_that_it_could_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    from conformance.worker import attend  # noqa: PLC0415 - it imports torch
    from conformance.worker.errors import WorkerError  # noqa: PLC0415

    def crash(*_: object) -> None:
        Launcher().run("PTXAS error: `ptxas` failed with error code -11", num_warps=4)

    subject = SimpleNamespace(device="cpu", why_unknown=lambda _e: "", release=lambda: None)
    monkeypatch.setattr(attend, "Run", crash)
    monkeypatch.setattr("torch.load", lambda *_a, **_k: {})
    message = {"tensors": "", "problem": {}, "output": ""}
    with pytest.raises(WorkerError, match=r"ptxas crashed .signal 11. on context_kernel"):
        attend.attend(subject, message)  # type: ignore[arg-type] # as much of both as it asks for
