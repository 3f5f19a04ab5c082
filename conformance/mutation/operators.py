"""The mutation operators: each takes a node of Python's syntax tree, and gives what to put there.

They are the ones that other tools found useful (https://pitest.org/quickstart/mutators,
https://stryker-mutator.io/docs/mutation-testing-elements/supported-mutators,
https://cosmic-ray.readthedocs.io), and those that kernels ask for: a mask that is dropped, an arm
of ``tl.where``, a cast, a scale, two arguments of a launch that change places.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

Replacements = Iterator[ast.AST]
# What is replaced, and what by.
Changes = Iterator[tuple[ast.AST, ast.AST]]

# What may stand before a function's name where it is called, or passed on.
MODULES = ("tl", "np", "torch", "math", "triton")
_BOUNDARIES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_OPPOSITES = {
    **{ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}
_ARITHMETIC = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift},
    **{ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.BitXor: ast.BitOr, ast.Pow: ast.Mult},
}
_EITHER_TERM = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
_FIRST_TERM = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.LShift, ast.RShift)
_FUNCTIONS = {
    **{"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"},
    **{"fmin": "fmax", "fmax": "fmin", "argmin": "argmax", "argmax": "argmin"},
    **{"exp": "exp2", "exp2": "exp", "log": "log2", "log2": "log", "sum": "max"},
    **{"floor": "ceil", "ceil": "floor", "rint": "trunc", "trunc": "rint"},
    **{"any": "all", "all": "any", "min_num": "max_num", "max_num": "min_num"},
    **{"int32": "int16", "uint32": "int32", "float32": "float16", "greater": "less"},
    **{"int64": "uint64", "uint64": "int64"},
    **{"to_half": "to_bf16", "to_bf16": "to_half", "from_half": "from_bf16"},
    **{"from_bf16": "from_half", "low_half": "high_half", "high_half": "low_half"},
    **{"flush32": "flush16", "flush16": "flush32"},
}
_LEFT_OUT = ("abs", "absolute", "trans", "sqrt", "ascontiguousarray")
_CASTS = ("to", "astype", "float", "half")
_LOADS = ("load", "store")
# Whose arguments may change places, or are told apart elsewhere.
_UNORDERED = (*_LOADS, "where", "maximum", "minimum", "max", "min", "logical_and", "logical_or")
# The kinds of an instruction's operands, each with another of its width; and kinds that have none.
_KINDS = {
    **{"u32": "i32", "i32": "u32", "u16": "i16", "i16": "u16", "u64": "i64", "i64": "u64"},
    **{"u24": "i24", "i24": "u24", "f16": "bf16", "bf16": "f16", "f32": "u32", "b32": "u32"},
}
_OTHER_KINDS = ("b16", "b64", "f64", "mask", "dst", "scc")


@dataclass(frozen=True)
class Operator:
    """``says``: what it does, for the reader of a score."""

    name: str
    says: str
    changes: Callable[[ast.AST], Changes]


def in_place(replacements: Callable[[ast.AST], Replacements]) -> Callable[[ast.AST], Changes]:
    """An operator that replaces the very node that it is given."""

    def changes(node: ast.AST) -> Changes:
        for made in replacements(node):
            yield node, made

    return changes


@in_place
def _boundary(node: ast.AST) -> Replacements:
    yield from _compared(node, _BOUNDARIES)


@in_place
def _opposite(node: ast.AST) -> Replacements:
    yield from _compared(node, _OPPOSITES)


def _compared(node: ast.AST, others: dict[type[ast.cmpop], type[ast.cmpop]]) -> Replacements:
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            if type(op) in others:
                made = copy.deepcopy(node)
                made.ops[at] = others[type(op)]()
                yield made


@in_place
def _constant(node: ast.AST) -> Replacements:
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        if value:
            yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 1.125 if value else 1.0)


@in_place
def _infinity(node: ast.AST) -> Replacements:
    signs = {"-inf": "inf", "inf": "-inf"}
    if isinstance(node, ast.Constant) and node.value in signs and isinstance(node.value, str):
        yield ast.Constant(signs[node.value])


@in_place
def _kind(node: ast.AST) -> Replacements:
    """In a text that is nothing but kinds of operands, one of them."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return
    kinds = node.value.split(" ")
    if all(kind in _KINDS or kind in _OTHER_KINDS for kind in kinds):
        for at, kind in enumerate(kinds):
            other = _KINDS.get(kind, kind)
            yield ast.Constant(" ".join((*kinds[:at], other, *kinds[at + 1 :])))


