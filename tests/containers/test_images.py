"""Images: their plans, tags and context, and the bake file."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from conformance.containers.build_context import DOCKERFILE, context_files, sources_hash
from conformance.containers.image_bake import BAKE_FILE, bake, bake_text
from conformance.containers.image_plan import CPU, ImagePlan, chosen_plans, names_for, plans, tag_of
from conformance.errors import UsageError
from conformance.matrix.stacks import load_stacks, parse_cell

ROOT = Path(__file__).resolve().parents[2]
PINS = runpy.run_path(str(ROOT / "images/steps/pins.py"))
VERSIONS = runpy.run_path(str(ROOT / "images/steps/versions.py"))
STACKS = {stack.name: stack for stack in load_stacks()}
TEXT = (ROOT / DOCKERFILE).read_text(encoding="utf-8")


def every_plan() -> list[ImagePlan]:
    cpu = [ImagePlan(stack, CPU) for stack in STACKS.values()]
    return [*(plan for stack in STACKS.values() for plan in plans(stack)), *cpu]


@pytest.mark.parametrize("plan", every_plan(), ids=lambda plan: plan.name)
def test_the_dockerfile_knows_every_argument(plan: ImagePlan) -> None:
    declared = set(re.findall(r"^ARG (\w+)", TEXT, re.MULTILINE))
    args = plan.build_args(cpu_torch="2.13.0")
    assert set(args) <= declared
    # Arguments that have no default in the file must be given.
    needed = set(re.findall(r"^ARG (\w+)$", TEXT, re.MULTILINE)) - {"SOURCES"}
    assert needed <= set(args)


def test_aiter_is_built_where_the_cell_and_the_stack_have_it() -> None:
    args = ImagePlan(STACKS["rocm72"], "aiter").build_args()
    assert args["AITER_REF"] == "v0.1.10.post2"
    assert args["AITER_ARCHS"] == "gfx942;gfx950"
    assert "AITER_REF" not in ImagePlan(STACKS["rocm72"], "noaiter").build_args()
    assert [plan.name for plan in plans(STACKS["rocm62"])] == ["rocm62-noaiter"]


def test_rocm_comes_from_the_base_image_or_from_packages() -> None:
    assert "ROCM_SDK" not in ImagePlan(STACKS["rocm72"], "noaiter").build_args()
    assert ImagePlan(STACKS["rocm100"], "noaiter").build_args()["ROCM_SDK"] == "10.0.0"


def test_a_cpu_image_has_the_stack_s_stand_in_and_no_rocm() -> None:
    args = ImagePlan(STACKS["rocm62"], CPU).build_args("python:3.12", "2.13.0")
    assert args["TRITON_VERSION"] == "3.2.0"
    assert args["BASE_IMAGE"] == "python:3.12"
    assert not {"TORCH_INDEX", "ROCM_SDK", "AITER_REF"} & set(args)


def test_which_image_runs_a_cell() -> None:
    assert names_for(parse_cell("rocm72-aiter"), gpu=True) == ("rocm72-aiter",)
    assert names_for(parse_cell("rocm62-aiter"), gpu=True) == ("rocm62-noaiter",)
    assert names_for(parse_cell("rocm72-noaiter"), gpu=False) == ("rocm72-noaiter", "rocm72-cpu")


def test_a_tag_changes_with_all_that_an_image_is_made_from() -> None:
    plan = ImagePlan(STACKS["rocm72"], "aiter")
    args = plan.build_args()
    tag = tag_of(plan, args, "sources", ["base"])
    assert tag == tag_of(plan, dict(reversed(args.items())), "sources", ["base"])
    assert re.fullmatch(r"rocm-conformance:rocm72-aiter-[0-9a-f]{12}", tag)
    others = {
        tag_of(plan, {**args, "AITER_REF": "main"}, "sources", ["base"]),
        tag_of(plan, args, "other", ["base"]),
        tag_of(plan, args, "sources", ["another base"]),
    }
    assert len({tag, *others}) == 4


def test_unknown_stack() -> None:
    with pytest.raises(UsageError, match="rocm73"):
        chosen_plans(["rocm73"], cpu=False)


def test_the_context_is_the_suite_and_nothing_else() -> None:
    found = {str(file.relative_to(ROOT)) for file in context_files(ROOT)}
    assert {
        "pyproject.toml",
        "conformance/cli.py",
        "conformance/matrix/matrix.toml",
        DOCKERFILE,
    } <= found
    assert not any(name.startswith((".venv", ".git", "results", "tests")) for name in found)
    assert not any("__pycache__" in name for name in found)


def test_the_sources_hash_follows_content_names_and_modes(tmp_path: Path) -> None:
    for name in ("conformance/matrix", "images", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    seen = set()
    for change in (
        lambda: None,
        lambda: (tmp_path / "conformance/matrix/matrix.toml").write_text("x"),
        lambda: (tmp_path / "images/new.py").write_text(""),
        lambda: (tmp_path / "images/new.py").rename(tmp_path / "images/newer.py"),
        lambda: (tmp_path / "images/newer.py").chmod(0o755),
    ):
        change()
        sources_hash.cache_clear()
        seen.add(sources_hash(tmp_path))
    sources_hash.cache_clear()
    assert len(seen) == 5


def test_the_bake_file_is_current_and_whole() -> None:
    assert (ROOT / BAKE_FILE).read_text(encoding="utf-8") == bake_text()
    content = json.loads(bake_text())
    assert content["group"]["default"]["targets"] == list(content["target"])
    assert len(content["target"]) == 13  # two a stack, and one for that without aiter
    assert all(target["args"] for target in bake()["target"].values())


def test_nothing_that_is_installed_is_replaced() -> None:
    held = PINS["constraints"](
        ["torch==2.13.0", "sympy==1.14.0", "rich==15.0.0"], {"torch": "2.6.0", "sympy": "1.13.1"}
    )
    assert held == ["rich==15.0.0", "sympy==1.13.1", "torch==2.6.0"]
    needs = PINS["requirements"]((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {re.split(r"[<>=~ ]", need)[0] for need in needs}
    assert {"click", "docker", "pytest"} <= names
    assert not {"torch", "triton"} & names


def test_versions_name_every_pin() -> None:
    args = {"SOURCES": "s", "BASE_DIGEST": "sha256:1", "ROCM_SDK": "", "TRITON_VERSION": ""}
    args |= ImagePlan(STACKS["rocm72"], "aiter").build_args()
    text = "\n".join(VERSIONS["lines"](args))
    recipe = STACKS["rocm72"].image
    assert recipe.base in text
    assert f"torch asked for: {recipe.torch} from {recipe.index}" in text
    assert "aiter asked for: ROCm/aiter@v0.1.10.post2 for gfx942;gfx950" in text
    assert "aiter: not installed" in text
