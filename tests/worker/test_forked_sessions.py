"""Sessions that share one import of the subject answer as if each had imported it."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import WorkerDiedError
from conformance.matrix.requests import AITER, Platform
from conformance.subjects.base import Options
from conformance.subjects.protocol import Worker, start
from conformance.subjects.workers import WorkerSubject
from conformance.worker.environment_watch import Reads, native_modules, watched

CHECKOUT = Path(__file__).parents[2]
VARIABLE = "VLLM_ROCM_TOY"
GPU = Platform.make("gfx942", env={"VLLM_OTHER": "1"})


class Toy:
    """A worker whose package ``vllm`` has this source."""

    def __init__(self, folder: Path, source: str) -> None:
        self.file = folder / "vllm" / "__init__.py"
        self.file.parent.mkdir()
        self.file.write_text(f"import os\n{source}\n", encoding="utf-8")
        command = [sys.executable, "-m", "tests.worker.forking_worker", str(folder)]
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.command, self.env = command, env
        self.worker = Worker(command, env, 60)

    def session(self, platform: Platform = GPU, **variables: str) -> dict[str, Any]:
        """What a whole session on a platform says."""
        start(self.worker, platform.with_env(variables), "always", [])
        said: dict[str, Any] = self.worker.call("variable", names=[VARIABLE, "VLLM_OTHER"])
        self.worker.call("stop")
        return said


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Any]:
    made: list[Toy] = []

    def make(source: str) -> Toy:
        made.append(Toy(tmp_path, source))
        return made[-1]

    yield make
    for toy in made:
        toy.worker.close()


def test_a_variable_that_no_import_read_needs_no_other_import(toys: Any) -> None:
    toy = toys("KEPT = os.environ.get('VLLM_OTHER')")
    sessions = [toy.session(), toy.session(**{VARIABLE: "0"}), toy.session()]
    assert len({said["opened_in"] for said in sessions}) == 1
    assert [said["now"][VARIABLE] for said in sessions] == [None, "0", None]
    assert [said["kept"] for said in sessions] == ["1"] * 3
    # Nothing of one session is there in the next.
    assert [said["asked"] for said in sessions] == [1, 1, 1]


@pytest.mark.parametrize(
    "source",
    [
        f"KEPT = os.environ.get('{VARIABLE}')",
        f"KEPT = os.getenv('{VARIABLE}')",
        f"KEPT = '{VARIABLE}' in os.environ and os.environ['{VARIABLE}'] or None",
        f"KEPT = os.environb.get(b'{VARIABLE}', b'').decode() or None",
        f"KEPT = dict(os.environ).get('{VARIABLE}')",
        f"KEPT = os.environ.copy().get('{VARIABLE}')",
        f"KEPT = next((v for k, v in os.environ.items() if k == '{VARIABLE}'), None)",
        f"KEPT = os.popen('echo ${VARIABLE}').read().strip() or None",
        f"KEPT = os.environ.setdefault('{VARIABLE}', '') or None",
    ],
)
def test_a_variable_that_the_import_read_needs_another(source: str, toys: Any) -> None:
    toy = toys(source)
    sessions = [toy.session(), toy.session(**{VARIABLE: "0"})]
    assert [said["kept"] for said in sessions] == [None, "0"]


@pytest.mark.parametrize(
    "other",
    [
        Platform.make("gfx950", env={"VLLM_OTHER": "1"}),
        Platform.make("gfx942", aiter=True, env={"VLLM_OTHER": "1"}),
        # Others than vLLM's may be read by native code.
        GPU.with_env({"OMP_NUM_THREADS": "2"}),
        # The worker sets this one itself.
        GPU.with_env({"VLLM_LOGGING_LEVEL": "INFO"}),
    ],
    ids=str,
)
def test_another_machine_needs_another_import(other: Platform, toys: Any) -> None:
    toy = toys("")
    assert toy.session()["opened_in"] != toy.session(other)["opened_in"]


def test_edited_files_are_imported_anew(toys: Any) -> None:
    toy = toys("KEPT = 'before'")
    assert toy.session()["kept"] == "before"
    toy.file.write_text("KEPT = 'after it was edited'\n", encoding="utf-8")
    assert toy.session()["kept"] == "after it was edited"


def test_a_file_that_was_not_there_is_imported(toys: Any) -> None:
    toy = toys("try:\n    from vllm.late import KEPT\nexcept ImportError:\n    KEPT = 'none'")
    assert toy.session()["kept"] == "none"
    (toy.file.parent / "late.py").write_text("KEPT = 'there now'\n", encoding="utf-8")
    assert toy.session()["kept"] == "there now"


def test_a_sessions_death_is_the_workers(toys: Any) -> None:
    toy = toys("")
    toy.session()
    start(toy.worker, GPU, "always", [])
    with pytest.raises(WorkerDiedError) as died:
        toy.worker.call("cpu")
    assert died.value.signal == 6
    assert "ended with status -6" in died.value.stderr


def test_a_subject_that_cannot_be_imported_is_an_error_and_no_death(toys: Any) -> None:
    toy = toys("if os.environ.get('VLLM_ROCM_TOY'): raise RuntimeError('no such toy')")
    with pytest.raises(Exception, match="no such toy"):
        start(toy.worker, GPU.with_env({VARIABLE: "1"}), "always", [])
    assert toy.session()["now"][VARIABLE] is None


READS_AGAIN = """
def refresh():
    global KEPT
    KEPT = os.environ.get('VLLM_ROCM_USE_AITER')
