"""Launches of code objects, as the library that ships them makes them: arguments by their order."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from ..kernel import Argument, Extent, Launch, Tensor, pointer, tensor_span
from ..triton.driver import Driver
from .code_object import ArgumentPlace, CodeObject, CodeObjectError

# A tensor or None for a pointer; a number for a register's worth of bytes.
Value = Tensor | int | float | None
_POINTER, _WORD = 8, 4


def launch_object(
    driver: Driver,
    code: CodeObject,
    grid: Extent,
    values: Sequence[Value],
    spacing: int = 0,
    reachable: Sequence[Tensor] = (),
    *,
    abreast: bool = False,
) -> None:
    """Runs a code object's kernel on the driver's device, on tensors in CPU memory.

    ``values`` are its arguments in order, where the kernel's metadata has them. ``spacing``: the
    bytes from one to the next in a structure that the host code has for several kernels, of which
    a kernel's metadata may leave out the last ones; 0: there are no others. ``reachable`` are
    tensors whose addresses are in the memory of others. ``abreast``: as in :class:`.Launch`.

    Raises:
        CodeObjectError: it takes other arguments, or is for another target.
        Violation, UnknownInstructionError: as the emulator's.
    """
    places = code.arguments
    if len(places) > len(values) or (len(places) < len(values) and not spacing):
        raise CodeObjectError(f"{code.path} takes {len(places)} arguments: expected {len(values)}")
    for number, place in enumerate(places):
        if spacing and place.offset != spacing * number:
            raise CodeObjectError(
                f"{code.path} has argument {number} at {place.offset}: expected it at "
                f"{spacing * number}"
            )
    places += tuple(
        ArgumentPlace("", spacing * number, _size(values[number]))
        for number in range(len(places), len(values))
    )
    kernel = code.as_kernel(driver.name)
    if driver.rewrite is not None:
        kernel = replace(kernel, text=driver.rewrite(kernel.text, kernel.name))
    if driver.compile_only:
        driver.recorder.compiled_only(kernel)
        return
    arguments = tuple(
        _argument(code, place, value) for place, value in zip(places, values, strict=True)
    )
    spans = (tensor_span(f"table {n}", tensor) for n, tensor in enumerate(reachable))
    more = arguments[0].spans + tuple(span for span in spans if span is not None)
    arguments = (replace(arguments[0], spans=more), *arguments[1:])
    lanes = (code.workgroup, 1, 1)
    driver.recorder.run(Launch(kernel, grid, lanes, arguments, abreast=abreast))


def _argument(code: CodeObject, place: ArgumentPlace, value: Value) -> Argument:
    wanted = _size(value)
    if place.size != wanted:
        raise CodeObjectError(
            f"{code.path} has {place.size} bytes for argument {place.name or '?'} at "
            f"{place.offset}: expected {wanted}"
        )
    if isinstance(value, float):
        return Argument(place.name, struct.pack("<f", value), offset=place.offset)
    if isinstance(value, int):
        return Argument(place.name, struct.pack("<I", value), offset=place.offset)
    return replace(pointer(place.name, value), offset=place.offset)


def _size(value: Value) -> int:
    return _WORD if isinstance(value, int | float) else _POINTER
