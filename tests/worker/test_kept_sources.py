"""What a session found out about source files, later ones have; edited files are read anew."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from conformance.matrix.requests import Platform
from conformance.worker import kept_sources
from tests.worker.test_forked_sessions import Toy, toys

__all__ = ["toys"]

OTHER = Platform.make("gfx950", env={"VLLM_OTHER": "1"})
COUNTED = """
import importlib.machinery, inspect, tokenize
work = []
tokens, data = tokenize.generate_tokens, importlib.machinery.SourceFileLoader.get_data
tokenize.generate_tokens = lambda *a: work.append("tokens") or tokens(*a)
def get_data(self, path):
    work.append("file")
    return data(self, path)
importlib.machinery.SourceFileLoader.get_data = get_data
from vllm import part
KEPT = [inspect.getsource(part.kernel), part.kernel(), work.count("tokens"), work.count("file")]
"""
PART = "def kernel():\n    return 1\n    # its last line\n\nKERNELS = [kernel]\n"


def with_part(toys: Any) -> Toy:
    toy: Toy = toys(COUNTED)
    (toy.file.parent / "part.py").write_text(PART, encoding="utf-8")
    return toy


def test_another_import_reads_no_file_and_looks_for_no_block_again(toys: Any) -> None:
    toy = with_part(toys)
    first, second = toy.session()["kept"], toy.session(OTHER)["kept"]
    assert first[:2] == second[:2] == ["def kernel():\n    return 1\n    # its last line\n", 1]
    assert first[2] == 1
    assert first[3] > 0
    assert second[2:] == [0, 0]


def test_an_edited_file_is_read_anew(toys: Any) -> None:
    toy = with_part(toys)
    # What the first session knows is kept before the second begins.
    toy.session()
    toy.session(OTHER)
    (toy.file.parent / "part.py").write_text("def kernel():\n    x = 2\n    return x\n")
    source, value, tokens, files = toy.session()["kept"]
    assert (source, value) == ("def kernel():\n    x = 2\n    return x\n", 2)
    assert tokens == 1
    assert files > 0


SHAPES = (
    "def f():\n    pass\n\ndef g():\n    pass\n",
    "@a\n@b(1)\ndef f(\n    x,\n):\n    # one\n    return x\n# two\ny = 1\n",
    "    def f():\n        if x:\n            return 1\n        return 2\n\n    y = 1\n",
    "f = lambda: (\n    1,\n)\n",
    'class A:\n    """\n  text\n"""\n    x = 1\n\n\n',
    "x = 1\ny = 2\n",
    "def f(): return '\\udc80'\n",
)


@pytest.mark.parametrize("text", SHAPES)
def test_blocks_end_where_pythons_own_search_ends_them(text: str) -> None:
    lines = text.splitlines(keepends=True)
    wanted = inspect.getblock(list(lines))
    for _ in range(2):
        assert kept_sources._block(lines) == wanted


def test_a_file_that_is_no_module_is_not_kept(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    gone = tmp_path / "gone.py"
    kept_sources.keep({"files": {"broken": str(broken), "gone": str(gone)}, "blocks": {}})
    assert not {str(broken), str(gone)} & kept_sources._codes.keys()
