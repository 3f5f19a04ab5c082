"""Says which libraries of attention kernels a Python has, without importing one of them.

The suite runs this file by its path: it needs the standard library only, and nothing of this
package.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

HOW = (
    "install amd-aiter (not PyPI's `aiter`, which is something else) into the subject's Python, or "
    "put a checkout of https://github.com/ROCm/aiter on its PYTHONPATH"
)


def aiter_folder() -> Path:
    """The folder of aiter.

    Raises:
        LookupError: there is none, or it has no Triton kernels; the message says what to do.
    """
    spec = find_spec("aiter")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / "ops" / "triton").is_dir():
            return Path(folder)
    what = f"the aiter at {spec.origin} has no ops/triton" if spec else "there is no aiter"
    raise LookupError(f"{what} for {sys.executable}: {HOW}")


def missing() -> dict[str, str]:
    """Each library, with why it cannot be used (empty: it can)."""
    why = {"vllm": "" if find_spec("vllm") else f"there is no vllm for {sys.executable}"}
    try:
        aiter_folder()
    except LookupError as error:
        return {**why, "aiter": str(error)}
    return {**why, "aiter": ""}


if __name__ == "__main__":
    # Python put this folder first on sys.path, and it has folders named vllm and aiter.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    sys.stdout.write(json.dumps(missing()) + "\n")
