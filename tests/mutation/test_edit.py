"""Edits by structure: what they match, what they refuse, and that formatting does not matter."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from conformance.mutation.edit import Edit
from conformance.mutation.kernel_copy import KERNELS, copy_kernels
from tests.kernels.kernel_faults.catalogue import FAULTS

EDITS = tuple(dict.fromkeys(e for fault in FAULTS for e in (*fault.edits, *fault.setting)))
SOURCE = """
LIMIT = 3 * 4

def load(pointer, mask):  # a comment
    rows = read(pointer, mask, other=0)
    return rows + 1

class Backend:
    def attend(self, x):
        # x is dense
        return load(x, x > 0) + load(x, x > LIMIT)
"""


def edited(function: str, find: str, replace: str, source: str = SOURCE) -> str:
    return Edit("kernel.py", function, find, replace).edited(source)


@pytest.mark.parametrize(
    ("function", "find", "replace", "line"),
    [
        ("", "LIMIT = 3 * 4", "LIMIT = 1", "LIMIT = 1"),
        ("load", "(rows) + 1", "rows", "return rows"),
        ("load", "rows = read(pointer, mask, other=0)", "rows = 0", "rows = 0"),
        ("load", "read(..., mask)", "read(..., True)", "rows = read(pointer, True, other=0)"),
        ("load", "read(..., other=0)", "read(..., other=9)", "rows = read(pointer, mask, other=9)"),
        ("Backend.attend", "load(x, x >\n 0)", "x", "return x + load(x, x > LIMIT)"),
        ("Backend.attend", "load(..., x > LIMIT)", "f(...)", "return load(x, x > 0) + f(x)"),
    ],
)
def test_an_edit_changes_one_place(function: str, find: str, replace: str, line: str) -> None:
    before, after = (
        ast.unparse(ast.parse(text)).splitlines()
        for text in (SOURCE, edited(function, find, replace))
    )
    changed = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [line]


def test_statements_take_the_place_of_statements() -> None:
    text = edited("load", "return rows + 1", "rows += 2\nreturn rows")
    assert "rows += 2\n    return rows" in text
    everything = "rows = read(pointer, mask, other=0)\nreturn rows + 1"
    assert "mask):\n    pass" in edited("load", everything, "")


@pytest.mark.parametrize(
    ("function", "find", "replace", "complaint"),
    [
        ("load", "rows + 2", "rows", "kernel.py, load: has this code 0 times, not once"),
        ("load", "rows", "row", "has this code 2 times, not once"),
        ("Backend.attend", "load(..., x > 0, ...)", "x", "fewer ... than the code"),
        ("Backend.attend", "load(x, ...)", "x", "has this code 2 times, not once"),
        ("load", "read(pointer, ...)", "read(..., ...)", "more ... than the code"),
        ("save", "rows", "row", "kernel.py has no function save"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(
    function: str, find: str, replace: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        edited(function, find, replace)


def test_kernels_themselves_are_not_edited(tmp_path: Path) -> None:
    edit = Edit("ops/softmax.py", "visible", "seen & (key_pos <= query_pos)", "seen")
    copy = copy_kernels(tmp_path, (edit,)) / "rocm_reference" / edit.file
    with pytest.raises(ValueError, match="0 times"):
        edit.edited(copy.read_text(encoding="utf-8"))
    copy_kernels(tmp_path / "again", (edit,))


@pytest.fixture(scope="module")
def reformatted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels in lines of 60 columns, in single quotes, without comments."""
    copy = copy_kernels(tmp_path_factory.mktemp("reformatted"), ()) / KERNELS.name
    for file in {edit.file for edit in EDITS}:
        path = copy / file
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        text = tokenize.untokenize(t for t in tokens if t.type != tokenize.COMMENT)
        path.write_text(text, encoding="utf-8")
    style = ["--line-length", "60", "--config", "format.quote-style = 'single'"]
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--quiet", *style]
    subprocess.run([*ruff, str(copy)], check=True)
    return copy


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.file} {edit.find}")
def test_a_reformat_breaks_no_edit(edit: Edit, reformatted: Path) -> None:
    """The edit makes the same program of the kernels as they are and of a reformatted copy."""
    texts = [(folder / edit.file).read_text(encoding="utf-8") for folder in (KERNELS, reformatted)]
    assert texts[0] != texts[1]
    assert edit.edited(texts[0]) == edit.edited(texts[1])
    assert ast.dump(ast.parse(edit.edited(texts[0]))) != ast.dump(ast.parse(texts[0]))
