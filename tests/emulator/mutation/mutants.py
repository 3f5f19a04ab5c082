"""Every small change that can be made to what the emulator says of instructions.

A mutant is the emulator's source with one expression changed: an operator, a comparison, a constant
off by one, two operands or arguments that change places, a type without its sign, a statement left
out. Messages, names, annotations and docstrings stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[3]
PACKAGE = "conformance.devices.isa"
# Where the semantics are; `table` only collects them.
MODULES = (
    "numbers",
    *(
        f"instructions.{name}"
        for name in (
            "access", "alu", "atomics", "crosslane", "dpp", "eight_bit", "global_memory", "indexed",
            "lds", "matrix", "matrix_variants", "operands", "packed", "scalar", "scalar_state",
            "scratch", "vector_float", "vector_half", "vector_integer", "vector_sums",
        )
    ),
)  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_NAMES = {
    one: two
    for pair in (
        ("minimum", "maximum"), ("fmin", "fmax"), ("floor", "ceil"), ("trunc", "rint"),
        ("int32", "uint32"), ("int64", "uint64"), ("any", "all"), ("argmax", "argmin"),
        ("max_num", "min_num"), ("to_half", "to_bf16"), ("from_half", "from_bf16"),
        ("low_half", "high_half"), ("flush32", "flush16"), ("u32", "i32"), ("u16", "i16"),
        ("u64", "i64"), ("u24", "i24"), ("f16", "bf16"),
    )
    for one, two in (pair, pair[::-1])
}  # fmt: skip
_KINDS = {"u32", "i32", "b32", "f32", "u64", "i64", "b64", "f64", "u16", "i16", "f16", "bf16",
          "b16", "u24", "i24", "mask", "dst", "scc"}  # fmt: skip
# Calls in which the order of arguments is of no matter, or goes wrong at once.
_ONE_ORDER = {"min", "max", "minimum", "maximum", "fmin", "fmax", "isinstance", "Instruction",
              "Operand", "vector", "scalar", "compare", "named"}  # fmt: skip
_SWAPPABLE = (ast.Sub, ast.LShift, ast.RShift, ast.FloorDiv, ast.Mod, ast.Div)


@dataclass(frozen=True)
class Mutant:
    """``source`` is the whole module, with ``before`` at ``place`` become ``after``.

    ``line`` is the line that it begins in, as it was.
    """

    module: str
    place: str
    line: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.place}: {self.before}  ->  {self.after}"


@dataclass(frozen=True)
class Change:
    """One change: a node of the module's tree by its number, and which of its changes."""

    module: str
    number: int
    choice: int


def changes() -> Iterator[Change]:
    """Every change of every module, in their order."""
    for module in MODULES:
        for number, node in enumerate(_nodes(module)):
            for choice in range(len(_choices(node))):
                yield Change(module, number, choice)


def mutant(change: Change) -> Mutant:
    """A module with one change made."""
    source, node = source_of(change.module), _nodes(change.module)[change.number]
    into = _choices(node)[change.choice]
    before = ast.unparse(node)
    after = "pass" if into is None else ast.unparse(into)
    written = f"({after})" if isinstance(into, ast.expr) else after
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: (node.end_lineno or 0) - 1])) + (node.end_col_offset or 0)
    changed = source[:start] + written + source[end:]
    place = f"{node.lineno}:{node.col_offset}"
    line = lines[node.lineno - 1].strip()
    return Mutant(change.module, place, line, before, after, changed)


@lru_cache
def source_of(module: str) -> str:
    path = ROOT / PACKAGE.replace(".", "/") / f"{module.replace('.', '/')}.py"
    return path.read_text(encoding="ascii")


# -- what may change ------------------------------------------------------------------------------
Node = ast.expr | ast.stmt
N = TypeVar("N", bound=ast.AST)


@lru_cache
def _nodes(module: str) -> list[Node]:
    """All nodes that say what is computed, in the order of the source."""
    found = _walk(ast.parse(source_of(module)))
    return [node for node in found if isinstance(node, (ast.expr, ast.stmt))]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr)):
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        yield child
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            for part in (*child.body, *_defaults(child)):
                if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)):
                    yield part
                    yield from _walk(part)
        elif isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield child.value
                yield from _walk(child.value)
        elif isinstance(child, (ast.If, ast.IfExp)):
            yield ast.copy_location(_Test(child.test), child.test)
            yield from _walk(child)
        else:
            yield from _walk(child)


