"""Copies of the package ``rocm_reference``, with edits."""

from __future__ import annotations

import shutil
from pathlib import Path

import rocm_reference
from conformance.mutation.edit import Edit

KERNELS = Path(rocm_reference.__file__).parent


def copy_kernels(folder: Path, edits: tuple[Edit, ...]) -> Path:
    """Makes a copy with these edits in ``folder``, from which it can be imported.

    Bytecode is copied too. Python recognises bytecode of an older text by the source's size and
    modification time, which is in seconds: an edit within the same second could go unnoticed, so
    the bytecode of edited files is deleted.
    """
    made = folder / KERNELS.name
    shutil.copytree(KERNELS, made)
    for edit in edits:
        edit.apply(made)
        path = made / edit.file
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            stale.unlink()
    return folder
