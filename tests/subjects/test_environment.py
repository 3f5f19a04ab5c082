"""Managed vLLM releases, from a fabricated package index on loopback."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from conformance.errors import InfrastructureError, UsageError
from conformance.subjects import workers
from conformance.subjects.vllm import package_index
from conformance.subjects.vllm.environment import installed_versions, prepare, source_tree
from tests.support.package_index import (
    LIBRARY,
    PYTHON_FILES,
    Shelf,
    handler_of,
    make_sdist,
    make_wheel,
)

DEADLINE = 30.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCM_CONFORMANCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def start_server() -> Iterator[Callable[[Shelf], None]]:
    servers = []

    def start(shelf: Shelf) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(shelf))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        shelf.address = f"http://127.0.0.1:{server.server_address[1]}"
        servers.append(server)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def shelf(
    cache: Path, start_server: Callable[[Shelf], None], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """An index with two releases that pip, in its environment variables, is pointed to."""
    del cache
    shelf = Shelf()
    start_server(shelf)
    shelf.add("0.18.1")
    shelf.add("0.19.0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{shelf.address}/simple/")
    monkeypatch.setattr(package_index, "_pip_configuration", dict)
    monkeypatch.setattr(package_index, "BACKOFF", 0.0)
    return shelf


def install_nothing(pins: tuple[str, ...], folder: Path) -> None:
    (folder / "installed.txt").write_text("\n".join(pins))


ready = partial(prepare, install=install_nothing)


def tree(folder: Path) -> dict[str, bytes]:
    found = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if name != ".complete.json"}


def half_made(cache: Path) -> list[Path]:
    return [entry for entry in cache.rglob(".*") if ".making-" in entry.name]


def test_only_python_and_metadata_are_kept(shelf: Shelf) -> None:
    build = ready("0.19.0")
    kept = tree(build.path[0])
    assert {name: data for name, data in kept.items() if name.startswith("vllm/")} == PYTHON_FILES
    others = {name for name in kept if not name.startswith("vllm/")}
    assert others == {"vllm-0.19.0.dist-info/METADATA", "vllm-0.19.0.dist-info/RECORD"}
    assert build.root == build.path[0] / "vllm"
    assert (build.version, build.python) == ("0.19.0", Path(sys.executable))
    assert shelf.bytes_sent < len(LIBRARY) / 2, "the library was downloaded too"


@pytest.mark.parametrize("html", [False, True])
def test_without_ranges_the_result_is_the_same(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, html: bool
) -> None:
    shelf.html = html
    ranged = tree(ready("0.19.0").path[0])
    monkeypatch.setenv("ROCM_CONFORMANCE_CACHE", str(tmp_path / "other"))
    shelf.ranges = False
    said: list[str] = []
    assert tree(ready("0.19.0", progress=said.append).path[0]) == ranged
    assert any("whole files only" in line for line in said)
    assert len([line for line in said if line.endswith("%")]) <= 5


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("members", "recorded", "expected"),
    [
        ({}, {**PYTHON_FILES, "vllm/envs.py": b"else"}, r"vllm/envs\.py .* RECORD says sha256="),
        ({"vllm/new.py": b""}, PYTHON_FILES, r"vllm/new\.py .* RECORD says nothing about it"),
        ({"../../outside.py": b"x = 1"}, None, r"'\.\./\.\./outside\.py', a path outside"),
        ({"/outside.py": b"x = 1"}, None, r"'/outside\.py', a path outside"),
    ],
)
def test_an_unsound_member_stops_it(
    shelf: Shelf,
    cache: Path,
    ranges: bool,
    members: dict[str, bytes],
    recorded: dict[str, bytes] | None,
    expected: str,
) -> None:
    shelf.ranges = ranges
    if recorded is not None:
        metadata = b"Metadata-Version: 2.1\nName: vllm\nVersion: 0.19.0\n"
        recorded = {**recorded, "vllm-0.19.0.dist-info/METADATA": metadata}
    shelf.add("0.19.0", make_wheel("0.19.0", members=members, recorded=recorded))
    with pytest.raises(InfrastructureError, match=expected):
        ready("0.19.0")
    assert installed_versions() == []
    assert half_made(cache) == []
    assert not list(cache.parent.rglob("outside.py"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_tried_again(shelf: Shelf, ranges: bool) -> None:
    shelf.ranges = ranges
    shelf.broken_answers = 2
    assert (ready("0.19.0").root / "envs.py").read_bytes() == PYTHON_FILES["vllm/envs.py"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_always_breaks_off_is_an_error(shelf: Shelf, ranges: bool) -> None:
    shelf.ranges = ranges
    shelf.broken_answers = 1000
    with pytest.raises(InfrastructureError, match=r"\.whl did not arrive whole"):
        ready("0.19.0")
    assert installed_versions() == []


def test_a_busy_index_is_asked_again(shelf: Shelf) -> None:
    shelf.refusals = [503, 429]
    assert ready("0.19.0").version == "0.19.0"


def test_a_wheel_that_is_no_archive(shelf: Shelf) -> None:
    shelf.add("0.19.0", b"<html>sign in</html>" * 100)
    with pytest.raises(InfrastructureError, match="not a sound wheel"):
        ready("0.19.0")


def test_an_unknown_version_names_the_nearest_and_the_newest(shelf: Shelf) -> None:
    for version in ("0.17.1", "0.30.0", "0.32.0", "0.33.0"):
        shelf.add(version, b"")
    nearest, newest = "0.17.1, 0.18.1, 0.19.0, 0.30.0", "0.30.0, 0.32.0, 0.33.0"
    expected = re.escape(f"Nearest: {nearest}. Newest: {newest}.")
    with pytest.raises(UsageError, match=expected):
        ready("0.18.9")


def test_a_release_that_no_row_covers(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match=r">=0\.18\.0.*--subject PATH/TO/python"):
        ready("0.1.0")
    assert shelf.asked == []


def test_no_version_at_all(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"'latest' is no version.*0\.19\.0"):
        ready("latest")
    assert not cache.exists()


def test_the_second_time_nothing_is_fetched(shelf: Shelf) -> None:
    first = ready("0.19.0")
    shelf.asked.clear()
    assert ready("0.19") == first
    assert shelf.asked == []


def test_releases_with_the_same_pins_share_a_folder(shelf: Shelf) -> None:
    installs: list[Path] = []

    def install(pins: tuple[str, ...], folder: Path) -> None:
        installs.append(folder)
        install_nothing(pins, folder)

    old, new = (prepare(v, install=install) for v in ("0.18.1", "0.19.0"))
    assert old.path[0] != new.path[0]
    assert old.path[1] == new.path[1]
    assert len(installs) == 1
    assert installed_versions() == ["0.18.1", "0.19.0"]
    assert shelf.fetches("x86_64.whl") == 2


@pytest.mark.parametrize("lost", [".complete.json", "vllm/envs.py"])
def test_a_damaged_copy_is_made_again(shelf: Shelf, lost: str) -> None:
    folder = ready("0.19.0").path[0]
    before = tree(folder)
    (folder / lost).unlink()
    said: list[str] = []
    assert installed_versions() == []
    assert tree(ready("0.19.0", progress=said.append).path[0]) == before
    assert any("damaged" in line for line in said)
    assert shelf.fetches("x86_64.whl") == 2


def test_a_file_cut_short_is_damage(shelf: Shelf) -> None:
    file = ready("0.19.0").root / "envs.py"
    file.write_bytes(b"")
    assert installed_versions() == []
    assert (ready("0.19.0").root / "envs.py").stat().st_size > 0
    assert shelf.fetches("x86_64.whl") == 2


MAKER = """
import sys, time
from functools import partial
from pathlib import Path
from conformance.subjects.vllm.environment import prepare

