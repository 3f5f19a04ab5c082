"""Which places read a variable's value, and which only keep it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.suites.removal.variable_use import Package

KEPT = """
from vllm import envs

class Flags:
    _ON = envs.FLAG

    @classmethod
    def refresh(cls):
        cls._ON = envs.FLAG

    @classmethod
    def is_on(cls):
        return cls._ON
"""
CALLS_REFRESH = "from flags import Flags\n\nFlags.refresh()\n"


def package(folder: Path, **files: str) -> Package:
    """A package of these modules; ``envs`` is the registry."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return Package(folder, "envs.py")


@pytest.mark.parametrize(
    "text",
    [
        "import envs\nif envs.FLAG:\n    print()\n",
        "import os\n\ndef f():\n    return os.getenv('FLAG')\n\nf()\n",
        "import envs\n\nclass C:\n    def __init__(self):\n        self.x = min(envs.FLAG, 1)\n"
        "    def f(self):\n        return self.x\n\nC().f()\n",
        "import envs\n\nasync def f():\n    return envs.FLAG\n\nTABLE = {'f': f}\nprint(TABLE)\n",
        "from envs import FLAG\nKEPT = FLAG\nprint(KEPT)\n",
        "import envs\n\ndef f(x=envs.FLAG):\n    return x\n\ndef g():\n    return f()\n",
    ],
)
def test_a_value_that_reaches_code_is_read(text: str, tmp_path: Path) -> None:
    assert package(tmp_path, user=text).unread("FLAG") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# FLAG\n",
        '"""Set FLAG to 1."""\n',
        "print('set FLAG to 1')\n",
        "import envs\n\ndef f():\n    return envs.FLAG\n",
        "import envs\n\ndef f(n):\n    return envs.FLAG and f(n - 1)\n",
        "import envs\nKEPT = envs.FLAG\n",
        "import envs\n\nclass C:\n    kept = envs.FLAG\n    kept = kept\n",
        KEPT,
    ],
)
def test_a_value_that_is_only_kept_is_not_read(text: str, tmp_path: Path) -> None:
    registry = "import os\nenvironment_variables = {'FLAG': lambda: os.getenv('FLAG')}\n"
    assert package(tmp_path, envs=registry, user=text).unread("FLAG") is not None


def test_refreshing_what_nobody_reads_is_not_reading(tmp_path: Path) -> None:
    files = package(tmp_path, flags=KEPT, caller=CALLS_REFRESH)
    assert [str(place) for place in files.unread("FLAG") or ()] == ["flags.py:5", "flags.py:9"]


def test_one_caller_of_the_accessor_is_enough(tmp_path: Path) -> None:
    caller = CALLS_REFRESH + "if Flags.is_on():\n    print()\n"
    assert package(tmp_path, flags=KEPT, caller=caller).unread("FLAG") is None


def test_a_longer_name_is_another_one(tmp_path: Path) -> None:
    text = "import envs\nprint(envs.FLAG_OF_MORE, envs.A_FLAG)\n"
    assert package(tmp_path, user=text).unread("FLAG") == []
