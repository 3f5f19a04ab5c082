"""Builds the options of a cell's container. Nothing here talks to the engine."""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.types import Mount, Ulimit  # type: ignore[import-untyped] # the SDK ships no types

from conformance.cache import CACHE_VARIABLE
from conformance.errors import UsageError
from conformance.matrix.stacks import Cell

# Labels by which a run's containers are found again.
RUN_LABEL = "rocm-conformance.run"
CELL_LABEL = "rocm-conformance.cell"

KFD = "/dev/kfd"
RESULTS, WAIVERS, CACHE = "/results", "/waivers.toml", "/cache"
ORDER_VARIABLE = "ROCM_CONFORMANCE_RUN"
# The image's user, as in images/Dockerfile.
IMAGE_USER = 10001
PIDS = 4096
# The parts of the suite's cache that a container may read: released or pinned files only.
CACHED = ("vllm", "dependencies", "sources")
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
DEFAULT_SHARE = 0.8


@dataclass(frozen=True)
class Limits:
    """A container's limits: memory in bytes, CPUs, and time in seconds."""

    memory: int
    cpus: float
    seconds: float


@dataclass(frozen=True)
class HostDevices:
    """The host's AMD device nodes, and the numeric groups that own them.

    Group ids, because the image may not know the names.
    """

    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def gpu(self) -> bool:
        return KFD in self.nodes

    @property
    def cards(self) -> int:
        return len(self.nodes) - self.gpu


@dataclass(frozen=True)
class ContainerJob:
    """One cell in one container. ``folder`` becomes ``/results``; ``order`` is the run as JSON."""

    cell: Cell
    image: str
    run_id: str
    folder: Path
    order: str
    limits: Limits
    devices: HostDevices = HostDevices()
    waivers: Path | None = None
    cache: Path | None = None
    podman: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_size(text: str) -> int:
    """Parses a size as docker spells it, such as 512m or 8g, into bytes.

    Raises:
        UsageError: it is not a size.
    """
    found = re.fullmatch(r"(\d+)([kmg]?)b?", text.strip().lower())
    if not found:
        raise UsageError(f"{text!r} is not a size: expected a number with k, m or g, such as 8g")
    return int(found[1]) * UNITS.get(found[2], 1)


def host_devices(patterns: Sequence[str], asked: Sequence[str] = ()) -> HostDevices:
    """The AMD device nodes of this host that match; only the cards in ``asked``, if it names any.

    A CI agent that owns one of several cards names it; the engine refuses a card that is missing.
    Without ``/dev/kfd``, render devices belong to other vendors' GPUs and are left out.
    """
    root = Path("/")
    found = [str(p) for pattern in patterns for p in sorted(root.glob(pattern.lstrip("/")))]
    cards = [node for node in found if node != KFD] if KFD in found else []
    nodes = tuple(dict.fromkeys([*([KFD] if KFD in found else []), *(asked or cards)]))
    groups = {str(Path(node).stat().st_gid) for node in nodes if Path(node).exists()}
    return HostDevices(nodes, tuple(sorted(groups)))


def container_user() -> str:
    """The container's user: the caller, so that they own the results, but never root."""
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{IMAGE_USER}:{IMAGE_USER}"


def owner_id() -> str:
    """Identifies this process, so that others can tell whether it is still alive."""
    return f"{socket.gethostname()}/{os.getpid()}/{started_at(os.getpid())}"


def started_at(pid: int) -> str:
    """The start time of a process, in clock ticks since boot; empty if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def is_abandoned(run_id: str) -> bool:
    """Whether a run was started on this machine by a process that has ended."""
    host, _, rest = run_id.partition("/")
    pid, _, rest = rest.partition("/")
    started = rest.partition("/")[0]
    return host == socket.gethostname() and pid.isdigit() and started_at(int(pid)) != started


def container_options(job: ContainerJob) -> dict[str, Any]:
    """The arguments of the SDK's ``containers.create``.

    The root file system is read-only; there is no network, no capability and no way to gain one.
    Writes go to a tmpfs, which counts as the container's memory, or to the results folder.
    """
    flags = job.cell.stack.container
    memory = job.limits.memory
    options: dict[str, Any] = {
        "image": job.image,
        "command": ["rocm-conformance", "run-order"],
        "environment": _environment(job),
        "labels": {RUN_LABEL: job.run_id, CELL_LABEL: job.cell.name},
        "user": container_user(),
        "read_only": True,
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(job.limits.cpus * 1e9),
        "pids_limit": PIDS,
        "ipc_mode": flags.ipc,
        "tmpfs": _tmpfs(job),
        "mounts": _mounts(job),
        "init": not job.podman,
    }
    if flags.ipc != "host":
        options["shm_size"] = min(parse_size(flags.shm), memory)
    if job.devices.nodes:
        options["devices"] = [f"{node}:{node}:rw" for node in job.devices.nodes]
        options["group_add"] = list(job.devices.groups)
    if job.podman:
        options["ulimits"] = _ulimits()
        options["runtime"] = "runc"
    return options


def _ulimits() -> list[Any]:
    """Explicit limits for Podman, whose defaults can exceed what it is allowed to set."""
    files = min(1 << 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = {"nofile": files, "nproc": PIDS}
    return [Ulimit(name=name, soft=limit, hard=limit) for name, limit in limits.items()]


def _environment(job: ContainerJob) -> dict[str, str]:
    visible = {
        name: value
        for name, value in os.environ.items()
        if name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") or name.startswith("BUILDKITE_")
        if "TOKEN" not in name
    }
    return {
        **visible,
        **job.cell.env(),
        **job.environment,
        ORDER_VARIABLE: job.order,
        CACHE_VARIABLE: CACHE,
        "HOME": "/tmp/home",
        "USER": "conformance",
        "XDG_CACHE_HOME": "/tmp/cache",
        "TRITON_CACHE_DIR": "/tmp/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
        "VLLM_CACHE_ROOT": "/tmp/vllm",
    }


def _tmpfs(job: ContainerJob) -> dict[str, str]:
    # `exec`, because Triton loads shared objects from its cache.
    size = f"size={job.limits.memory // 2}"
    return {"/tmp": f"exec,mode=1777,{size}", f"{CACHE}/bytecode": f"exec,mode=1777,{size}"}


def _mounts(job: ContainerJob) -> list[Any]:
    mounts = [Mount(RESULTS, str(job.folder.absolute()), type="bind")]
    if job.waivers is not None:
        mounts.append(Mount(WAIVERS, str(job.waivers.absolute()), type="bind", read_only=True))
    if job.cache is not None:
        for name in CACHED:
            folder = job.cache / name
            if folder.is_dir():
                mounts.append(Mount(f"{CACHE}/{name}", str(folder), type="bind", read_only=True))
    return mounts
