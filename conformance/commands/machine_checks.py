"""What this machine can run, and what to do about what it cannot."""

from __future__ import annotations

import os
import platform as host
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from conformance.devices.hip.clang import ADVICE, ClangMissingError, find_clang
from conformance.subjects.vllm.environment import installed_versions


@dataclass(frozen=True)
class Check:
    """One check. ``advice`` is empty if there is nothing to do."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def checks() -> list[Check]:
    """Checks everything that decides which subjects, devices and runners are available."""
    return [
        Check("python", True, f"{host.python_version()}, {os.cpu_count()} CPUs"),
        _package("torch", "pip install torch: parity and vLLM subjects need it"),
        _package("triton", "pip install triton: kernels need it (Linux only)"),
        _gpu(),
        _clang(),
        *_emulated(),
        _aiter(),
        _vllm(),
        *_managed(),
        _docker(),
    ]


def _package(name: str, advice: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", advice)


def _gpu() -> Check:
    nodes = sorted(Path("/dev/dri").glob("renderD*")) if Path("/dev/kfd").exists() else []
    if nodes:
        return Check("AMD GPU", True, f"/dev/kfd and {len(nodes)} render devices")
    return Check(
        "AMD GPU", False, "none", "nothing: platforms are simulated, and every result says so"
    )


def _clang() -> Check:
    try:
        found = find_clang()
    except ClangMissingError:
        return Check("clang for HIP kernels", False, "none that is recent enough", ADVICE)
    text = f"clang {found.version}, {found.path}"
    try:
        text += f"; device libraries in {found.libraries}"
    except ClangMissingError as error:
        return Check("clang for HIP kernels", False, text, str(error))
    return Check("clang for HIP kernels", True, text)


def _emulated() -> Iterator[Check]:
    """Of each target that is emulated, which instructions of compiled attention are known."""
    # It needs numpy, which help should not wait for.
    from conformance.devices.isa.emitted import emitted, known  # noqa: PLC0415

    for target, row in emitted().items():
        count = len(row.instructions)
        held = count - len(row.unknown)
        found = f"{held} of the {count} instructions in {row.kernels} kernels"
        advice = f"not emulated: {' '.join(row.unknown)}" if row.unknown else ""
        yield Check(
            f"isa:{target}", not row.unknown, f"{found}; {known()} are known in all", advice
        )


def _aiter() -> Check:
    try:
        return Check("aiter", True, f"amd-aiter {version('amd-aiter')}")
    except PackageNotFoundError:
        pass
    if find_spec("aiter"):
        return Check(
            "aiter",
            False,
            "an aiter that is not AMD's",
            "pip uninstall aiter: vLLM would mistake that unrelated package for AMD's",
        )
    return Check("aiter", False, "not installed", "nothing: simulated where a cell has it")


def _vllm() -> Check:
    try:
        return Check("vllm beside the suite", True, version("vllm"))
    except PackageNotFoundError:
        advice = "nothing: --subject vllm==X.Y.Z fetches a release when needed"
        return Check("vllm beside the suite", False, "not installed", advice)


def _managed() -> Iterator[Check]:
    ready = installed_versions()
    found = ", ".join(ready) if ready else "none yet"
    yield Check("vllm releases in the cache", bool(ready), found)


def _docker() -> Check:
    client = shutil.which("docker")
    if client is None:
        return Check("docker", False, "no client", "nothing: cells run locally")
    try:
        asked = subprocess.run(
            [client, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(
            "docker", False, "an engine that does not answer", "nothing: cells run locally"
        )
    if asked.returncode == 0:
        return Check("docker", True, f"engine {asked.stdout.strip()}")
    return Check("docker", False, "a client but no engine", "nothing: cells run locally")
