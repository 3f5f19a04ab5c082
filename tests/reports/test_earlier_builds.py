"""Where an earlier build's results are: a folder, a file, an archive, an address."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conformance.errors import InfrastructureError, UsageError
from conformance.reports import earlier_builds
from conformance.reports.earlier_builds import TOKEN_VARIABLE, opened
from conformance.reports.junit_writer import write_junit
from tests.support.results import CASE, FAILED, write_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_run(tmp_path / "build", [CASE, FAILED])


def cases_in(origin: object) -> int:
    with opened(str(origin)) as found:
        return sum(len(each.run.cases) for each in found.inputs)


def zipped(file: Path, name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(file, name)
        archive.writestr("notes.txt", "not read")
    return made.getvalue()


def tarred(file: Path, name: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(file, name)
    return made.getvalue()


def test_a_folder_and_a_file(results: Path) -> None:
    assert cases_in(results) == cases_in(results.parent) == 2


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive(pack: Callable[[Path, str], bytes], results: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(pack(results, "../../outside/results.jsonl"))
    assert cases_in(tmp_path / "artifact") == 2
    assert not (tmp_path.parent / "outside").exists()


def test_a_junit_file_alone_and_in_an_archive(tmp_path: Path) -> None:
    (junit,) = write_junit([CASE, FAILED], tmp_path / "junit")
    assert cases_in(junit) == 2
    (tmp_path / "artifact").write_bytes(zipped(junit, "a/junit-x.xml"))
    assert cases_in(tmp_path / "artifact") == 2


@pytest.mark.parametrize("data", [b"PK and nothing more", b"\x1f\x8b and nothing more"])
def test_an_archive_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(data)
    with pytest.raises(UsageError, match="no sound archive"):
        cases_in(tmp_path / "artifact")


def test_an_archive_that_holds_too_much(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").write_bytes(tarred(results, "results.jsonl"))
    monkeypatch.setattr(earlier_builds, "SIZE_LIMIT", results.stat().st_size - 1)
    with pytest.raises(UsageError, match="holds more than"):
        cases_in(tmp_path / "artifact")


class Artifacts(BaseHTTPRequestHandler):
    """Gives a results file to those who have the token."""

    data = b""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer secret"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(self.data if allowed else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(results: Path) -> Iterator[str]:
    Artifacts.data = zipped(results, "results.jsonl")
    with ThreadingHTTPServer(("127.0.0.1", 0), Artifacts) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}/artifact"
        server.shutdown()


def test_an_address_that_asks_for_a_token(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(InfrastructureError, match=f"answers 401: set {TOKEN_VARIABLE}"):
        cases_in(address)
    monkeypatch.setenv(TOKEN_VARIABLE, "secret\n")
    assert cases_in(address) == 2


def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(InfrastructureError, match="cannot be fetched"):
        cases_in("http://127.0.0.1:9/results.jsonl")
