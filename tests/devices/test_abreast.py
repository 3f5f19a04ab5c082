"""Programs that run abreast leave the memory that they leave one after another, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before Triton, so that it interprets
from conformance.devices.triton import abreast, lanes
from conformance.devices.triton.programs import Programs

KERNELS: Any = import_module("tests.devices.abreast_kernels")
interpreter: Any = import_module("triton.runtime.interpreter")
PATCHED = (
    *(interpreter.InterpreterBuilder, interpreter.GridExecutor, interpreter.ReduceScanOpInterface),
    *(interpreter.ReduceOps, interpreter.ScanOps),
)
# They are defined when nothing tells Triton to interpret.
INTERPRETED = {
    name: interpreter.InterpretedFunction(kernel.fn)
    for name, kernel in vars(KERNELS).items()
    if hasattr(kernel, "fn")
}
N = 16
MANY = 2 * abreast.LANES + 7


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Installed for one test: the interpreter is this process's own."""
    before = [(each, dict(vars(each))) for each in PATCHED]
    patch = interpreter._patch_lang_tensor
    found = Programs()
    found.install(interpreter)
    yield found
    interpreter._patch_lang_tensor = patch
    for each, members in before:
        for name in vars(each).keys() - members.keys():
            delattr(each, name)
        for name, member in members.items():
            if vars(each)[name] is not member:
                setattr(each, name, member)


class Left(NamedTuple):
    """What a launch leaves; ``executed``: how often Python ran the kernel."""

    memory: bytes
    violations: list[str]
    raised: str
    executed: int


def launch(
    programs: Programs, name: str, grid: tuple[int, ...], order: str = "forwards", **more: int
) -> Left:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(MANY * N * N, generator=generator)
    x = x.half() if name == "blocks" else x
    out = torch.zeros((MANY + 3) * N * N)
    programs.begin(order, 7)
    kernel = INTERPRETED[name]
    function, executed = kernel.rewrite(), 0

    def counted(**arguments: Any) -> None:
        nonlocal executed
        executed += 1
        function(**arguments)

    assert programs._abreast is not None
    programs._abreast.kernel(function)._function = counted
    raised = ""
    try:
        kernel[grid](x, out, N=N, **more)
    except interpreter.InterpreterError as error:
        raised = str(error)
    return Left(out.numpy().tobytes(), programs.violations(), raised, executed)


def both(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, *asked: Any, **more: Any
) -> tuple[Left, Left]:
    """One after another, and abreast."""
    with monkeypatch.context() as one_by_one:
        one_by_one.setattr(abreast._Kernel, "_run_abreast", lambda *_: False)
        alone = launch(programs, *asked, **more)
    return alone, launch(programs, *asked, **more)


ORDERS = ("forwards", "backwards", "shuffled")


@pytest.mark.parametrize("order", ORDERS)
def test_an_operation_for_all_lanes_is_each_lanes_own(
    order: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = both(programs, monkeypatch, "blocks", (MANY // 3, 3), order, M=N)
    assert together[:3] == alone[:3]
    assert (alone.executed, together.executed) == (MANY // 3 * 3, 3)
    assert any(alone.memory)
    assert alone[1:3] == ([], "")


@pytest.mark.parametrize("order", ORDERS)
def test_lanes_part_where_programs_go_different_ways(
    order: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = both(programs, monkeypatch, "parts", (MANY,), order)
    assert together[:3] == alone[:3]
    assert any(alone.memory)
    assert together.executed < alone.executed == MANY


@pytest.mark.parametrize("order", ORDERS)
def test_what_several_programs_write_is_the_last_ones(
    order: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = both(programs, monkeypatch, "neighbours", (MANY,), order)
    assert together[:3] == alone[:3]
    assert together.executed == 3


def test_the_order_of_stores_is_that_of_programs(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = both(programs, monkeypatch, "neighbours", (MANY,))
    monkeypatch.setattr(abreast, "sorted", lambda stored: reversed([*stored]), raising=False)
    assert launch(programs, "neighbours", (MANY,)).memory != alone.memory


# How often Python runs each kernel: for programs that begin anew twice.
ALONE = {
    "running_total": MANY + 1,
    "counts": MANY + 1,
    "strays": 2 + 1 + 7,
    "refuses": 6 + 2,
}


@pytest.mark.parametrize("name", ALONE)
def test_programs_that_must_not_run_abreast_do_not(
    name: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = both(programs, monkeypatch, name, (MANY,))
    assert together[:3] == alone[:3]
    assert together.executed == ALONE[name]
    assert bool(alone.violations) == (name == "strays")
    assert ("no such block" in alone.raised) == (name == "refuses")


def test_a_scalars_store_is_of_arrays_as_without_lanes() -> None:
    scalars = np.arange(3)
    assert [part.tolist() for part in abreast._of_lane((scalars, scalars[:1], scalars), 2)] == [
        [2],
        [0],
        [2],
    ]


def test_reads_of_what_was_written_are_noticed(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = both(programs, monkeypatch, "running_total", (MANY,))
    monkeypatch.setattr(abreast, "_meet", lambda _read, _written: False)
    assert launch(programs, "running_total", (MANY,)).memory != alone.memory


def test_a_kernel_that_fails_is_not_tried_for_ever(programs: Programs) -> None:
    tried = [launch(programs, "counts", (MANY,)).executed for _ in range(abreast.ENOUGH + 1)]
    assert tried == [MANY + 1] * abreast.ENOUGH + [MANY]


def test_fewer_programs_run_abreast_where_blocks_are_large(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_ELEMENTS", 4 * N * N)
    alone, together = both(programs, monkeypatch, "blocks", (9,), M=N)
    assert together[:3] == alone[:3]
    # 64 and 16 lanes are too many for nine programs' blocks: begun twice, then 4, 4 and 1.
    assert together.executed == 2 + 3


def test_an_axis_is_not_taken_for_lanes() -> None:
    handle = interpreter.TensorHandle
    tl = import_module("triton.language")
    scalars = handle(torch.zeros(4).numpy(), tl.float32)
    block = handle(torch.zeros(1, 4).numpy(), tl.float32)
    lanes.check([block, block, handle(torch.zeros(1).numpy(), tl.float32)])
    with pytest.raises(lanes.AloneError):
        lanes.check([block, scalars])


def test_an_older_interpreter_runs_programs_one_after_another() -> None:
    class Old:
        InterpreterBuilder = object

    assert abreast.Abreast.of(Old) is None
