"""A mutant: one edit of one file, and where it stands."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# The span of what runs when its file is imported.
AT_IMPORT = (0, 0)


@dataclass(frozen=True)
class Mutant:
    """One thing put wrong, of one of the parts that a campaign goes through.

    ``file`` is relative to the folder that is copied and edited, and ``function`` the dotted path
    of what holds the edit ("": the module itself; for data the table's entry). ``before`` and
    ``after`` are what stood there and what stands there now, each as one line. ``line``,
    ``span`` (the first and the last line of its statement, or of the statement's head) and
    ``start`` and ``end`` (in the file's bytes) change when anything above them does, and are no
    part of :attr:`id`, nor is ``statement``, the first line of that. ``number`` tells apart edits
    that are alike in all else, from 0 on.
    """

    part: str
    file: str
    function: str
    operator: str
    before: str
    after: str
    line: int = 0
    start: int = 0
    end: int = 0
    span: tuple[int, int] = AT_IMPORT
    number: int = 0
    statement: str = ""

    @property
    def id(self) -> str:
        """The same for the same edit, wherever in its file it stands: 12 hexadecimal digits."""
        fields = (self.part, self.file, self.function, self.operator, self.before, self.after)
        told = "\0".join((*fields, str(self.number)))
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        held = f" {self.function}" if self.function else ""
        return f"{where}{held}: {self.operator}: {self.before} -> {self.after}"


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """The mutants, those that are alike numbered in their order."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        alike = mutant.id
        yield replace(mutant, number=seen[alike])
        seen[alike] += 1


def edited(mutant: Mutant, source: str) -> str:
    """A file's text with the edit; the lines below it keep their numbers.

    Raises:
        ValueError: the file does not hold ``before`` there.
    """
    data = source.encode()
    stood = data[mutant.start : mutant.end].decode()
    if one_line(stood) != mutant.before:
        raise ValueError(f"{mutant.file} has {one_line(stood)!r} where {mutant.before!r} was")
    breaks = "\n" * stood.count("\n")
    # Between parentheses a line break is nothing, and so it is after a statement.
    put = f"({mutant.after}{breaks})" if _is_expression(mutant.after) else mutant.after + breaks
    return (data[: mutant.start] + put.encode() + data[mutant.end :]).decode()


def _is_expression(code: str) -> bool:
    try:
        ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    return True


def one_line(text: str) -> str:
    """Code without its line breaks and what indents them."""
    return " ".join(part.strip() for part in text.splitlines())
