"""The machine that vLLM is shown: this process's environment, and what is really there."""

import importlib
import os
from importlib.util import find_spec
from typing import Any

from ..errors import OtherMachineError

# Ambient variables that change what vLLM does: a platform starts without them.
OF_VLLM = ("VLLM_", "AITER_", "FLASH_ATTENTION_")
# Which real GPUs are seen: a real machine keeps its setting.
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
    """Gives this process the variables of a platform, and takes away those that are not its."""
    cleared = (*OF_VLLM, *OF_DEVICES) if simulated else OF_VLLM
    for name in list(os.environ):
        if name.startswith(cleared):
            del os.environ[name]
    os.environ.update(QUIET)
    if simulated:
        # With no visible device vLLM keeps Triton on although no Triton driver is active.
        # To 0.24 it asks the first of these, from 0.25 on ROCm's own:
        # https://github.com/vllm-project/vllm/blob/v0.25.0/vllm/triton_utils/importing.py#L31
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            os.environ[name] = ""
    os.environ.update(env)


def check_real(torch: Any, target: str, present: dict[str, bool]) -> None:
    """A real machine is judged as it is: another platform than its own is refused."""
    real = str(torch.cuda.get_device_properties(0).gcnArchName).partition(":")[0]
    if real != target:
        raise OtherMachineError(f"this machine's GPU is {real}, not {target}")
    for name, wanted in present.items():
        if (find_spec(name) is not None) != wanted:
            state = "is not" if wanted else "is"
            raise OtherMachineError(f"{name} {state} installed on this machine")
