"""vLLM's compiled operators, as torch calls what stands in for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from conformance.worker.vllm.hip_ops import _called

SCHEMA = "told_op(Tensor keys, str name, bool interleaved=False, Tensor? scale=None) -> ()"


class Heard:
    """What an operator was called with."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    def call(self, _operator: str, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(arguments)


def test_what_torch_leaves_out_is_as_the_schema_has_it() -> None:
    """Torch's dispatcher drops arguments at the end that are the schema's defaults."""
    heard = Heard()
    library = torch.library.Library("rocm_conformance_told", "FRAGMENT")
    library.define(SCHEMA)
    library.impl("told_op", _called(cast("Any", heard), "told_op", SCHEMA, RuntimeError), "CPU")
    keys = torch.ones(1)
    for given, interleaved in (((), False), ((False,), False), ((True,), True)):
        torch.ops.rocm_conformance_told.told_op(keys, "auto", *given)
        assert list(heard.arguments) == ["keys", "name", "interleaved", "scale"]
        assert heard.arguments["keys"] is keys or heard.arguments["keys"].equal(keys)
        assert heard.arguments["name"] == "auto"
        assert (heard.arguments["interleaved"], heard.arguments["scale"]) == (interleaved, None)
