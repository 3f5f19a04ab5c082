"""Which environment variables a package registers and nothing reads.

A variable is read where its value can change what the package does. A value that is only kept, in
an attribute that nobody looks at or behind an accessor that nobody calls, is not. This follows a
value through the names that it is kept under, by the syntax tree of the files that name them:

- stored in an attribute, or in a name of a class or module: read if that name is loaded anywhere,
  in a place that is read itself;
- used in a function: read if anything else in the package names the function;
- used anywhere else: read.

A name stands for everything of that name, so that a doubt is decided in favour of "read".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mention:
    """A place where a name's value is used; what becomes of it there.

    ``stored_in`` is the name that keeps the value and ``function`` the innermost function around;
    both are empty where the place is neither.
    """

    path: str
    line: int
    stored_in: str
    function: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Package:
    """The Python files of a package; each is parsed when a name in it is asked for."""

    root: Path
    registry: str
    _texts: dict[str, bytes] = field(default_factory=dict)
    _mentions: dict[str, dict[str, list[Mention]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """``registry`` is the file that registers variables: naming one there is not reading it."""
        for path in sorted(self.root.rglob("*.py")):
            name = path.relative_to(self.root).as_posix()
            if name != self.registry:
                self._texts[name] = path.read_bytes()

    def mentions(self, name: str) -> Iterator[Mention]:
        """Every place where a name is loaded, in any file."""
        word = re.compile(rf"\b{re.escape(name)}\b".encode())
        for path, text in self._texts.items():
            if name.encode() in text and word.search(text):
                yield from self._of(path).get(name, ())

    def unread(self, variable: str) -> list[Mention] | None:
        """The places that name a variable, if none of them reads it; else None."""
        found = list(self.mentions(variable))
        return None if any(self._is_read(m, frozenset()) for m in found) else found

    def _is_read(self, mention: Mention, seen: frozenset[str]) -> bool:
        if mention.stored_in:
            if mention.stored_in in seen:
                return False
            loads = self.mentions(mention.stored_in)
            return any(self._is_read(m, seen | {mention.stored_in}) for m in loads)
        function = mention.function
        if not function or (function.startswith("__") and function.endswith("__")):
            return True
        return any(other.function != function for other in self.mentions(function))

    def _of(self, path: str) -> dict[str, list[Mention]]:
        if path not in self._mentions:
            collector = _Collector(path)
            collector.visit(ast.parse(self._texts[path]))
            self._mentions[path] = collector.found
        return self._mentions[path]


class _Collector(ast.NodeVisitor):
    """Finds every load of a name in a file: names, attributes, and strings that are one word."""

    def __init__(self, path: str) -> None:
        self.found: dict[str, list[Mention]] = {}
        self._path = path
        self._functions: list[str] = []
        self._stored: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assignment(node.targets, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assignment([node.target], node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._add(node.id, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._add(node.attr, node.lineno)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.isidentifier():
            self._add(node.value, node.lineno)

    def _function(self, node: _Function) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._functions.append(node.name)
        stored, self._stored = self._stored, []
        for part in (node.args, *node.body):
            self.visit(part)
        self._functions.pop()
        self._stored = stored

    def _assignment(self, targets: Iterable[ast.expr], value: ast.expr) -> None:
        kept = [name for target in targets if (name := self._kept_in(target))]
        self._stored.append(kept[0] if len(kept) == 1 else "")
        self.visit(value)
        self._stored.pop()
        for target in targets:
            self.visit(target)

    def _kept_in(self, target: ast.expr) -> str:
        """The name that outlives the statement: an attribute's, or one of a class or module."""
        if isinstance(target, ast.Attribute):
            return target.attr
        return target.id if isinstance(target, ast.Name) and not self._functions else ""

    def _add(self, name: str, line: int) -> None:
        stored = self._stored[-1] if self._stored else ""
        function = self._functions[-1] if self._functions else ""
        self.found.setdefault(name, []).append(Mention(self._path, line, stored, function))
