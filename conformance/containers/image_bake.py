"""``images/docker-bake.json``: the matrix for ``docker buildx bake``, from the stack table."""

from __future__ import annotations

import json
from typing import Any

from conformance.containers.image_plan import REPOSITORY, ImagePlan, plans
from conformance.matrix.stacks import load_stacks

BAKE_FILE = "images/docker-bake.json"
SECRETS = ("ca_bundle", "pip_conf")


def bake() -> dict[str, Any]:
    """The file's content: one target per image, one group per stack, a default group of all.

    Tags come from variables, because bake cannot hash a context: ``REGISTRY`` precedes the
    repository and ``TAG`` follows the image's name.
    """
    stacks = load_stacks()
    found = {stack.name: plans(stack) for stack in stacks}
    groups = {name: {"targets": [plan.name for plan in of]} for name, of in found.items()}
    every = [plan.name for of in found.values() for plan in of]
    return {
        "variable": {
            "REGISTRY": {"default": ""},
            "TAG": {"default": "latest"},
            "SOURCES": {"default": "unknown"},
        },
        "group": {"default": {"targets": every}, **groups},
        "target": {plan.name: _target(plan) for of in found.values() for plan in of},
    }


def bake_text() -> str:
    """The text of the committed file."""
    return json.dumps(bake(), indent=2) + "\n"


def _target(plan: ImagePlan) -> dict[str, Any]:
    return {
        "context": ".",
        "dockerfile": "images/Dockerfile",
        "target": "final",
        "args": {**plan.build_args(), "SOURCES": "${SOURCES}"},
        "tags": [f"${{REGISTRY}}{REPOSITORY}:{plan.name}-${{TAG}}"],
    }
