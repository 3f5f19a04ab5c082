"""Follows C++ host code that chooses a code object: which file it takes for which arguments.

aiter's ``asm_mla.cu`` has its table of kernels in nested conditions: what is the query's type, how
many heads share a KV head, how many query tokens has a sequence. Here these conditions are read
from the installed source and evaluated, no more of C++ than they need: comparisons of known values
and numbers, joined by "and", "or" and "not".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

Fact = int | str | bool

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_KERNEL = re.compile(r'AiterAsmKernel\s+\w+\s*\(\s*"([^"]+)"\s*,\s*"/?([^"]+\.co)"\s*\)')
_ROWS = re.compile(r"sub_Q\s*=\s*(\d+)$")
_REFUSAL = re.compile(r"TORCH_CHECK\s*\(\s*false\b")
_KIND = re.compile(r"(\w+)\.dtype\(\)")
_KIND_NAME = re.compile(r"(?:at::ScalarType|torch)::(\w+)")


class HostCodeError(Exception):
    """The source is not what this reader can follow; the message says where."""


@dataclass(frozen=True)
class Choice:
    """What the host code launches: a file, such as ``mla/x.co``, and its kernel.

    ``rows``: the rows of queries that a workgroup takes. No ``file``: it ends with an error.
    """

    file: str = ""
    symbol: str = ""
    rows: int = 0


def choice(source: str, function: str, facts: Mapping[str, Fact]) -> Choice:
    """What a function of the source launches where these are the values of its variables.

    The type of a tensor ``Q`` is the fact ``Q``, by torch's name in C++ ("BFloat16").

    Raises:
        HostCodeError: there is no such function, or it asks for what is no fact.
    """
    text = _COMMENT.sub("", source)
    match = re.search(rf"\bvoid\s+{function}\s*\(", text)
    if match is None:
        raise HostCodeError(f"the host code has no function {function}")
    _, after = _bracketed(text, match.end() - 1, "()")
    body, _ = _bracketed(text, text.index("{", after), "{}")
    return _Followed(body, facts).result()


def _bracketed(text: str, start: int, pair: str) -> tuple[str, int]:
    """What stands between the bracket at ``start`` and its partner, and the place after that."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == pair[0]) - (text[at] == pair[1])
        if not depth:
            return text[start + 1 : at], at + 1
    raise HostCodeError(f"a bracket is not closed: {text[start : start + 40]!r}")


class _Followed:
    """A function's body, statement by statement, as far as they choose a kernel."""

    def __init__(self, body: str, facts: Mapping[str, Fact]) -> None:
        self._body, self._facts = body, facts
        self._chosen, self._ended = Choice(), False

    def result(self) -> Choice:
        self._run(self._body)
        return Choice() if self._ended or not self._chosen.file else self._chosen

    def _run(self, text: str) -> None:
        at = 0
        while not self._ended:
            rest = text[at:].lstrip()
            at = len(text) - len(rest)
            if not rest:
                return
            if re.match(r"if\s*\(", rest):
                at = self._branches(text, at)
            elif rest[0] == "{":
                inner, at = _bracketed(text, at, "{}")
                self._run(inner)
            else:
                end = text.find(";", at)
                end = len(text) if end < 0 else end
                self._statement(text[at:end])
                at = end + 1

    def _branches(self, text: str, at: int) -> int:
        """Runs the first branch whose condition holds; the place after all of them.

        A condition about what chooses no kernel is not evaluated: neither are its branches.
        """
        taken = False
        while True:
            head = re.compile(r"\s*(else\s+)?(if\s*\()?").match(text, at)
            assert head is not None
            condition = None
            at = head.end()
            if head.group(2):
                condition, at = _bracketed(text, at - 1, "()")
            block, at = self._block(text, at)
            chooses = _KERNEL.search(block) or _REFUSAL.search(block)
            if chooses and not taken and (condition is None or self._holds(condition)):
                taken = True
                self._run(block)
            if not re.match(r"\s*else\b", text[at:]):
                return at

    @staticmethod
    def _block(text: str, at: int) -> tuple[str, int]:
        start = at + len(text[at:]) - len(text[at:].lstrip())
        if text[start : start + 1] == "{":
            return _bracketed(text, start, "{}")
        end = text.index(";", start)
        return text[start:end], end + 1

    def _statement(self, text: str) -> None:
        text = text.strip()
        if kernel := _KERNEL.search(text):
            self._chosen = replace(self._chosen, symbol=kernel.group(1), file=kernel.group(2))
        elif rows := _ROWS.search(text):
            self._chosen = replace(self._chosen, rows=int(rows.group(1)))
        elif _REFUSAL.match(text):
            self._ended = True

    def _holds(self, condition: str) -> bool:
        python = _KIND_NAME.sub(r"'\1'", _KIND.sub(r"\1", condition))
        python = python.replace("&&", " and ").replace("||", " or ")
        python = re.sub(r"!(?!=)", " not ", python)
        try:
            return bool(self._value(ast.parse(python.strip(), mode="eval").body))
        except SyntaxError:
            raise HostCodeError(f"a condition that cannot be read: {condition.strip()}") from None

    def _value(self, node: ast.expr) -> Fact:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | str):
            return node.value
        if isinstance(node, ast.Name) and node.id in self._facts:
            return self._facts[node.id]
        if isinstance(node, ast.BoolOp):
            values = (bool(self._value(one)) for one in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self._value(node.operand)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return _compared(node.ops[0], self._value(node.left), self._value(node.comparators[0]))
        raise HostCodeError(f"a condition asks for what is not known: {ast.unparse(node)}")


def _compared(operator: ast.cmpop, one: Fact, two: Fact) -> bool:
    if isinstance(operator, ast.Eq):
        return one == two
    if isinstance(operator, ast.NotEq):
        return one != two
    if isinstance(one, str) or isinstance(two, str):
        raise HostCodeError(f"{one!r} and {two!r} are compared by size")
    orders = {ast.Lt: one < two, ast.LtE: one <= two, ast.Gt: one > two, ast.GtE: one >= two}
    if type(operator) not in orders:
        raise HostCodeError(f"a comparison that is not known: {type(operator).__name__}")
    return orders[type(operator)]
