"""What a container is given, and which runner is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.containers import container_options as containers
from conformance.containers.container_options import (
    ContainerJob,
    HostDevices,
    Limits,
    container_options,
    host_devices,
    is_abandoned,
    owner_id,
    parse_size,
)
from conformance.errors import InfrastructureError, UsageError
from conformance.matrix.stacks import parse_cell
from conformance.runners.choice import LocalChoice, RunnerOptions, choose

CELL = parse_cell("rocm72-aiter-nomha")
JOB = ContainerJob(CELL, "sha256:1", "me", Path("out"), "{}", Limits(2**30, 2, 60))


def test_a_container_can_do_nothing_but_its_run() -> None:
    options = container_options(JOB)
    assert options["network_mode"] == "none"
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert not options["user"].startswith("0:")
    assert options["mem_limit"] == options["memswap_limit"] == 2**30
    assert options["nano_cpus"] == 2_000_000_000
    assert options["pids_limit"] > 0
    assert "devices" not in options


def test_triton_s_cache_is_the_container_s_own_and_may_be_executed() -> None:
    options = container_options(JOB)
    assert options["environment"]["TRITON_CACHE_DIR"].startswith("/tmp/")
    assert "exec" in options["tmpfs"]["/tmp"].split(",")


def test_the_environment_is_the_cell_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("BUILDKITE_JOB_ID", "0192")
    monkeypatch.setenv("BUILDKITE_AGENT_ACCESS_TOKEN", "secret")
    environment = container_options(JOB)["environment"]
    assert CELL.env().items() <= environment.items()
    assert environment["HIP_VISIBLE_DEVICES"] == "3"
    assert environment["BUILDKITE_JOB_ID"] == "0192"
    assert "secret" not in environment.values()


def test_gpus_come_with_their_groups_as_numbers(tmp_path: Path) -> None:
    node = tmp_path / "renderD128"
    node.touch()
    found = host_devices((), asked=(str(node), "/dev/dri/missing"))
    assert found == HostDevices((str(node), "/dev/dri/missing"), (str(node.stat().st_gid),))
    options = container_options(
        ContainerJob(**{**JOB.__dict__, "devices": HostDevices(("/dev/kfd",), ("109",))})
    )
    assert options["devices"] == ["/dev/kfd:/dev/kfd:rw"]
    assert options["group_add"] == ["109"]


def test_render_devices_without_kfd_are_another_maker_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kfd", "renderD128", "renderD129"):
        (tmp_path / name).touch()
    patterns = (f"{tmp_path}/kfd", f"{tmp_path}/renderD*")
    assert host_devices(patterns).nodes == ()
    monkeypatch.setattr(containers, "KFD", f"{tmp_path}/kfd")
    assert [Path(node).name for node in host_devices(patterns).nodes] == [
        *("kfd", "renderD128", "renderD129")
    ]
    assert host_devices(patterns).cards == 2


def test_an_agent_s_card_is_the_only_one_of_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfd, mine, other = (tmp_path / name for name in ("kfd", "renderD128", "renderD129"))
    for node in (kfd, mine, other):
        node.touch()
    monkeypatch.setattr(containers, "KFD", str(kfd))
    found = host_devices((str(kfd), f"{tmp_path}/renderD*"), asked=(str(mine),))
    assert found.nodes == (str(kfd), str(mine))
    assert (found.gpu, found.cards) == (True, 1)


def test_the_cache_is_mounted_read_only(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    mounts = container_options(ContainerJob(**{**JOB.__dict__, "cache": tmp_path}))["mounts"]
    found = {mount["Target"]: mount["ReadOnly"] for mount in mounts}
    assert found == {"/results": False, "/cache/vllm": True}


@pytest.mark.parametrize(("text", "size"), [("8g", 2**33), ("512M", 2**29), ("100", 100)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_no_size() -> None:
    with pytest.raises(UsageError, match="'much' is not a size"):
        parse_size("much")


def test_a_run_is_abandoned_when_its_process_is_gone() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    host, pid, _ = owner_id().split("/")
    its = f"{host}/{child.pid}/{containers.started_at(child.pid)}/1"
    assert not is_abandoned(its)
    child.kill()
    child.communicate()
    assert is_abandoned(its)
    assert not is_abandoned(f"{owner_id()}/1")
    assert is_abandoned(f"{host}/{pid}/1/1"), "a number that another process has now"
    assert not is_abandoned(f"elsewhere/{child.pid}/1/1"), "another machine's runs are its own"


def test_auto_runs_here_where_there_is_no_engine_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    chosen = choose([CELL], RunnerOptions(runner="auto"))
    assert isinstance(chosen, LocalChoice)
    assert "no container engine answers" in chosen.reason
    with pytest.raises(InfrastructureError, match="--runner local"):
        choose([CELL], RunnerOptions(runner="docker"))
    assert os.environ["DOCKER_HOST"] in chosen.reason
