"""The process that a vLLM's own tests run in: what it sees, and where it starts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.errors import UsageError
from conformance.matrix.requests import Platform
from conformance.subjects.vllm.hip_sources import hip_environment
from conformance.subjects.workers import WORKER, WorkerSubject
from conformance.suites.upstream.models import write_cache

SIMULATED = WORKER / "simulated"
VARIABLE = "ROCM_CONFORMANCE_SIMULATED"
CASES = "ROCM_CONFORMANCE_CASES"
PLUGIN = "rocm_conformance_cases"
TESTS = "tests"
# What a machine of its own may have set, and a simulated one has not.
_CLEARED = ("VLLM_", "AITER_", "FLASH_ATTENTION_", "HIP_VISIBLE", "ROCR_VISIBLE")
_OFFLINE = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
# With no visible device vLLM keeps Triton on although no Triton driver is active.
_NO_DEVICE = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class CaseOptions:
    """How pytest's cases run; :mod:`conformance.worker.without_gpu.cases` explains each."""

    seconds: float = 0.0
    sample: int = 0
    seed: int = 0
    gib: int = 0
    record: str = ""

    @property
    def used(self) -> bool:
        """Whether there is anything for the plugin to do."""
        return bool(self.seconds or self.sample or self.gib or self.record)


def environment(
    build: WorkerSubject,
    platform: Platform,
    device: str = "",
    cases: CaseOptions | None = None,
    models: Path | None = None,
) -> dict[str, str]:
    """The variables of a process that sees ``platform`` and whose kernels run on ``device``.

    ``device`` is ``interpreter``, ``isa:<target>`` or "", where no kernel runs; ``models`` an empty
    folder for the configurations of the models that vLLM's tests name, unless the user has a
    Hugging Face cache in a place of their own.
    """
    kept = {k: v for k, v in build.environment.items() if not k.startswith(_CLEARED)}
    paths = [str(SIMULATED), *filter(None, [kept.get("PYTHONPATH")])]
    present = {"aiter": platform.aiter, "flash_attn": platform.flash_attn}
    if models is not None and "HF_HOME" not in kept:
        write_cache(models)
        kept["HF_HOME"] = str(models)
    asked = {"target": platform.target, "present": present, "device": device}
    return {
        **kept,
        **_OFFLINE,
        **_NO_DEVICE,
        **platform.variables,
        **(hip_environment(build) if device.startswith("isa:") else {}),
        "PYTHONPATH": os.pathsep.join(paths),
        VARIABLE: json.dumps(asked),
        CASES: json.dumps(asdict(cases or CaseOptions())),
    }


def words(
    build: WorkerSubject, command: Sequence[str], folder: Path, *, plugin: bool = False
) -> list[str]:
    """The command's words, with the vLLM's Python in place of a bare ``pytest`` or ``python``."""
    first, *rest = command
    if first in ("python", "python3"):
        return [str(build.python), *rest]
    if first != "pytest":
        return list(command)
    usual = ["-p", "no:cacheprovider", "--rootdir", str(folder), "-c", os.devnull]
    # vLLM's top conftest.py loads all of its engine's test utilities, and what those need.
    usual += [f"--confcutdir={place}" for place in _places(rest, folder)[:1]]
    usual += ["-p", PLUGIN] if plugin else []
    return [str(build.python), "-m", "pytest", *usual, *rest]


def _places(arguments: Sequence[str], folder: Path) -> list[Path]:
    """The folders of the test files that a command names."""
    named = [Path(word.partition("::")[0]) for word in arguments if not word.startswith("-")]
    there = [folder / path for path in named if (folder / path).exists()]
    return [path if path.is_dir() else path.parent for path in there]


@contextmanager
def working_folder(build: WorkerSubject, command: Sequence[str]) -> Iterator[Path]:
    """Where the command runs: here, or in a folder that holds a release's tests and no vLLM.

    Beside its tests lies the source of vLLM itself, which would hide the build that is asked.
    """
    wanted = [word for word in command if word.startswith(f"{TESTS}/")]
    if not wanted or all(Path(word.partition("::")[0]).exists() for word in wanted):
        yield Path.cwd()
        return
    with tests_of(build) as folder:
        if missing := [w for w in wanted if not (folder / w.partition("::")[0]).exists()]:
            raise UsageError(f"{missing[0]}: {build.spec} has no such file")
        yield folder


@contextmanager
def tests_of(build: WorkerSubject) -> Iterator[Path]:
    """A folder in which ``tests`` are those of the build's source tree, and no vLLM.

    Raises:
        UsageError: the build has no tests of its own.
    """
    tree = build.source_tree()
    if tree is None or not (tree / TESTS).is_dir():
        raise UsageError(f"{build.spec} has no tests of its own to take")
    with tempfile.TemporaryDirectory(prefix="rocm-conformance-") as made:
        (Path(made) / TESTS).symlink_to(tree / TESTS)
        yield Path(made)


def is_pytest(command: Sequence[str]) -> bool:
    return Path(command[0]).name == "pytest"


def shown(counts: Mapping[str, int]) -> str:
    """Counts of endings in one line, those of none left out but for passed and failed."""
    always = ("passed", "failed")
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n or what in always)
