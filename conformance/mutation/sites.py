"""Where a Python file can be put wrong: every mutant that the operators make of it."""

from __future__ import annotations

import ast
from collections.abc import Callable

from conformance.mutation.mutant import AT_IMPORT, Mutant, numbered, one_line
from conformance.mutation.operators import OPERATORS

# Arguments that make a kernel faster or slower, and change nothing that it computes.
TUNING = frozenset(
    {"num_warps", "num_stages", "waves_per_eu", "matrix_instr_nonkdim", "kpack", "cache_modifier"}
    | {"eviction_policy", "input_precision"}
)
Keep = Callable[[ast.FunctionDef], bool]


def mutants_of(part: str, file: str, source: str, keep: Keep | None = None) -> list[Mutant]:
    """Every mutant of a file, in the file's order.

    Left alone are what no run of right inputs can show: documentation, annotations, decorators,
    imports, errors that are raised and the ``if`` that does nothing else, assertions, and arguments
    that only tune (``TUNING``). ``keep``: only functions for which it is true are changed.
    """
    module = ast.parse(source)
    walk = _Walk(part, file, source, keep)
    walk.body(module.body, "", inside=keep is None)
    return list(numbered(walk.found))


class _Walk:
    """Goes through a syntax tree and collects mutants."""

    def __init__(self, part: str, file: str, source: str, keep: Keep | None) -> None:
        self._part = part
        self._file = file
        self._data = source.encode()
        self._keep = keep
        # Where each line begins, in bytes: so the tree counts columns.
        self._lines = [0]
        for line in self._data.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._in_function = False
        self._span = AT_IMPORT  # of the statement that is being looked at
        self.found: list[Mutant] = []

    def body(self, statements: list[ast.stmt], path: str, *, inside: bool) -> None:
        for statement in statements:
            self._statement(statement, path, inside)

    def _statement(self, node: ast.stmt, path: str, inside: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            within = f"{path}.{node.name}" if path else node.name
            kept = inside or (
                isinstance(node, ast.FunctionDef) and self._keep is not None and self._keep(node)
            )
            was = self._in_function
            self._in_function = isinstance(node, ast.FunctionDef)
            self.body(node.body, within, inside=kept)
            self._in_function = was
            return
        if not inside or _is_left_alone(node):
            return
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        head = (node.lineno, _last_line_of_head(node, inner))
        self._span = head if self._in_function else AT_IMPORT
        self._try_all(node, path)
        for child in ast.iter_child_nodes(node):
            annotates = isinstance(node, ast.AnnAssign) and child is node.annotation
            if child not in inner and not annotates:
                self._expression(child, path)
        for child in inner:
            self._statement(child, path, inside)

    def _expression(self, node: ast.AST, path: str) -> None:
        if isinstance(node, ast.JoinedStr | ast.arguments):
            return
        if isinstance(node, ast.keyword) and node.arg in TUNING:
            return
        if isinstance(node, ast.Lambda):
            was, self._span = self._span, (node.body.lineno, node.body.end_lineno or 0)
            self._try_all(node, path)
            self._expression(node.body, path)
            self._span = was
            return
        self._try_all(node, path)
        if _is_constant_block(node):
            # Its only value is the same in every type, and what it meets decides the type.
            for part in (p for p in ast.iter_child_nodes(node) if not _is_type(p)):
                self._expression(part, path)
            return
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                self._expression(value, f"{path}[{_name_of(key, value)}]")
            return
        for child in ast.iter_child_nodes(node):
            self._expression(child, path)

    def _try_all(self, node: ast.AST, path: str) -> None:
        for operator in OPERATORS:
            for replaced, made in operator.changes(node):
                self._put(replaced, made, operator.name, path)

    def _put(self, node: ast.AST, made: ast.AST, operator: str, path: str) -> None:
        if not isinstance(node, ast.expr | ast.stmt):
            return
        start, end = self._offsets(node)
        before = one_line(self._data[start:end].decode())
        after = ast.unparse(ast.fix_missing_locations(made))
        if after not in (before, ast.unparse(node)):
            self.found.append(
                Mutant(
                    *(self._part, self._file, path, operator, before, after),
                    *(node.lineno, start, end, self._span),
                    statement=self._statement_at(self._span[0]),
                )
            )

    def _statement_at(self, line: int) -> str:
        """The text of a line, from 1 on; "" of line 0."""
        if not line:
            return ""
        end = self._lines[line] if line < len(self._lines) else None
        return self._data[self._lines[line - 1] : end].decode().strip()

    def _offsets(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        return start, self._lines[node.end_lineno - 1] + node.end_col_offset


def _is_constant_block(node: ast.AST) -> bool:
    """``tl.zeros`` or ``tl.full``."""
    made = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return made in ("tl.zeros", "tl.full")


def _is_type(node: ast.AST) -> bool:
    """Whether an argument is a type of Triton's."""
    value = node.value if isinstance(node, ast.keyword) else node
    return isinstance(value, ast.Attribute) and value.attr.startswith(("float", "int", "uint"))


def _name_of(key: ast.expr | None, value: ast.expr) -> str:
    """What an entry of a table is called: its key, or of ``**`` the first text in it."""
    named = key if key is not None else value
    texts = (n.value for n in ast.walk(named) if isinstance(n, ast.Constant))
    return next((text for text in texts if isinstance(text, str)), "")


def _last_line_of_head(node: ast.stmt, inner: list[ast.stmt]) -> int:
    """The last line of what stands before a statement's own statements."""
    last = node.end_lineno or node.lineno
    return max(node.lineno, inner[0].lineno - 1) if inner else last


def _is_left_alone(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert):
        return True
    if isinstance(node, ast.If):
        guards = all(isinstance(one, ast.Raise) for one in node.body)
        return (guards and not node.orelse) or _mentions(node.test, "TYPE_CHECKING")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