log, gate = Path(sys.argv[1]), Path(sys.argv[2])

def install(pins, folder):
    with log.open("a") as lines:
        lines.write("installing\\n")
    while not gate.exists():
        time.sleep(0.02)
    (folder / "dependency.py").write_text("")

prepare("0.19.0", progress=partial(print, flush=True), install=install)
"""


def start_maker(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that makes 0.19.0 and stands still while installing, until the gate opens."""
    command = [sys.executable, "-c", MAKER, str(tmp_path / "log"), str(tmp_path / "gate")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_of_two_makers_one_makes_and_one_waits(shelf: Shelf, cache: Path, tmp_path: Path) -> None:
    with start_maker(tmp_path) as first:
        wait_for((tmp_path / "log").exists)
        with start_maker(tmp_path) as second:
            assert second.stdout is not None
            assert "waiting for another process" in second.stdout.readline()
            (tmp_path / "gate").touch()
            assert (first.wait(DEADLINE), second.wait(DEADLINE)) == (0, 0)
    assert (tmp_path / "log").read_text() == "installing\n"
    assert shelf.fetches("x86_64.whl") == 1
    assert half_made(cache) == []


def test_what_a_killed_maker_left_is_removed(shelf: Shelf, cache: Path, tmp_path: Path) -> None:
    with start_maker(tmp_path) as maker:
        wait_for((tmp_path / "log").exists)
        maker.send_signal(signal.SIGKILL)
    assert len(half_made(cache)) == 1
    assert (ready("0.19.0").path[1] / "installed.txt").is_file()
    assert half_made(cache) == []
    assert shelf.fetches("x86_64.whl") == 1


def test_a_failed_maker_leaves_nothing(shelf: Shelf, cache: Path) -> None:
    def fail(_pins: tuple[str, ...], folder: Path) -> None:
        (folder / "part.py").touch()
        raise InfrastructureError("no")

    with pytest.raises(InfrastructureError, match="no"):
        prepare("0.19.0", install=fail)
    assert half_made(cache) == []
    assert list((cache / "dependencies").glob("[!.]*")) == []
    assert shelf.fetches("x86_64.whl") == 1


def test_a_cache_that_cannot_be_written(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROCM_CONFORMANCE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InfrastructureError, match="ROCM_CONFORMANCE_CACHE"):
        ready("0.19.0")
    assert shelf.asked == []


def test_the_source_distribution_is_fetched_once(shelf: Shelf, cache: Path) -> None:
    folder = source_tree("0.19.0")
    assert tree(folder) == {"docs/index.md": b"text\n", "pyproject.toml": b"text\n"}
    assert folder.is_relative_to(cache)
    assert source_tree("0.19.0") == folder
    assert shelf.fetches(".tar.gz") == 1


@pytest.mark.parametrize("member", ["../outside.md", "/../outside.md", "vllm-0.19.0/../../x.md"])
def test_a_source_distribution_that_points_outside(shelf: Shelf, cache: Path, member: str) -> None:
    shelf.add("0.19.0", sdist=make_sdist("0.19.0", member))
    with pytest.raises(InfrastructureError, match=r"not safe to unpack.*\.md"):
        source_tree("0.19.0")
    assert not list(cache.rglob("*.md"))


def test_an_altered_source_distribution(shelf: Shelf, cache: Path) -> None:
    shelf.hashes["vllm-0.19.0.tar.gz"] = "0" * 64
    with pytest.raises(InfrastructureError, match=r"sha256 is .* the index says 000"):
        source_tree("0.19.0")
    assert half_made(cache) == []


def test_credentials_go_to_the_index_alone_and_into_no_message(
    shelf: Shelf, start_server: Callable[[Shelf], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Shelf(files=shelf.files)
    start_server(files)
    shelf.elsewhere = files.address.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    secret = shelf.address.replace("://", "://someone:s%40cret@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{secret}/simple/")
    said: list[str] = []
    ready("0.19.0", progress=said.append)
    basic = "Basic " + base64.b64encode(b"someone:s@cret").decode()
    assert {headers.get("Authorization") for _, headers in shelf.asked} == {basic}
    assert {headers.get("Authorization") for _, headers in files.asked} == {None}

    shelf.refusals = [401]
    with pytest.raises(InfrastructureError, match=r"answered 401.*credentials") as refused:
        ready("0.18.1", progress=said.append)
    with pytest.raises(UsageError) as unknown:
        ready("0.18.9", progress=said.append)
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:s%40cret@127.0.0.1:9/simple/")
    with pytest.raises(InfrastructureError) as away:
        ready("0.18.1", progress=said.append)
    for text in [*said, *(repr(e.value) + str(e.value) for e in (refused, unknown, away))]:
        assert "cret" not in text
        assert "someone" not in text
    assert away.value.__suppress_context__, "a traceback would show the request's own words"


def test_network_away_says_what_and_how_else(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    del shelf
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:9.*--subject PATH/TO/python"):
        ready("0.19.0")


def test_an_index_without_vllm(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{shelf.address}/elsewhere/")
    with pytest.raises(InfrastructureError, match=r"has no vllm.*PIP_INDEX_URL"):
        ready("0.19.0")


def test_processes_of_a_run_keep_what_they_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    asked = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"]
    with pytest.raises(KeyboardInterrupt), workers.compiled_kept():
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        raise KeyboardInterrupt
    assert said.split() == ["False", str(tmp_path)]
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert "PYTHONPYCACHEPREFIX" not in os.environ


@pytest.mark.parametrize("forbidden", ["1", ""])
def test_a_command_keeps_what_it_compiles_where_none_may_be_written_beside_sources(
    forbidden: str, tmp_path: Path
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {"ROCM_CONFORMANCE_CACHE": str(tmp_path), "PYTHONDONTWRITEBYTECODE": forbidden}
    env |= {} if forbidden else {"PYTHONPYCACHEPREFIX": str(tmp_path / "own")}
    subprocess.run([sys.executable, "-m", "conformance", "cells"], env=env, check=True, timeout=60)
    kept = tmp_path / ("bytecode" if forbidden else "own")
    assert [*kept.rglob("cells.*.pyc")]
    assert {folder.name for folder in tmp_path.iterdir()} == {kept.name}
