"""vLLM's compiled operators, called as torch calls them."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.devices.hip import clang
from conformance.worker.errors import Refused, UnknownError
from conformance.worker.vllm.hip_ops import _called

SCHEMA = "attend(Tensor! out, int count, bool interleaved=False, str kind='f16') -> ()"


class Operators:
    """What they are given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.given: dict[str, Any] = {}
        self._error = error

    def call(self, _name: str, arguments: dict[str, Any]) -> None:
        if self._error is not None:
            raise self._error
        self.given = arguments


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [((7, 3), (False, "f16")), ((7, 3, True), (True, "f16")), ((7, 3, True, "x"), (True, "x"))],
)
def test_what_torch_leaves_out_has_its_default(arguments: tuple[Any, ...], rest: Any) -> None:
    operators = Operators()
    _called(operators, "attend", SCHEMA, clang)(*arguments)  # type: ignore[arg-type] # a stand-in
    assert tuple(operators.given) == ("out", "count", "interleaved", "kind")
    assert tuple(operators.given.values()) == (7, 3, *rest)


@pytest.mark.parametrize(
    ("raised", "ended", "said"),
    [
        (clang.ClangMissingError("none is here"), Refused, "unsupported here: none is here"),
        (clang.CompileError("no header"), UnknownError, "how to compile this vLLM: no header"),
    ],
)
def test_what_cannot_be_compiled_is_not_held_against_a_release(
    raised: Exception, ended: type[Exception], said: str
) -> None:
    call = _called(Operators(raised), "attend", SCHEMA, clang)  # type: ignore[arg-type] # likewise
    with pytest.raises(ended, match=said):
        call(7, 3)
