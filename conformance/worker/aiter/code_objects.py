"""The code objects that aiter ships, launched as aiter's host code launches them.

aiter's host code is C++ against ROCm's libraries. What it does before a launch, the choice of a
file and the arguments, is repeated in :mod:`.paged_assembly` and :mod:`.latent_assembly`; the files
are the installed ones: https://github.com/ROCm/aiter/tree/main/hsa.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Refused, WorkerError
from ..suite_devices import device_part
from . import loading

if TYPE_CHECKING:
    from ...devices.hip.code_object import CodeObject
    from ...devices.hip.object_launch import Value
    from ...devices.kernel import Extent, Tensor
    from ...devices.triton.driver import Driver

# In aiter's structures of arguments each is followed by padding up to the next multiple of this.
SPACING = 16


def hsa_folder() -> Path | None:
    """The folder of code objects: beside the package in a checkout, in ``aiter_meta`` installed."""
    root = loading.folder().parent
    folders = (root / "aiter_meta" / "hsa", root / "hsa")
    return next((folder for folder in folders if folder.is_dir()), None)


def source_folder() -> Path | None:
    """The folder of C++ sources, likewise."""
    root = loading.folder().parent
    folders = (root / "aiter_meta" / "csrc", root / "csrc")
    return next((folder for folder in folders if folder.is_dir()), None)


class CodeObjects:
    """Those of the device's target."""

    def __init__(self, driver: Driver | None) -> None:
        """``driver``: the device's; None where it runs no AMD machine code."""
        if driver is None:
            raise Refused("aiter's code objects are run on isa devices only")
        hsa = hsa_folder()
        if hsa is None:
            raise Refused(f"aiter {loading.version()} has no folder hsa with code objects")
        self.driver = driver
        self.target = driver.name.target
        self.folder = hsa / self.target
        if not self.folder.is_dir():
            present = ", ".join(sorted(path.name for path in hsa.glob("gfx*")))
            raise Refused(f"aiter ships no code objects for {self.target}: it has {present}")

    @staticmethod
    def host_code(file: str) -> str:
        """The text of a C++ source.

        Raises:
            Refused: this aiter has none.
        """
        folder = source_folder()
        if folder is None or not (folder / file).is_file():
            raise Refused(f"aiter {loading.version()} has no csrc/{file}")
        return (folder / file).read_text(encoding="utf-8", errors="replace")

    def launch(
        self,
        file: str,
        symbol: str,
        grid: Extent,
        values: Sequence[Value],
        reachable: Sequence[Tensor] = (),
        *,
        abreast: bool = False,
    ) -> str:
        """Runs the kernel ``symbol`` of a file, such as ``pa/x.co``; says what ran.

        ``reachable``: tensors whose addresses are in the memory of others. ``abreast``: its waves
        rely on one another's pace.

        Raises:
            Refused: LLVM's tools are not here.
            WorkerError: the file is missing, damaged, or not for the device's target.
        """
        reader, clang = device_part("hip.code_object"), device_part("hip.clang")
        try:
            code: CodeObject = reader.read_code_object(self.folder / file, self.target, symbol)
            device_part("hip.object_launch").launch_object(
                self.driver, code, grid, values, SPACING, reachable, abreast=abreast
            )
        except clang.ClangMissingError as error:
            raise Refused(f"unsupported here: {error}") from error
        except reader.CodeObjectError as error:
            raise WorkerError(f"aiter {loading.version()}: {error}") from error
        return f"{file} (sha256 {code.sha256})"
