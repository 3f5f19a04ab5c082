"""The images of the stacks: names, build arguments and tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import conformance
from conformance.errors import one_of
from conformance.matrix.stacks import Cell, Stack, load_stacks

REPOSITORY = "rocm-conformance"
# Labels by which a run finds the images built from its sources.
IMAGE_LABEL = "rocm-conformance.image"
SOURCES_LABEL = "rocm-conformance.sources"
AITER, NO_AITER, CPU = "aiter", "noaiter", "cpu"


@dataclass(frozen=True)
class ImagePlan:
    """One image of a stack.

    ``kind`` is ``aiter`` or ``noaiter`` (for GPUs; vLLM looks at whether aiter is installed), or
    ``cpu``: no ROCm, a CPU torch and the stack's nearest Triton, for machines without a GPU.
    """

    stack: Stack
    kind: str

    @property
    def name(self) -> str:
        return f"{self.stack.name}-{self.kind}"

    def build_args(self, base: str = "", cpu_torch: str = "") -> dict[str, str]:
        """The Dockerfile's arguments; ``base`` replaces the stack's base image.

        ``cpu_torch`` is the torch release of CPU images, which the stack table does not give.
        """
        recipe = self.stack.image
        shared = {
            "NAME": self.name,
            "STACK": self.stack.name,
            "ROCM": self.stack.rocm,
            "SUITE_VERSION": conformance.__version__,
            "BASE_IMAGE": base or recipe.base,
        }
        if self.kind == CPU:
            cpu = {"PYTHON": "3", "TORCH_VERSION": cpu_torch}
            return {**shared, **cpu, "TRITON_VERSION": self.stack.triton_pypi}
        args = {
            **shared,
            "PYTHON": recipe.python,
            "TORCH_VERSION": recipe.torch,
            "TORCH_INDEX": recipe.index,
            "GPU_ARCHS": " ".join(self.stack.targets),
        }
        if recipe.rocm_sdk:
            args["ROCM_SDK"] = recipe.rocm_sdk
        pin, build = self.stack.aiter, recipe.aiter
        if self.kind == AITER and pin is not None and build is not None:
            args |= {"AITER_REPO": pin.repo, "AITER_REF": pin.ref}
            args |= {
                "AITER_ARCHS": ";".join(build.archs),
                "AITER_PREBUILT": str(int(build.prebuilt)),
            }
        return args


def plans(stack: Stack) -> tuple[ImagePlan, ...]:
    """A stack's GPU images; only one if its vLLM release never had aiter."""
    kinds = (AITER, NO_AITER) if stack.aiter else (NO_AITER,)
    return tuple(ImagePlan(stack, kind) for kind in kinds)


def chosen_plans(names: Iterable[str], *, cpu: bool) -> tuple[ImagePlan, ...]:
    """The images of the named stacks, or of all; ``cpu`` chooses those without ROCm.

    Raises:
        UsageError: there is no such stack.
    """
    stacks = {stack.name: stack for stack in load_stacks()}
    wanted = tuple(dict.fromkeys(names)) or tuple(stacks)
    for name in wanted:
        if name not in stacks:
            raise one_of("stack", name, list(stacks))
    chosen = (stacks[name] for name in wanted)
    if cpu:
        return tuple(ImagePlan(stack, CPU) for stack in chosen)
    return tuple(plan for stack in chosen for plan in plans(stack))


def names_for(cell: Cell, *, gpu: bool) -> tuple[str, ...]:
    """The names of the images that can run a cell, best first.

    A GPU needs the image with the stack's ROCm. Without a GPU the platform is simulated, and the
    CPU image will do, because it has the stack's code generator.
    """
    kind = AITER if cell.aiter and cell.stack.aiter else NO_AITER
    own = ImagePlan(cell.stack, kind).name
    return (own,) if gpu else (own, ImagePlan(cell.stack, CPU).name)


def tag_of(plan: ImagePlan, args: Mapping[str, str], sources: str, parts: Iterable[str]) -> str:
    """An image's tag: its name and a hash of everything it is built from.

    ``parts`` are the ids of the images it builds on (base, wheels).
    """
    content = json.dumps([dict(sorted(args.items())), sources, list(parts)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{REPOSITORY}:{plan.name}-{digest}"


def pinned_torch(constraints: Path) -> str:
    """The torch release that the suite's constraints pin, for CPU images."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("torch=="))
