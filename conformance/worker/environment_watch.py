"""Notes which environment variables a stretch of Python code looks at.

What a module does when it is imported can depend on a variable only if something reads it then. So
an import that looked at none of the variables in which two platforms differ would have gone the
same way on the other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Environ = os._Environ[str]
else:
    _Environ = type(os.environ)

# What starts another program, which gets every variable.
STARTING = ("os.fork", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen")


class Reads:
    """The variables that were looked at, or set: ``names``; ``everything``: or all of them."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.everything = False

    def any_of(self, names: Collection[str]) -> bool:
        """Whether one of these was looked at."""
        return bool(names) and (self.everything or not self.names.isdisjoint(names))


class _State:
    """Where reads are noted at present."""

    reads: Reads | None = None
    hooked = False


@contextlib.contextmanager
def watched(reads: Reads) -> Iterator[None]:
    """Notes what the block looks at, in threads that it starts too.

    Reads by native code are not seen: see :func:`native_modules`.
    """
    if not _State.hooked:
        sys.addaudithook(_audit)
        _State.hooked = True
    views = [os.environ, os.environb]
    plain = [type(view) for view in views]
    for view in views:
        view.__class__ = _Watched  # the same, and notes its readers
    _State.reads = reads
    threads = threading.active_count()
    try:
        yield
    finally:
        _State.reads = None
        for view, kind in zip(views, plain, strict=True):
            view.__class__ = kind
        # A thread may go on reading, and no fork would have it.
        reads.everything |= threading.active_count() > threads


def native_modules(package: str) -> list[str]:
    """The modules of a package that are native code, which reads variables unseen."""
    return [
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == package
        and not str(getattr(module, "__file__", None) or ".py").endswith(".py")
    ]


class _Watched(_Environ):
    """``os.environ`` that notes which variables are looked at; its other methods come here."""

    def __getitem__(self, key: Any) -> Any:
        _note(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _note(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        _note(key)
        super().__delitem__(key)

    def __iter__(self) -> Iterator[Any]:
        _note(None)
        return super().__iter__()

    def __len__(self) -> int:
        _note(None)
        return super().__len__()

    def __repr__(self) -> str:
        _note(None)
        return super().__repr__()

    def copy(self) -> Any:
        _note(None)
        return super().copy()


def _note(key: Any) -> None:
    """Notes a variable; None stands for all of them."""
    if _State.reads is not None:
        if key is None:
            _State.reads.everything = True
        else:
            _State.reads.names.add(os.fsdecode(key))


def _audit(event: str, _arguments: object) -> None:
    if _State.reads is not None and event in STARTING:
        _State.reads.everything = True
