"""Metadata as plain values: every field by its path, tensors with their place in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch

from ..metadata_contract import Fields, Seen

# Elements of a tensor that are worth sending.
FEW = 20_000
DEPTH = 6
LEAVES = (int, float, str, bool)


def fields_of(thing: object) -> Fields:
    """Every field of some metadata, and of what it holds, by path."""
    return dict(_walked("", thing, DEPTH))


def seen(tensor: torch.Tensor) -> Seen:
    """A tensor; its elements only if they are integers or booleans, and few."""
    made: Seen = {
        "shape": list(tensor.shape),
        "stride": list(tensor.stride()),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "address": tensor.data_ptr(),
        "room": int(tensor.untyped_storage().nbytes() // tensor.element_size())
        - int(tensor.storage_offset()),
    }
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    if whole and tensor.numel() <= FEW:
        made["value"] = tensor.flatten().tolist()
    return made


def _walked(path: str, thing: object, depth: int) -> Iterator[tuple[str, Seen]]:
    if isinstance(thing, torch.Tensor):
        yield path, seen(thing)
    elif thing is None or isinstance(thing, LEAVES):
        yield path, {"value": thing}
    elif isinstance(thing, torch.dtype):
        yield path, {"value": str(thing).removeprefix("torch.")}
    elif isinstance(thing, slice):
        yield path, {"value": [thing.start, thing.stop]}
    elif isinstance(thing, list | tuple) and _are_numbers(thing):
        yield path, {"value": [int(each) for each in thing]}
    elif depth:
        for name, value in _parts(thing):
            yield from _walked(f"{path}.{name}" if path else name, value, depth - 1)


def _are_numbers(things: list[object] | tuple[object, ...]) -> bool:
    is_named = hasattr(things, "_fields")
    return not is_named and all(isinstance(each, int) for each in things)


def _parts(thing: object) -> Iterator[tuple[str, object]]:
    """What a thing holds, by name: of a dataclass its fields, and what was set on it later."""
    if is_dataclass(thing) and not isinstance(thing, type):
        names = dict.fromkeys(field.name for field in fields(thing))
        names.update(dict.fromkeys(getattr(thing, "__dict__", {})))
        for name in names:
            if not name.startswith("_") and hasattr(thing, name):
                yield name, getattr(thing, name)
    elif isinstance(thing, Mapping):
        yield from ((str(name), value) for name, value in thing.items())
    elif hasattr(thing, "_asdict"):
        yield from thing._asdict().items()
    elif isinstance(thing, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(thing))