@in_place
def _arithmetic(node: ast.AST) -> Replacements:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        made = copy.deepcopy(node)
        made.op = _ARITHMETIC[type(node.op)]()
        yield made


@in_place
def _term(node: ast.AST) -> Replacements:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, (*_EITHER_TERM, *_FIRST_TERM)):
            yield node.left
        if isinstance(node.op, _EITHER_TERM):
            yield node.right
    if isinstance(node, ast.BoolOp):
        for at in range(len(node.values)):
            left = [*node.values[:at], *node.values[at + 1 :]]
            yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


@in_place
def _operands(node: ast.AST) -> Replacements:
    if isinstance(node, ast.BinOp) and isinstance(node.op, _FIRST_TERM):
        yield ast.BinOp(node.right, node.op, node.left)


@in_place
def _arguments(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Call) and _function(node) not in _UNORDERED:
        for at, (one, other) in enumerate(pairwise(node.args)):
            if _are_alike(one, other):
                made = copy.copy(node)
                made.args = [*node.args[:at], other, one, *node.args[at + 2 :]]
                yield made


def _are_alike(one: ast.expr, other: ast.expr) -> bool:
    """Two names, or two calls of one function (two strides of tensors)."""
    if isinstance(one, ast.Call) and isinstance(other, ast.Call):
        return _function(one) == _function(other)
    return isinstance(one, ast.Name | ast.Attribute) and isinstance(other, type(one))


@in_place
def _parameters(node: ast.AST) -> Replacements:
    """Of a function without a name the first two, where that makes a difference."""
    if isinstance(node, ast.Lambda) and len(node.args.args) > 1:
        one, other, *rest = node.args.args
        swapped = {one.arg: other.arg, other.arg: one.arg}
        if not node.args.defaults and _sorted(node.body, swapped) != _sorted(node.body, {}):
            made = copy.copy(node.args)
            made.args = [other, one, *rest]
            yield ast.Lambda(made, node.body)


