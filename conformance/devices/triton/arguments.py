"""Triton's bound arguments as the bytes that a compiled kernel reads."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import SupportsFloat, SupportsIndex, cast

from ..kernel import Argument, Kind, Tensor, pointer

_FLOATS = {"fp16": "<e", "fp32": "<f", "f32": "<f", "fp64": "<d"}


def arguments_of(
    signature: Mapping[str, Kind], values: Mapping[str, object]
) -> tuple[Argument, ...]:
    """Every argument that is not compiled in; tuples are taken apart.

    ``values`` are the bound arguments by name, constexprs included.

    Raises:
        ValueError: a type that is not emulated, or a tensor that is not in CPU memory.
    """
    return tuple(
        argument
        for name, kind in signature.items()
        for argument in _flattened(name, kind, values[name])
    )


def _flattened(name: str, kind: Kind, value: object) -> Iterator[Argument]:
    if isinstance(kind, tuple):
        inner = cast("tuple[object, ...]", value)
        for place, (one, part) in enumerate(zip(kind, inner, strict=True)):
            yield from _flattened(f"{name}[{place}]", one, part)
    elif kind != "constexpr":
        yield argument_of(name, str(kind), value)


def argument_of(name: str, kind: str, value: object) -> Argument:
    """A pointer, an integer or a float of Triton's types."""
    if kind.startswith("*"):
        if value is None or hasattr(value, "data_ptr"):
            return pointer(name, cast("Tensor | None", value))
        return Argument(name, int(cast("SupportsIndex", value)).to_bytes(8, "little"))
    if kind in _FLOATS:
        return Argument(name, _float_bytes(_FLOATS[kind], value))
    if kind == "bf16":
        bits = int.from_bytes(_float_bytes("<f", value), "little")
        return Argument(name, ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).to_bytes(2, "little"))
    width = {"1": 1, "8": 1, "16": 2, "32": 4, "64": 8}.get(kind[1:])
    if kind[0] not in "iu" or width is None:
        what = "tensor descriptors are" if kind.startswith("tensordesc") else f"type {kind} is"
        raise ValueError(f"argument {name}: {what} not emulated")
    whole = int(cast("SupportsIndex", value)) & ((1 << 8 * width) - 1)
    return Argument(name, whole.to_bytes(width, "little"))


def _float_bytes(form: str, value: object) -> bytes:
    """A number as a float of fewer bits: infinity where it is too large."""
    number = float(cast("SupportsFloat", value))
    try:
        return struct.pack(form, number)
    except OverflowError:
        return struct.pack(form, math.copysign(math.inf, number))
