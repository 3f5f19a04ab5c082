"""What the operators make of code, and that an edit is where it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rocm_reference
from conformance.mutation.mutant import AT_IMPORT, edited, one_line
from conformance.mutation.operators import OPERATORS
from conformance.mutation.sites import mutants_of

KERNELS = Path(rocm_reference.__file__).parent / "ops"

# (operator, a statement of a function, what may stand there instead)
CASES = [
    ("boundary", "x = a < b", {"a <= b"}),
    ("comparison", "x = a == b", {"a != b"}),
    ("comparison", "x = a < b", {"a >= b"}),
    ("constant", "x = f(3)", {"4", "2"}),
    ("constant", "x = f(0)", {"1"}),
    ("constant", "x = f(True)", {"False"}),
    ("constant", "x = f(8.0)", {"9.0"}),
    ("infinity", "x = float('-inf')", {"'inf'"}),
    ("kind", "x = vector('u32', 'u32 i16', y)", {"'i32'", "'i32 i16'", "'u32 u16'"}),
    ("kind", "x = compare('b16 u32', y)", {"'b16 i32'"}),
    ("kind", "x = say('u32 of a kind')", set()),
    ("arithmetic", "x = a + b", {"a - b"}),
    ("arithmetic", "x += b", {"x -= b"}),
    ("term", "x = a * scale", {"a", "scale"}),
    ("term", "x = a - b", {"a"}),
    ("term", "x = seen and stored", {"seen", "stored"}),
    ("operands", "x = a // b", {"b // a"}),
    ("operands", "x = a + b", set()),
    ("arguments", "x = f(a, b, c)", {"f(b, a, c)", "f(a, c, b)"}),
    ("arguments", "x = f(k.stride(0), k.stride(1))", {"f(k.stride(1), k.stride(0))"}),
    ("arguments", "x = f(a, 1)", set()),
    ("arguments", "x = tl.maximum(a, b)", set()),
    ("parameters", "x = lambda a, b: a - b", {"lambda b, a: a - b"}),
    ("parameters", "x = lambda a, b: a * b + 1", set()),
    ("parameters", "x = lambda a, b: a != b", set()),
    ("parameters", "x = lambda a, b: a < b", {"lambda b, a: a < b"}),
    ("where", "x = tl.where(c, a, b)", {"a", "b", "tl.where(c, b, a)"}),
    ("function", "x = tl.maximum(a, b)", {"tl.minimum"}),
    ("function", "x = max(a, b)", {"min"}),
    ("function", "x = tl.cdiv(a, b)", {"a // b"}),
    ("function", "x = tl.abs(a)", {"a"}),
    ("function", "x = row.maximum", set()),
    ("function", "x = a.to(tl.int64)", set()),
    ("function", "x = a.astype(np.int64)", {"np.uint64"}),
    ("function", "x = a.to(tl.float32)", {"tl.float16"}),
    ("function", "x = tl.zeros([n], tl.float32)", set()),
    ("function", "x = tl.full([n], tl.cdiv(a, b), dtype=tl.float32)", {"a // b"}),
    ("cast", "x = a.to(tl.int64)", {"a"}),
    ("mask", "x = tl.load(p, mask=m, other=0)", {"tl.load(p)"}),
    ("condition", "x = a if c else b", {"a", "b"}),
    ("condition", "x = c or not b", {"c and (not b)", "b"}),
    ("sign", "x = -a", {"a"}),
    ("statement", "x = x * scale", {"pass"}),
    ("statement", "x = y * scale", set()),
    ("statement", "tl.store(p, x, mask=m)", {"pass"}),
    ("loop", "x = [i for i in range(0, n)]", {"range(0, n - 1)"}),
    ("entry", "x = {'a': one, 'b': two}", {"two"}),
]


def made(operator: str, code: str) -> set[str]:
    source = f"def f():\n    {code}\n"
    return {m.after for m in mutants_of("p", "f.py", source) if m.operator == operator}


@pytest.mark.parametrize(
    ("operator", "code", "expected"),
    CASES,
    ids=[f"{operator} {code}" for operator, code, _ in CASES],
)
def test_what_an_operator_makes(operator: str, code: str, expected: set[str]) -> None:
    assert made(operator, code) == expected


def test_a_branch_is_turned_and_forced() -> None:
    source = "def f(c):\n    if c:\n        return 1\n    return 2\n"
    found = {m.after for m in mutants_of("p", "f.py", source) if m.operator == "branch"}
    assert found == {"not c", "True", "False"}


def test_every_operator_has_a_case() -> None:
    named = {operator for operator, _, expected in CASES if expected} | {"branch"}
    assert named == {operator.name for operator in OPERATORS}


LEFT_ALONE = '''\
"""Says 1 + 1."""
import a


@jit(1 + 1)
def f(x: Literal[1], y=1):
    """Says 2 + 2."""
    assert x < 1
    if x < 2:
        raise ValueError(f"{x + 1}")
    kernel[grid](x, num_warps=4)
    z: Literal[3] = x
'''


def test_what_no_run_can_show_is_left_alone() -> None:
    found = {(m.operator, m.before) for m in mutants_of("p", "f.py", LEFT_ALONE)}
    assert found == {("statement", "kernel[grid](x, num_warps=4)")}


def test_a_mutant_knows_the_first_line_of_its_statement() -> None:
    source = "def f(a, b):\n    c = g(\n        a + b,\n    )\n    return c\n"
    (added,) = (m for m in mutants_of("p", "f.py", source) if m.operator == "arithmetic")
    assert (added.line, added.statement) == (3, "c = g(")


def test_only_functions_that_are_asked_for_are_edited() -> None:
    source = "X = 1\n\n\ndef f():\n    return 2\n\n\ndef g():\n    return 3\n"
    found = mutants_of("p", "f.py", source, lambda function: function.name == "g")
    assert {m.function for m in found} == {"g"}


def test_every_mutant_of_a_kernel_file_is_one() -> None:
    source = (KERNELS / "tiles.py").read_text(encoding="utf-8")
    found = mutants_of("kernels", "ops/tiles.py", source)
    assert len(found) > 300
    assert len({mutant.id for mutant in found}) == len(found)
    right = ast.dump(ast.parse(source))
    for mutant in found[::7]:
        text = edited(mutant, source)
        assert ast.dump(ast.parse(text)) != right, mutant
        assert text.count("\n") == source.count("\n"), mutant


def test_lines_below_an_edit_keep_their_numbers() -> None:
    source = "def f(a, b):\n    x = g(\n        a,\n        b,\n    )\n    return 1 / 0\n"
    for mutant in mutants_of("p", "f.py", source):
        ended = ast.parse(edited(mutant, source)).body[0]
        assert isinstance(ended, ast.FunctionDef)
        assert ended.body[-1].lineno == 6, mutant


def test_an_edit_keeps_its_id_when_the_file_changes_above_it() -> None:
    source = "def f(a, b):\n    return a + b\n"
    above = f"# é\nX = ({chr(10)})\n{source}"
    before, after = mutants_of("p", "f.py", source), mutants_of("p", "f.py", above)
    assert {mutant.id for mutant in before} == {mutant.id for mutant in after}
    assert before[0].line != after[0].line
    assert edited(after[0], above).endswith(edited(before[0], source))


def test_edits_that_are_alike_are_told_apart() -> None:
    found = mutants_of("p", "f.py", "def f(a, b):\n    a += 1\n    a += 1\n    return a\n")
    dropped = [mutant for mutant in found if mutant.operator == "statement"]
    assert [mutant.number for mutant in dropped] == [0, 1]
    assert len({mutant.id for mutant in dropped}) == 2


def test_an_edit_of_another_text_is_refused() -> None:
    source = "def f(a, b):\n    return a + b\n"
    mutant = mutants_of("p", "f.py", source)[0]
    with pytest.raises(ValueError, match="where"):
        edited(mutant, source.replace("a + b", "b + a"))


def test_an_entry_of_a_table_is_named_by_its_key() -> None:
    source = "T = {\n    'v_add': plus(1),\n    **named('v_max v_max_num', two),\n}\n"
    found = {m.function: m for m in mutants_of("p", "f.py", source) if m.operator != "entry"}
    assert found["[v_add]"].span == AT_IMPORT
    assert one_line("a(\n    b)") == "a( b)"