def _sorted(node: ast.AST, names: dict[str, str]) -> str:
    """An expression with other names, and the operands that may change places in one order."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    parts = [_sorted(child, names) for child in ast.iter_child_nodes(node)]
    equal = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq)
    if equal or (isinstance(node, ast.BinOp) and isinstance(node.op, _EITHER_TERM)):
        parts.sort()
    says = repr(node.value) if isinstance(node, ast.Constant) else getattr(node, "attr", "")
    return f"{type(node).__name__}({says}, {', '.join(parts)})"


@in_place
def _where(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Call) and _function(node) == "where" and len(node.args) == 3:
        condition, then, otherwise = node.args
        yield then
        yield otherwise
        yield ast.Call(node.func, [condition, otherwise, then], [])


@in_place
def _other_function(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Attribute) and node.attr in _FUNCTIONS:
        module = node.value.id if isinstance(node.value, ast.Name) else ""
        # Of kernels' 64-bit numbers, which are addresses and indices, the sign plays no part.
        is_index = module in ("tl", "torch") and node.attr in ("int64", "uint64")
        if module in MODULES and not is_index:
            yield ast.Attribute(node.value, _FUNCTIONS[node.attr], node.ctx)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _FUNCTIONS:
        yield ast.Name(_FUNCTIONS[node.id], node.ctx)
    elif isinstance(node, ast.Call):
        name = _function(node)
        if name == "cdiv" and len(node.args) == 2:
            yield ast.BinOp(node.args[0], ast.FloorDiv(), node.args[1])
        if name in _LEFT_OUT and len(node.args) == 1 and not node.keywords:
            yield node.args[0]


@in_place
def _cast(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        on = node.func.value
        if node.func.attr in _CASTS and not (isinstance(on, ast.Name) and on.id in MODULES):
            yield on


@in_place
def _mask(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Call) and _function(node) in _LOADS:
        kept = [k for k in node.keywords if k.arg not in ("mask", "other")]
        if len(kept) < len(node.keywords):
            yield ast.Call(node.func, node.args, kept)


@in_place
def _condition(node: ast.AST) -> Replacements:
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand


def _test(node: ast.AST) -> Changes:
    """Of an ``if`` statement the condition."""
    if isinstance(node, ast.If):
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            yield node.test, ast.UnaryOp(ast.Not(), node.test)
        yield node.test, ast.Constant(True)
        yield node.test, ast.Constant(False)


@in_place
def _sign(node: ast.AST) -> Replacements:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        # Of a number the constant operator makes others.
        yield from [] if isinstance(node.operand, ast.Constant) else [node.operand]


@in_place
def _statement(node: ast.AST) -> Replacements:
    if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(
        node, ast.AugAssign
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Assign):
        made = {name for target in node.targets for name in _names(target)}
        if made & _names(node.value):
            yield ast.Pass()


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@in_place
def _loop(node: ast.AST) -> Replacements:
    if isinstance(node, ast.Call) and _function(node) == "range" and node.args:
        at = min(len(node.args), 2) - 1
        made = copy.copy(node)
        last = ast.BinOp(node.args[at], ast.Sub(), ast.Constant(1))
        made.args = [*node.args[:at], last, *node.args[at + 1 :]]
        yield made


def _entry(node: ast.AST) -> Changes:
    if isinstance(node, ast.Dict):
        for at, (one, other) in enumerate(pairwise(node.values)):
            if node.keys[at] is not None and ast.dump(one) != ast.dump(other):
                yield one, other


def _function(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    func = call.func
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else ""


OPERATORS = (
    Operator("boundary", "`<` for `<=`, `>` for `>=`, and the other way round", _boundary),
    Operator("comparison", "a comparison turned into its opposite", _opposite),
    Operator(
        "constant", "a whole number off by one, another by an eighth; `True` for `False`", _constant
    ),
    Operator("infinity", "`inf` for `-inf`, and the other way round", _infinity),
    Operator(
        "kind", "an operand's kind: signed for unsigned, one 16-bit float for the other", _kind
    ),
    Operator(
        "arithmetic",
        "`-` for `+`, `%` for `//`, `|` for `&`, `>>` for `<<`, and the like",
        _arithmetic,
    ),
    Operator("term", "one side of a sum, a product (a scale), a mask, a condition left out", _term),
    Operator("operands", "the two sides of `-`, `/`, `//`, `%`, `<<`, `>>` exchanged", _operands),
    Operator(
        "arguments", "two neighbouring arguments of a call (two strides) exchanged", _arguments
    ),
    Operator("parameters", "the first two parameters of a `lambda` exchanged", _parameters),
    Operator("where", "one arm of `where` always, or the arms exchanged", _where),
    Operator(
        "function",
        "`maximum` for `minimum`, `exp` for `exp2`, `//` for `cdiv`, no `abs`",
        _other_function,
    ),
    Operator("cast", "a conversion left out", _cast),
    Operator("mask", "a load or a store without its mask", _mask),
    Operator("condition", "`or` for `and`, no `not`, one arm of a conditional always", _condition),
    Operator("branch", "an `if` turned round, always taken, never taken", _test),
    Operator("sign", "no minus, no `~`", _sign),
    Operator("statement", "a call, or a change of a variable, left out", _statement),
    Operator("loop", "a loop without its last step", _loop),
    Operator("entry", "a table's entry with its neighbour's value", _entry),
)
