"""vLLM's compiled operators on an emulated AMD target: its own host code, its own kernels.

The operators are declared to torch with the release's own schemas, so that vLLM's unmodified
Python code calls them as it calls the compiled ones. The environment says where the release's
sources are, or why there are none.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from ..contract import HIP_CACHE, HIP_SOURCES
from ..errors import Refused, UnknownError
from ..launches import Launches
from ..suite_devices import device_part

if TYPE_CHECKING:
    from ...devices.hip.operators import HipKernel, Operators
    from ...devices.triton.driver import Driver

# Those that vLLM's attention calls. It merges the states of a prefill with a Triton kernel where
# there is no compiled one.
OPERATORS = (
    "paged_attention",
    "reshape_and_cache",
    "reshape_and_cache_flash",
    "concat_and_cache_mla",
)
# Declarations last as long as the libraries that made them.
_DECLARED: list[object] = []


def install(launches: Launches, driver: Driver) -> str:
    """Declares the operators for the device of ``driver``; says why if they cannot run here."""
    if not os.environ.get(HIP_SOURCES):
        return "the sources of this vLLM's HIP kernels are not at hand"
    root, folder = Path(os.environ[HIP_SOURCES]), Path(os.environ[HIP_CACHE])
    clang, kernels = device_part("hip.clang"), device_part("hip.kernels")
    sources, operators = device_part("hip.sources"), device_part("hip.operators")
    try:
        found = clang.find_clang()
        clang.triton_folder()
        schemas = {name: sources.schema_of(root, name) for name in OPERATORS}
        schemas |= {name: sources.schema_of(root, name) for name in sources.later_operators(root)}
    except (clang.ClangMissingError, sources.NoSourceError) as error:
        return str(error)
    lanes = driver.name.facts.wave_size
    code = kernels.HipCode(root, driver.name.target, lanes, found, folder)

    def heard(kernel: HipKernel) -> None:
        launches.add(f"HIP {kernel.function} ({kernel.file}, {kernel.compiler})")

    all_of: Operators = operators.Operators(code, driver, heard)
    libraries = importlib.import_module("torch.library")  # by name, as its classes have no types
    for name, schema in schemas.items():
        namespace = sources.NAMESPACES.get(name, sources.USUAL_NAMESPACE)
        library = libraries.Library(namespace, "FRAGMENT")
        library.define(schema)
        library.impl(name, _called(all_of, name, schema, clang), "CPU")
        _DECLARED.append(library)
    return ""


def _called(operators: Operators, name: str, schema: str, clang: ModuleType) -> Callable[..., None]:
    """What torch calls for an operator.

    A release is built by ROCm's compiler, with torch's own headers: what clang does not compile
    with the suite's says nothing about it.
    """
    declared = torch._C.parse_schema(schema).arguments
    names = [argument.name for argument in declared]
    defaults = [argument.default_value for argument in declared]

    def call(*arguments: object) -> None:
        # torch leaves out what comes last and is as the schema has it.
        values = (*arguments, *defaults[len(arguments) :])
        try:
            operators.call(name, dict(zip(names, values, strict=True)))
        except clang.ClangMissingError as error:
            raise Refused(f"unsupported here: {error}") from error
        except clang.CompileError as error:
            raise UnknownError(
                f"the harness does not know how to compile this vLLM: {error}"
            ) from error

    return call
