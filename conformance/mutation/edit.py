"""Edits of Python source by its structure, so that they hold however the source is formatted."""

from __future__ import annotations

import ast
import copy
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED_FIELDS = ("ctx", "kind", "type_comment")
Filled = tuple[list[Any], ...]  # what each gap of a pattern stands for, in order


class Gap(ast.expr):
    """``...`` as an argument of a call in a pattern: any number of arguments."""

    _fields = ()


@dataclass(frozen=True)
class Edit:
    """Replaces the code ``find``, which ``function`` of ``file`` holds exactly once.

    ``file`` is relative to the edited package; ``function`` is a dotted path (``Class.method``),
    or empty for the whole module. ``find`` and ``replace`` are an expression each, or any number
    of statements. They are compared as syntax trees: line breaks, comments, quotes and redundant
    parentheses do not count.

    A call in ``find`` may leave arguments out: ``f(..., x)`` is a call of ``f`` whose last
    positional argument is ``x``, whatever the others and the keywords are. The ``...`` of
    ``replace`` stand for the same arguments in the same order. No other ``...`` is special.
    """

    file: str
    function: str
    find: str
    replace: str

    def apply(self, folder: Path) -> None:
        """Edits a copy of the package; comments are lost.

        Raises:
            ValueError: the function is not there, or does not hold the code exactly once.
        """
        path = folder / self.file
        path.write_text(self.edited(path.read_text(encoding="utf-8")), encoding="utf-8")

    def edited(self, source: str) -> str:
        """The source of the file with the edit."""
        module = ast.parse(source)
        scope = _definition(module, self.function)
        if scope is None:
            raise ValueError(f"{self.file} has no function {self.function}")
        find, replace = _statements(self.find), _statements(self.replace)
        whole = not (_is_expression(find) and _is_expression(replace))
        matches = list(_statement_matches(scope, find) if whole else _matches(scope, find))
        if len(matches) != 1:
            where = f"{self.file}, {self.function}" if self.function else self.file
            raise ValueError(f"{where}: has this code {len(matches)} times, not once:\n{self.find}")
        place, filled = matches[0]
        made = _Filler(filled).fill(replace)
        place.put(made if whole else [node.value for node in made if isinstance(node, ast.Expr)])
        return ast.unparse(ast.fix_missing_locations(module)) + "\n"


@dataclass(frozen=True)
class _Place:
    """Where a pattern stands: ``parent.field``, or its elements from ``start`` to ``stop``."""

    parent: ast.AST
    field: str
    start: int | None = None
    stop: int | None = None

    def put(self, nodes: list[Any]) -> None:
        if self.start is None:
            setattr(self.parent, self.field, nodes[0])
            return
        siblings = getattr(self.parent, self.field)
        siblings[self.start : self.stop] = nodes
        if not siblings and self.field == "body":
            siblings.append(ast.Pass())


def _definition(scope: ast.AST, path: str) -> ast.AST | None:
    """The function or class of a dotted path below ``scope``."""
    name, _, rest = path.partition(".")
    if not name:
        return scope
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return _definition(node, rest)
    return None


def _statements(code: str) -> list[ast.stmt]:
    module = ast.parse(textwrap.dedent(code))
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            node.args = [Gap() if _is_ellipsis(argument) else argument for argument in node.args]
    return module.body


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_expression(statements: list[ast.stmt]) -> bool:
    return len(statements) == 1 and isinstance(statements[0], ast.Expr)


def _matches(scope: ast.AST, find: list[ast.stmt]) -> Iterator[tuple[_Place, Filled]]:
    """Where the expression ``find`` stands below ``scope``."""
    (statement,) = find
    assert isinstance(statement, ast.Expr)
    for parent in ast.walk(scope):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, list):
                for index, node in enumerate(value):
                    for filled in _unify([(statement.value, node)]):
                        yield _Place(parent, field, index, index + 1), filled
            else:
                for filled in _unify([(statement.value, value)]):
                    yield _Place(parent, field), filled


def _statement_matches(scope: ast.AST, find: list[ast.stmt]) -> Iterator[tuple[_Place, Filled]]:
    """Where the statements ``find`` follow each other below ``scope``."""
    for parent in ast.walk(scope):
        for field, value in ast.iter_fields(parent):
            if not isinstance(value, list):
                continue
            for start in range(len(value) - len(find) + 1):
                stop = start + len(find)
                for filled in _unify([(find, value[start:stop])]):
                    yield _Place(parent, field, start, stop), filled


def _unify(pairs: list[tuple[Any, Any]], filled: Filled = ()) -> Iterator[Filled]:
    """Every way to fill the gaps of patterns so that each is the node it is paired with."""
    if not pairs:
        yield filled
        return
    (pattern, node), *rest = pairs
    if type(pattern) is not type(node):
        return
    if isinstance(pattern, list):
        yield from _unify_lists(pattern, node, rest, filled)
    elif isinstance(pattern, ast.Call) and _has_gap(pattern):
        yield from _unify_calls(pattern, node, rest, filled)
    elif isinstance(pattern, ast.AST):
        names = [name for name in pattern._fields if name not in IGNORED_FIELDS]
        fields = [(getattr(pattern, name), getattr(node, name)) for name in names]
        yield from _unify([*fields, *rest], filled)
    elif pattern == node:
        yield from _unify(rest, filled)


def _unify_lists(
    pattern: list[Any], nodes: list[Any], rest: list[tuple[Any, Any]], filled: Filled
) -> Iterator[Filled]:
    if not pattern:
        if not nodes:
            yield from _unify(rest, filled)
    elif isinstance(pattern[0], Gap):
        for count in range(len(nodes) + 1):
            others = (pattern[1:], nodes[count:])
            yield from _unify([others, *rest], (*filled, nodes[:count]))
    elif nodes:
        yield from _unify([(pattern[0], nodes[0]), (pattern[1:], nodes[1:]), *rest], filled)


def _unify_calls(
    pattern: ast.Call, node: ast.Call, rest: list[tuple[Any, Any]], filled: Filled
) -> Iterator[Filled]:
    """A call with gaps: its keywords are compared by name, and others may be there."""
    named = {keyword.arg: keyword for keyword in pattern.keywords}
    given = [keyword for keyword in node.keywords if keyword.arg in named]
    if len(given) == len(named):
        others = [keyword for keyword in node.keywords if keyword.arg not in named]
        values = [(named[keyword.arg].value, keyword.value) for keyword in given]
        parts = [(pattern.func, node.func), (pattern.args, node.args), *values]
        yield from _unify([*parts, *rest], (*filled, others))


def _has_gap(call: ast.Call) -> bool:
    return any(isinstance(argument, Gap) for argument in call.args)


class _Filler(ast.NodeTransformer):
    """Puts what the gaps of a pattern stand for into those of its replacement."""

    def __init__(self, filled: Filled) -> None:
        self._filled = list(copy.deepcopy(filled))

    def fill(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        made = [self.visit(statement) for statement in statements]
        if self._filled:
            raise ValueError("the replacement has fewer ... than the code that it replaces")
        return made

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _has_gap(node):
            if len(self._filled) <= sum(isinstance(argument, Gap) for argument in node.args):
                raise ValueError("the replacement has more ... than the code that it replaces")
            named = {keyword.arg for keyword in node.keywords}
            node.keywords += [k for k in self._filled.pop(0) if k.arg not in named]
            node.args = [
                filled
                for argument in node.args
                for filled in (self._filled.pop(0) if isinstance(argument, Gap) else [argument])
            ]
        return self.generic_visit(node)
