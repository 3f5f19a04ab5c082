"""Every fp8 type can be converted to, whichever Triton interprets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conformance.devices.triton.interpreter import _name_every_float8


class Dtype:
    """A type of Triton's, as far as it is named."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_fp8(self) -> bool:
        return self.name.startswith("fp8")

    def to_ir(self, _builder: Any) -> str:
        raise NotImplementedError("the compiler's")


class Builder:
    """An interpreter's, which knows the types."""

    def get_fp8e4b8_ty(self) -> str:
        return "an fp8 type"


def patched(*scope: object) -> tuple[Any, list[tuple[object, ...]]]:
    """A library whose interpreter, like that of Triton 3.6, names no type of FNUZ."""
    given: list[tuple[object, ...]] = []

    def old(self: Dtype, _builder: Any) -> str:
        if self.name == "fp32":
            return "float"
        raise ValueError(f"fail to convert {self.name} to ir type")

    def patch(lang: Any, *scope: object) -> None:
        given.append(scope)
        lang.dtype.to_ir = old

    interpreter = SimpleNamespace(_patch_lang_core=patch)
    _name_every_float8(interpreter)
    lang = SimpleNamespace(dtype=type("Dtype", (Dtype,), {}))
    for _ in range(2):  # as each launch does
        interpreter._patch_lang_core(lang, *scope)
    return lang, given


@pytest.mark.parametrize("scope", [(), ("what undoes it",)])
def test_the_types_of_fnuz_are_named_and_others_stay(scope: tuple[object, ...]) -> None:
    lang, given = patched(*scope)
    assert lang.dtype("fp8e4b8").to_ir(Builder()) == "an fp8 type"
    assert lang.dtype("fp32").to_ir(Builder()) == "float"
    assert given == [scope, scope]


def test_what_is_no_type_stays_an_error() -> None:
    lang, _ = patched()
    with pytest.raises(ValueError, match="fail to convert"):
        lang.dtype("void?").to_ir(Builder())
