"""The command line: exit codes, and messages that say what is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from conformance.cache import CACHE_VARIABLE
from conformance.cli import COMMANDS, cli, run_cli
from conformance.commands import cells
from conformance.devices.hip.clang import VARIABLE, find_clang
from conformance.errors import InfrastructureError
from conformance.matrix.stacks import match_cells
from conformance.matrix.targets import TARGETS
from conformance.requirements import all_requirements
from conformance.results import markdown
from conformance.suites.registry import SUITES
from vllm_editions import editions, load_edition

Result = tuple[int, str, str]
RunCli = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """Runs the command line in a wide terminal: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "300")

    def run_it(*arguments: str) -> Result:
        code = run_cli(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_it


# ---- usage -----------------------------------------------------------------------------------

ON = ["--target", "gfx942"]
BACKENDS = list(load_edition("0.19").backends)
WRONG = {
    "target": (["explain", "--target", "gfx943"], ["'gfx943'", *TARGETS]),
    "select's target": (["select", "--target", "mi300z"], ["'mi300z'", "MI300X", *TARGETS]),
    "no target": (["explain"], ["--target"]),
    "backend": (["explain", *ON, "--backend", "ROCM_ATN"], ["'ROCM_ATN'", "Did you", *BACKENDS]),
    "dtype": (["explain", *ON, "--dtype", "halve"], ["'halve'", "float16", "bfloat16"]),
    "head size": (["explain", *ON, "--head-size", "-1"], ["--head-size", "x>=1"]),
    "no head size": (["explain", *ON, "--head-size", "0"], ["--head-size", "x>=1"]),
    "no number": (["explain", *ON, "--head-size", "big"], ["'big'", "integer"]),
    "edition": (["explain", *ON, "--edition", "0.17"], ["'0.17'", *editions()]),
    "run's edition": (["run", "--edition", "nineteen"], ["'nineteen'", *editions()]),
    "diff's edition": (["diff", "reference", "reference", "--edition", "9"], ["'9'", *editions()]),
    "cell": (["run", "--cell", "rocm62-aitr"], ["'rocm62-aitr'", "'aiter'", "noaiter"]),
    "subject": (
        ["explain", *ON, "--subject", "vlm"],
        ["'vlm'", "reference", "vllm==X.Y.Z", "worker:COMMAND"],
    ),
    "run's subject": (["run", "--subject", "vlm"], ["'vlm'", "reference", "worker:COMMAND"]),
    "diff's subject": (["diff", "reference", "refrence"], ["'refrence'", "worker:COMMAND"]),
    "empty worker": (["explain", *ON, "--subject", "worker:"], ["worker:", "command"]),
    "suite": (["run", "--suite", "speed"], ["'speed'", *SUITES]),
    "variable": (["explain", *ON, "--env", "VLLM_ROCM_USE_AITER"], ["NAME=VALUE"]),
    "nameless variable": (["select", *ON, "--env", "=1"], ["'=1'", "NAME=VALUE"]),
    "file": (["select", *ON, "/no/such/file"], ["/no/such/file"]),
    "waiver file": (["run", "--waivers", "/no/such/file"], ["/no/such/file"]),
    "format": (["cells", "--format", "xml"], ["'xml'", "pretty", "json", "markdown"]),
    "simulation": (["explain", *ON, "--simulate", "maybe"], ["auto", "always", "never"]),
    "sweep": (["run", "--sweep", "-1"], ["-1", "x>=0"]),
    "processes": (["run", "-n", "0"], ["0", "x>=1"]),
    "command": (["judge"], ["judge"]),
    "option": (["cells", "--verbose"], ["--verbose"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_usage_error_exits_2_and_says_what_is_allowed(
    name: str, run: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, named = WRONG[name]
    code, _, err = run(*arguments)
    assert code == 2
    for part in named:
        assert part in err
    assert "Traceback" not in err


# ---- the commands ----------------------------------------------------------------------------


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, run: RunCli) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert out.startswith("Usage:")
    assert (command(name).help or "").splitlines()[0] in out


def test_a_command_imports_no_other() -> None:
    """Those that compute take seconds to import; `cells` only reads a table."""
    asked = "import sys, conformance.cli as c; c.run_cli(['cells']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "conformance.commands.cells" in loaded
    assert not {"torch", "hypothesis", "conformance.commands.run"} & {*loaded}


def test_no_help_imports_what_takes_seconds() -> None:
    """The first imports every command; whoever reads one waits for none of these."""
    asked = (
        "import sys, conformance.cli as c; c.run_cli(['--help']); "
        "[c.run_cli([name, '--help']) for name in c.COMMANDS]; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert {f"conformance.commands.{module}" for module in COMMANDS.values()} <= loaded
    assert not {"torch", "triton", "hypothesis", "numpy"} & loaded


def test_help_lists_the_commands_and_exit_codes(run: RunCli) -> None:
    code, out, _ = run("--help")
    assert code == 0
    shown = [name for name in COMMANDS if not command(name).hidden]
    for part in [*shown, "75 infrastructure", "70 internal", "130 interrupted"]:
        assert part in out
    assert set(COMMANDS) >= {"run", "select", "explain", "diff", "cells", "doctor"}


def test_cells_in_every_format_names_every_cell(run: RunCli) -> None:
    names = [cell.name for cell in match_cells(["*"])]
    for style in ("pretty", "markdown"):
        code, out, _ = run("cells", "--format", style)
        assert code == 0
        assert all(name in out for name in names)
    code, out, _ = run("cells", "--format", "json")
    assert code == 0
    assert [entry["cell"] for entry in json.loads(out)["cells"]] == names


def test_markdown_is_a_table(run: RunCli) -> None:
    _, out, _ = run("cells", "--format", "markdown")
    lines = out.splitlines()
    assert lines[1] == "|" + " --- |" * 7
    assert {line.count(" | ") for line in lines if " --- " not in line} == {6}


def test_doctor_in_every_format(
    run: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    code, out, _ = run("doctor", "--format", "json")
    assert code == 0
    checks: list[dict[str, Any]] = json.loads(out)
    names = {check["name"] for check in checks}
    assert names >= {"python", "torch", "triton", "AMD GPU", "aiter", "docker"}
    assert all(check["found"] for check in checks)
    for style in ("pretty", "markdown"):
        code, out, _ = run("doctor", "--format", style)
        assert code == 0
        assert all(name in out for name in names)


def test_doctor_shows_the_clang_that_the_environment_names(
    run: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    program = tmp_path / "llvm" / "bin" / "clang++"
    program.parent.mkdir(parents=True)
    said = "AMD clang version 22.0.0git (https://github.com/ROCm/llvm-project roc-7.2.3 26084)"
    program.write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    program.chmod(0o755)
    library = tmp_path / "amdgcn" / "bitcode" / "ocml.bc"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setenv(VARIABLE, str(program))
    find_clang.cache_clear()
    try:
        _, out, _ = run("doctor", "--format", "json")
    finally:
        find_clang.cache_clear()
    found = next(c["found"] for c in json.loads(out) if c["name"] == "clang for HIP kernels")
    assert found == (f"clang 22.0.0 (ROCm 7.2.3), {program}; device libraries in {library.parent}")


AITER = ["--aiter", "--env", "VLLM_ROCM_USE_AITER=1"]


def test_explain_names_candidates_reasons_requirements_and_sources(run: RunCli) -> None:
    code, out, _ = run("explain", *ON, *AITER, "--sinks")
    assert code == 0
    known = all_requirements()
    _, text, _ = run("explain", *ON, *AITER, "--sinks", "--format", "json")
    told = json.loads(text)
    assert told["selected"] == "ROCM_AITER_UNIFIED_ATTN"
    assert out.startswith("ROCM_AITER_UNIFIED_ATTN  on gfx942+aiter")
    verdicts = {step["backend"]: step["verdict"] for step in told["steps"]}
    assert list(verdicts) == [
        "ROCM_ATTN",
        "ROCM_AITER_FA",
        "ROCM_AITER_UNIFIED_ATTN",
        "TRITON_ATTN",
    ]
    assert verdicts["ROCM_ATTN"] == "rejected: attention sinks not supported"
    assert "SELECTED" in verdicts["ROCM_AITER_UNIFIED_ATTN"]
    for step in told["steps"]:
        assert step["requirement"] in told["requirements"]
        for part in (step["backend"], step["verdict"], step["requirement"]):
            assert part in out
    for name, requirement in told["requirements"].items():
        assert requirement["sentence"] == known[name].sentence
        assert requirement["source"] in out


def test_explain_says_what_a_backend_that_is_not_considered_needs(run: RunCli) -> None:
    code, out, _ = run("explain", "--target", "gfx90a", "--format", "json")
    assert code == 0
    absent = {step["backend"]: step["verdict"] for step in json.loads(out)["not_considered"]}
    assert "VLLM_ROCM_USE_AITER=1" in absent["ROCM_AITER_FA"]
    assert "aiter installed, on gfx942/gfx950" in absent["ROCM_AITER_UNIFIED_ATTN"]


def test_explain_says_which_kernel_rocm_attn_decodes_with(run: RunCli) -> None:
    assert "decode: paged_attention_rocm, a HIP kernel" in run("explain", *ON)[1]
    out = run("explain", *ON, "--head-size", "80")[1]
    assert "decode: kernel_paged_attention_2d, a Triton kernel" in out
    assert "the head size is 80, and it takes 64 or 128" in out


def test_explain_an_explicit_backend_and_an_error(run: RunCli) -> None:
    _, out, _ = run("explain", *ON, "--backend", "TREE_ATTN")
    assert "selected, as asked" in out
    code, out, _ = run("explain", *ON, "--backend", "TREE_ATTN", "--sinks")
    assert code == 0
    assert out.startswith("no backend (invalid_selected_backend)")
    assert "attention sinks not supported" in out


def test_explain_in_markdown_is_a_table_with_links(run: RunCli) -> None:
    code, out, _ = run("explain", *ON, *AITER, "--sinks", "--format", "markdown")
    assert code == 0
    assert out.startswith("**ROCM_AITER_UNIFIED_ATTN** on gfx942+aiter")
    lines = out.splitlines()
    assert "|  | backend | verdict | requirement |" in lines
    assert "| x | ROCM_ATTN | rejected: attention sinks not supported | CAP-071 |" in lines
    known = all_requirements()["CAP-071"]
    assert f"- [CAP-071]({known.source}): {known.sentence}" in out


def test_explain_in_markdown_shows_an_errors_message(run: RunCli) -> None:
    arguments = ["explain", *ON, "--backend", "TREE_ATTN", "--sinks", "--format", "markdown"]
    _, out, _ = run(*arguments)
    assert out.startswith("**no backend (invalid_selected_backend)**")
    assert "TREE_ATTN" in out.split("| requirement |")[1]


def test_bench_judges_by_the_subjects_own_edition(run: RunCli) -> None:
    code, out, _ = run("bench", "--subject", "reference", "--count", "20", "--format", "json")
    assert code == 0
    assert all(row["per_second"] > 0 for row in json.loads(out))


def test_explain_depends_on_the_edition(run: RunCli) -> None:
    assert run("explain", *ON)[1].startswith("ROCM_ATTN ")
    assert run("explain", *ON, "--edition", "0.18")[1].startswith("TRITON_ATTN ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "a\\|b"), ("<b>", "&lt;b&gt;"), ("one\ntwo", "one<br>two"), ("", "")],
)
def test_nothing_in_a_cell_breaks_a_table(text: str, shown: str) -> None:
    assert markdown.table(("a",), [(text,)]).splitlines()[2] == f"| {shown} |"


# ---- ends that are not the user's fault ------------------------------------------------------


def test_an_internal_error_exits_70_with_a_trace(
    run: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_style: str) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cells, "match_cells", broken)
    code, out, err = run("cells")
    assert (code, out) == (70, "")
    for part in ("ZeroDivisionError", "a bug", "please report"):
        assert part in err


def test_infrastructure_exits_75_with_stderr(run: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_style: str) -> int:
        raise InfrastructureError("the network is away", "what the process wrote")

    monkeypatch.setattr(cells, "match_cells", away)
    code, _, err = run("cells")
    assert code == 75
    assert "infrastructure error: the network is away" in err
    assert "what the process wrote" in err


def test_an_interrupt_exits_130(run: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_style: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "match_cells", interrupted)
    code, _, err = run("cells")
    assert code == 130
    assert "finished cases are in the results folder" in err
