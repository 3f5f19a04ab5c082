"""Loads aiter's Triton kernels without the rest of aiter, so that no ROCm is needed.

``import aiter`` builds and loads HIP extensions. The package ``aiter.ops.triton`` is plain Python
over Triton, and its parents only have to be packages, so empty modules that hold nothing but their
path replace them: https://github.com/ROCm/aiter/tree/main/aiter/ops/triton. What it asks of the GPU
is the target, which it takes from Triton's driver, and the number of compute units. On a ROCm host
nothing is replaced.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

from ..errors import Refused, WorkerError
from ..inventory import aiter_folder
from ..targets import target_facts

PACKAGE = "aiter.ops.triton"
# Attention needs one module of this subpackage, which may fail to import because of the others.
_FLASH = f"{PACKAGE}._triton_kernels.flash_attn_triton_amd"


def folder() -> Path:
    """The folder of aiter, which is not imported.

    Raises:
        WorkerError: this Python has none; says what to do.
    """
    prepared = sys.modules.get("aiter")
    if prepared is not None and prepared.__spec__ is None:
        return Path(next(iter(prepared.__path__)))
    try:
        return aiter_folder()
    except LookupError as error:
        raise WorkerError(str(error)) from None


def version() -> str:
    """The installed release, or "source tree"."""
    for name in ("amd-aiter", "aiter"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "source tree"


def prepare(target: str) -> None:
    """Makes ``aiter.ops.triton`` importable for a target; the device must be active already."""
    root = folder()
    import torch  # noqa: PLC0415 - the subject's

    if torch.version.hip is not None and torch.cuda.is_available():
        return
    for name, path in (("aiter", root), ("aiter.ops", root / "ops")):
        sys.modules[name] = _package(name, path)
    units = target_facts(target).compute_units
    os.environ["CU_NUM"] = str(units)
    # Read at import, by code that chooses among configurations.
    vars(torch.cuda).update(
        current_device=lambda: 0,
        get_device_properties=lambda *_: SimpleNamespace(multi_processor_count=units),
    )


def load(module: str) -> ModuleType:
    """A module of aiter's attention: in ``attention`` since 0.1.8, one level up before.

    Raises:
        Refused: it cannot be imported; the message has aiter's own error.
    """
    _flash_package()
    failures = []
    for name in (f"{PACKAGE}.attention.{module}", f"{PACKAGE}.{module}"):
        try:
            return importlib.import_module(name)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
            if not isinstance(error, ModuleNotFoundError):
                break
    raise Refused(f"aiter {version()} cannot be imported here: {'; '.join(failures)}")


def _flash_package() -> None:
    """Replaces the package of FlashAttention's kernels by its bare folder if its import fails.

    Triton 3.9 refuses an autotuner of the backward pass, whose key names an argument that the
    kernel does not have; attention's forward pass needs the package's ``utils`` only.
    """
    if _FLASH in sys.modules:
        return
    try:
        importlib.import_module(_FLASH)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        for name in [n for n in sys.modules if n.startswith(_FLASH)]:
            del sys.modules[name]
        root = Path(importlib.import_module(PACKAGE).__path__[0])
        path = root / "_triton_kernels" / "flash_attn_triton_amd"
        if not path.is_dir():
            return  # older releases have no such package
        sys.stderr.write(f"{_FLASH} cannot be imported, only its utils: {failure}\n")
        package = _package(_FLASH, path)
        for name in ("flash_attn_2", "flash_attn_3"):
            setattr(package, name, None)
        sys.modules[_FLASH] = package


def _package(name: str, path: Path) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = [str(path)]
    return module
