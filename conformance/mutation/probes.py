"""Code that notes which of its lines run: a cheap mark before every statement of every function,
and in every lambda.

Tracing (``sys.settrace``) would slow Triton's interpreter to a quarter, because it looks at every
call of every library. Marks cost nothing where there are none, and they run inside interpreted
kernels like any Python. The worker keeps them (``conformance/worker/lines.py``).
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from conformance.worker.contract import LINES_MODULE

_NAME = "_lines_that_ran"


def with_probes(
    file: str, source: str, keep: Callable[[ast.FunctionDef], bool] | None = None
) -> str:
    """A file's text with marks, which hold the lines of ``source`` and go by the name ``file``.

    ``keep``: only functions for which it is true have marks, and no lambda: some code reads the
    source of its functions, and would find the marks.
    """
    module = ast.parse(source)
    for node in ast.walk(module):
        if keep is not None:
            if isinstance(node, ast.FunctionDef) and keep(node):
                _mark(node)
        elif isinstance(node, ast.FunctionDef):
            _mark(node)
        elif isinstance(node, ast.Lambda):
            node.body = _marked_expression(node.body)
    place = next((at for at, node in enumerate(module.body) if not _stays_first(node)), 0)
    module.body[place:place] = ast.parse(
        f"import {LINES_MODULE}\n{_NAME} = {LINES_MODULE}.files.setdefault({file!r}, set())"
    ).body
    return ast.unparse(ast.fix_missing_locations(module)) + "\n"


def _stays_first(node: ast.stmt) -> bool:
    """Whether a statement must come before all others: documentation, or ``__future__``."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mark(function: ast.FunctionDef) -> None:
    """Puts a mark before each statement of a function, but for those of functions within."""
    holders: list[ast.AST] = [function]
    while holders:
        holder = holders.pop()
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(holder, field, None)
            if isinstance(statements, list):
                inner = [one for one in statements if not isinstance(one, ast.FunctionDef)]
                holders += inner
                setattr(holder, field, [part for one in statements for part in _marked(one)])
        holders += getattr(holder, "handlers", [])


def _marked_expression(body: ast.expr) -> ast.expr:
    """``mark or body``: to add to a set gives None."""
    mark = ast.parse(f"{_NAME}.add({body.lineno})", mode="eval").body
    return ast.copy_location(ast.BoolOp(ast.Or(), [mark, body]), body)


def _marked(statement: ast.stmt) -> list[ast.stmt]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return [statement]  # documentation must stay first
    mark = ast.parse(f"{_NAME}.add({statement.lineno})").body[0]
    return [mark, statement]
