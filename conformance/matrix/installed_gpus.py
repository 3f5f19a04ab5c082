"""The AMD GPUs of this machine, and whether kernels can run on them. Ignores other vendors'."""

from __future__ import annotations

from pathlib import Path

NODES = Path("/sys/class/kfd/kfd/topology/nodes")


def amd_gpus() -> tuple[str, ...]:
    """The architectures of this machine's AMD GPUs, such as ``gfx942``, each once, sorted.

    The driver reports 90402 for gfx942 and 90010 for gfx90a: major, minor and stepping, two
    decimal digits each; names spell minor and stepping as hexadecimal digits. CPU nodes report 0.
    https://github.com/torvalds/linux/blob/v6.12/drivers/gpu/drm/amd/amdkfd/kfd_topology.c
    """
    found = set()
    for path in NODES.glob("*/properties"):
        try:
            words = path.read_text(encoding="utf-8").split()
        except OSError:
            continue  # the driver hides cards that this container was not given
        facts = dict(zip(words[::2], words[1::2], strict=False))
        if version := int(facts.get("gfx_target_version", "0")):
            found.add(f"gfx{version // 10_000}{version // 100 % 100:x}{version % 100:x}")
    return tuple(sorted(found))


def device_here() -> str:
    """The default device on this machine: ``gpu`` if torch can drive an AMD GPU."""
    if not amd_gpus():
        return "interpreter"
    import torch  # noqa: PLC0415 - takes seconds, and only machines with a GPU need it

    return "gpu" if torch.version.hip else "interpreter"