class _Test(ast.Expr):
    """The condition of a branch, which can be turned round."""


def _defaults(node: ast.FunctionDef | ast.ClassDef) -> list[ast.expr]:
    if isinstance(node, ast.ClassDef):
        return []
    return [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]


def _choices(node: Node) -> list[Node | None]:  # noqa: PLR0911 - one a kind
    if isinstance(node, ast.Constant):
        return _constants(node.value)
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        return _operators(node)
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = _COMPARISONS.get(type(node.ops[0]))
        return [] if other is None else [_with(node, lambda n: setattr(n, "ops", [other()]))]
    if isinstance(node, ast.BoolOp):
        op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return [_with(node, lambda n: setattr(n, "op", op))]
    if isinstance(node, ast.Call):
        return _calls(node)
    if isinstance(node, ast.Lambda):
        return _lambdas(node)
    if isinstance(node, _Test):
        return [ast.UnaryOp(ast.Not(), node.value)]
    if isinstance(node, ast.Expr):
        return [None]
    if isinstance(node, ast.Attribute) and node.attr in _NAMES:
        return [ast.Attribute(node.value, _NAMES[node.attr], node.ctx)]
    return []


def _with(node: N, edit: Callable[[N], None]) -> N:
    """A copy of a node's top, edited."""
    made = copy.copy(node)
    edit(made)
    return made


def _constants(value: object) -> list[Node | None]:
    if isinstance(value, bool):
        return [ast.Constant(not value)]
    if isinstance(value, int):
        return [ast.Constant(value + 1), *([ast.Constant(value - 1)] if value > 0 else [])]
    if isinstance(value, float):
        return [ast.Constant(value * 2 if value else 1.0)]
    if isinstance(value, str) and value and set(value.split()) <= _KINDS:
        words = value.split()
        return [
            ast.Constant(" ".join([*words[:at], _NAMES[word], *words[at + 1 :]]))
            for at, word in enumerate(words)
            if word in _NAMES
        ]
    return []


def _operators(node: ast.BinOp | ast.AugAssign) -> list[Node | None]:
    found: list[Node | None] = []
    other = _OPERATORS.get(type(node.op))
    if other is not None and not _is_text(node):
        found.append(_with(node, lambda n: setattr(n, "op", other())))
    if isinstance(node, ast.BinOp) and isinstance(node.op, _SWAPPABLE):
        found.append(ast.BinOp(node.right, node.op, node.left))
    return found


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    parts = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(
        isinstance(part, ast.JoinedStr)
        or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in parts
    )


def _calls(node: ast.Call) -> list[Node | None]:
    found: list[Node | None] = []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if isinstance(node.func, ast.Name) and name in _NAMES:
        found.append(ast.Call(ast.Name(_NAMES[name], ast.Load()), node.args, node.keywords))
    args = node.args
    if name == "where" and len(args) == 3:
        found.append(ast.Call(node.func, [args[0], args[2], args[1]], node.keywords))
    elif len(args) > 1 and name not in _ONE_ORDER:
        found.append(ast.Call(node.func, [args[1], args[0], *args[2:]], node.keywords))
    return found


def _lambdas(node: ast.Lambda) -> list[Node | None]:
    """The first two parameters change places."""
    given = node.args.args
    if len(given) < 2 or len(node.args.defaults) > len(given) - 2:
        return []
    one, two = given[0].arg, given[1].arg
    if _in_order(node.body, {one: two, two: one}) == _in_order(node.body, {}):
        return []
    swapped = copy.copy(node.args)
    swapped.args = [given[1], given[0], *given[2:]]
    return [ast.Lambda(swapped, node.body)]


def _word(node: ast.AST) -> str:
    """What a node says besides its parts."""
    if isinstance(node, ast.Constant):
        return repr(node.value)
    return str(getattr(node, "attr", ""))


_COMMUTES = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)


def _in_order(node: ast.AST, names: dict[str, str]) -> str:
    """An expression with other names, and the operands that may change places sorted."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    parts = [_in_order(child, names) for child in ast.iter_child_nodes(node)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, _COMMUTES):
        parts.sort()
    kind = type(node).__name__
    return f"{kind}({_word(node)}, {', '.join(parts)})"
