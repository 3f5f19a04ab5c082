"""The machine that vLLM sees: this process's environment, and the real GPU and packages."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec

from ..errors import OtherMachineError

# Variables that change what vLLM does: this process's own are removed.
OF_VLLM = ("VLLM_", "AITER_", "FLASH_ATTENTION_")
# Variables that choose among real GPUs: a real machine keeps them.
OF_DEVICES = ("HIP_VISIBLE", "ROCR_VISIBLE")
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def has_amd_gpu() -> bool:
    """Whether the real amdsmi sees a GPU."""
    try:
        amdsmi = importlib.import_module("amdsmi")
        amdsmi.amdsmi_init()
        try:
            return len(amdsmi.amdsmi_get_processor_handles()) > 0
        finally:
            amdsmi.amdsmi_shut_down()
    except Exception:
        return False


def set_environment(env: dict[str, str], *, simulated: bool) -> None:
    """Sets a platform's variables in this process, and removes others that vLLM would read."""
    cleared = (*OF_VLLM, *OF_DEVICES) if simulated else OF_VLLM
    for name in list(os.environ):
        if name.startswith(cleared):
            del os.environ[name]
    os.environ.update(QUIET)
    if simulated:
        # With no visible device vLLM keeps Triton on although no Triton driver is active.
        # Up to 0.24 it reads the first of these, from 0.25 on ROCm's own:
        # https://github.com/vllm-project/vllm/blob/v0.25.0/vllm/triton_utils/importing.py#L31
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            os.environ[name] = ""
    os.environ.update(env)


def check_real(gpu: str, target: str, present: dict[str, bool]) -> None:
    """Refuses a platform that is not this real machine, which is judged as what it is.

    ``gpu`` is the machine's, as torch names it (``gfx942:sramecc+:xnack-``).

    Raises:
        OtherMachineError: the GPU or one of the packages of the platform differs.
    """
    real = gpu.partition(":")[0]
    if real != target:
        raise OtherMachineError(f"this machine's GPU is {real}, not {target}")
    for name, wanted in present.items():
        if (find_spec(name) is not None) != wanted:
            state = "is not" if wanted else "is"
            raise OtherMachineError(f"{name} {state} installed on this machine")