refresh()
"""


class Going:
    """Sessions of a toy as a subject opens them, each from the one before."""

    def __init__(self, toy: Toy) -> None:
        self._subject = WorkerSubject("toy", toy.command, Options("0.19"), env=toy.env)

    def session(self, platform: Platform) -> dict[str, Any]:
        self._subject.reopen(platform)
        said: dict[str, Any] = self._subject.call("variable", names=[AITER, "VLLM_OTHER"])
        return said

    def close(self) -> None:
        self._subject.close()


@pytest.fixture
def going(toys: Any) -> Iterator[Any]:
    made: list[Going] = []

    def make(source: str) -> Going:
        made.append(Going(toys(source)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_variables_that_are_read_again_need_no_other_import(going: Any) -> None:
    """Not even where others that no import looked at differ too."""
    subject = going(READS_AGAIN)
    plain = Platform.make("gfx942", env={AITER: "1"})
    said = [
        subject.session(plain),
        subject.session(plain.with_env({AITER: "0"})),
        subject.session(plain.with_env({"VLLM_OTHER": "2"})),
        subject.session(plain.with_env({"VLLM_OTHER": "3", AITER: "0"})),
        subject.session(plain),
    ]
    assert len({each["opened_in"] for each in said}) == 1
    assert [each["kept"] for each in said] == ["1", "0", "1", "0", "1"]
    assert [each["now"]["VLLM_OTHER"] for each in said] == [None, None, "2", "3", None]


@pytest.mark.parametrize("source", ["", "KEPT = os.environ.get('VLLM_ROCM_USE_AITER')"])
def test_a_build_that_cannot_read_them_again_is_started_with_them(source: str, going: Any) -> None:
    subject = going(source)
    plain = Platform.make("gfx942", env={AITER: "1"})
    changed = plain.with_env({AITER: "0", "VLLM_OTHER": "2"})
    said = [subject.session(plain), subject.session(changed)]
    assert [each["now"][AITER] for each in said] == ["1", "0"]
    assert said[1]["kept"] == ("0" if source else None)


def test_another_machine_is_started_with_its_own_variables(going: Any) -> None:
    subject = going(READS_AGAIN)
    subject.session(Platform.make("gfx942", env={AITER: "1"}))
    said = subject.session(Platform.make("gfx1201", env={AITER: "0"}))
    assert (said["kept"], said["asked"]) == ("0", 1)


def test_native_code_of_the_package_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("toy", "toy/__init__.py"), ("toy._C", "toy/_C.abi3.so")):
        module = types.ModuleType(name)
        module.__file__ = file
        monkeypatch.setitem(sys.modules, name, module)
    assert native_modules("toy") == ["toy._C"]
    assert not native_modules("conformance")


def test_reads_of_nothing_are_of_no_variable() -> None:
    reads = Reads()
    with watched(reads):
        assert os.environ["PATH"]
    assert os.environ["HOME"]
    assert reads.any_of(["PATH"])
    assert not reads.any_of(["HOME"])
    assert not reads.any_of([])
