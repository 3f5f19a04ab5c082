"""vLLM's compiled operators on an emulated AMD target: its own host code, its own kernels.

The operators are declared to torch with the release's own schemas, so that vLLM's unmodified
Python code calls them as it calls the compiled ones. The environment says where the release's
sources are, or why there are none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..contract import HIP_CACHE, HIP_SOURCES
from ..errors import Refused
from ..launches import Launches
from ..suite_devices import device_part

# What vLLM's attention calls of them. Merging states of a prefill has a Triton kernel, too, which
# vLLM takes where the compiled one is not there.
OPERATORS = (
    "paged_attention",
    "reshape_and_cache",
    "reshape_and_cache_flash",
    "concat_and_cache_mla",
)
# Declarations last as long as the libraries that made them.
_DECLARED: list[Any] = []


def install(launches: Launches, driver: Any) -> str:
    """Declares the operators for the device of ``driver``; else why they cannot be had here."""
    if not os.environ.get(HIP_SOURCES):
        return "the sources of this vLLM's HIP kernels are not at hand"
    root, folder = Path(os.environ[HIP_SOURCES]), Path(os.environ[HIP_CACHE])
    clang, kernels = device_part("hip.clang"), device_part("hip.kernels")
    sources, operators = device_part("hip.sources"), device_part("hip.operators")
    try:
        found = clang.find_clang()
        clang.triton_folder()
        schemas = {name: sources.schema_of(root, name) for name in OPERATORS}
    except (clang.ClangMissingError, sources.NoSourceError) as error:
        return str(error)
    lanes = driver.name.facts.wave_size
    code = kernels.HipCode(root, driver.name.target, lanes, found, folder)

    def heard(kernel: Any) -> None:
        launches.add(f"HIP {kernel.function} ({kernel.file}, {kernel.compiler})")

    all_of = operators.Operators(code, driver, heard)
    libraries: Any = torch.library  # whose classes have no types
    for name, schema in schemas.items():
        namespace = sources.NAMESPACES.get(name, sources.USUAL_NAMESPACE)
        library = libraries.Library(namespace, "FRAGMENT")
        library.define(schema)
        library.impl(name, _called(all_of, name, schema, clang.ClangMissingError), "CPU")
        _DECLARED.append(library)
    return ""


def _called(
    operators: Any, name: str, schema: str, missing: type[Exception]
) -> Callable[..., None]:
    names = [argument.name for argument in torch._C.parse_schema(schema).arguments]

    def call(*arguments: Any) -> None:
        try:
            operators.call(name, dict(zip(names, arguments, strict=True)))
        except missing as error:
            raise Refused(f"unsupported here: {error}") from error

    return call
