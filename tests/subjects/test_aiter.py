"""AMD's aiter as a subject: a release from a fabricated package index, or a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from conformance.errors import InfrastructureError, UsageError
from conformance.subjects.base import Options
from conformance.subjects.spellings import SubjectKind, is_installed, kind_of, parse_subject
from conformance.subjects.vllm import package_index
from conformance.subjects.workers import WorkerSubject
from tests.support.package_index import PYTHON_FILES, Shelf, handler_of, make_wheel

VERSION = "0.1.7.post2.dev18"
NAME = f"amd_aiter-{VERSION}-py3-none-any.whl"
CK = "aiter_meta/3rdparty/composable_kernel/include"
FILES = {
    "aiter/__init__.py": b"raise ImportError\n",
    "aiter/mla.py": b"STAGES = 2\n",
    "aiter_meta/hsa/gfx942/pa/pa_asm.csv": b"qType,kvType\n",
    "aiter_meta/hsa/gfx942/pa/decode.co": b"\x7fELF of attention",
    "aiter_meta/hsa/gfx942/fmoe/experts.co": b"\x7fELF of experts",
    "aiter_meta/hsa/gfx942/pa/codegen.py": b"pass\n",
    "aiter_meta/csrc/py_itfs_cu/asm_mla.cu": b"// host code\n",
    "aiter_meta/csrc/py_itfs_cu/asm_fmoe.cu": b"// other host code\n",
    "aiter_meta/csrc/cpp_itfs/pa/pa_v1.cuh": b"// kernels\n",
    "aiter_meta/csrc/include/quant_utils.cuh": b"// headers\n",
    f"{CK}/ck_tile/core.hpp": b"// CK's\n",
    f"{CK}/ck/fmoe.hpp": b"// others of CK's\n",
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(shelf))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    shelf.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("ROCM_CONFORMANCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{shelf.address}/simple/")
    monkeypatch.setattr(package_index, "_pip_configuration", dict)
    yield shelf
    server.shutdown()
    server.server_close()


def folder_of(subject: object) -> Path:
    assert isinstance(subject, WorkerSubject)
    return Path(subject.environment["PYTHONPATH"])


def test_a_release_is_fetched_once_and_only_what_is_judged_of_it(shelf: Shelf) -> None:
    shelf.files[NAME] = make_wheel(VERSION, members=FILES)
    subject = parse_subject(f"amd-aiter=={VERSION}", Options("0.33"))
    assert isinstance(subject, WorkerSubject)
    assert subject.release == ""  # none of vLLM's
    assert f"amd-aiter {VERSION}" in subject.note
    assert subject.command[-1] == "aiter"
    assert subject.libraries["aiter"] == ""
    assert subject.libraries["vllm"] != ""
    folder = folder_of(subject)
    for name in FILES:
        kept = "fmoe" not in name
        assert (folder / name).is_file() is kept, name
    asked = len(shelf.asked)
    assert folder_of(parse_subject(f"amd-aiter=={VERSION}", Options("0.33"))) == folder
    assert len(shelf.asked) == asked


def test_a_damaged_code_object_is_not_kept(shelf: Shelf, tmp_path: Path) -> None:
    metadata = {f"vllm-{VERSION}.dist-info/METADATA": b"Name: amd-aiter\n"}
    built = {**FILES, "aiter_meta/hsa/gfx942/pa/decode.co": b"what was built"}
    recorded = {**PYTHON_FILES, **metadata, **built}
    members = {**metadata, **FILES}
    shelf.files[NAME] = make_wheel(VERSION, members=members, recorded=recorded)
    with pytest.raises(InfrastructureError, match=r"decode\.co in .* has sha256="):
        parse_subject(f"amd-aiter=={VERSION}", Options("0.33"))
    assert not list((tmp_path / "cache").glob("aiter*/[!.]*"))


def test_a_wheel_without_code_objects_is_refused(shelf: Shelf) -> None:
    python = {name: data for name, data in FILES.items() if "hsa" not in name}
    shelf.files[NAME] = make_wheel(VERSION, members=python)
    with pytest.raises(InfrastructureError, match="holds no aiter with code objects"):
        parse_subject(f"amd-aiter=={VERSION}", Options("0.33"))


def test_a_release_that_is_none(shelf: Shelf) -> None:
    shelf.files[NAME] = make_wheel(VERSION, members=FILES)
    with pytest.raises(UsageError, match=r"amd-aiter 9\.9 is not a release"):
        parse_subject("amd-aiter==9.9", Options("0.33"))
    with pytest.raises(UsageError, match="'new' is no version of amd-aiter"):
        parse_subject("amd-aiter==new", Options("0.33"))


@pytest.mark.parametrize("spec", ["aiter==0.13.20191203", "aiter"])
def test_the_indexs_other_aiter_is_refused_by_name(spec: str) -> None:
    with pytest.raises(UsageError, match="'aiter' is not AMD's: expected amd-aiter=="):
        parse_subject(spec, Options("0.33"))


@pytest.mark.parametrize("code_objects", ["hsa", "aiter_meta/hsa"])
def test_a_folder_with_aiter(tmp_path: Path, code_objects: str) -> None:
    (tmp_path / code_objects / "gfx942").mkdir(parents=True)
    (tmp_path / "aiter").mkdir()
    (tmp_path / "aiter" / "__init__.py").write_text("raise ImportError\n", encoding="utf-8")
    subject = parse_subject(str(tmp_path), Options("0.33"))
    assert folder_of(subject) == tmp_path
    assert "amd-aiter source tree" in getattr(subject, "note", "")
    (tmp_path / f"amd_aiter-{VERSION}.dist-info").mkdir()
    subject = parse_subject(str(tmp_path), Options("0.33"))
    assert f"amd-aiter {VERSION}" in getattr(subject, "note", "")


def test_what_sort_of_subject_it_is() -> None:
    spec = f"amd-aiter=={VERSION}"
    assert kind_of(spec) is SubjectKind.VLLM
    assert not is_installed(spec)
