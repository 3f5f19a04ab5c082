"""A release's compiled host code: calls its operators, and hears what they launch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kernel import Span

# The numbers of c10::ScalarType in headers/rocm_conformance/tensor.h.
_TYPES = (
    *("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("bool", "uint16", "uint32", "uint64"),
)
_MOST_DIMENSIONS = 8
_MESSAGE = 4096


class OperatorError(RuntimeError):
    """The operator's own host code refused its arguments, in its own words."""


@dataclass(frozen=True)
class HostLaunch:
    """One launch: the kernel's symbol, its shape, and where the arguments lie during it.

    ``shared`` bytes of dynamic LDS.
    """

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    arguments: Any

    def argument(self, place: int, size: int) -> bytes:
        """The bytes of the argument at ``place``."""
        return ctypes.string_at(self.arguments[place], size)


class _TensorView(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dimensions", ctypes.c_int64),
        ("sizes", ctypes.c_int64 * _MOST_DIMENSIONS),
        ("strides", ctypes.c_int64 * _MOST_DIMENSIONS),
        ("type", ctypes.c_int32),
        ("element_size", ctypes.c_int32),
    )


class _Value(ctypes.Structure):
    _fields_ = (
        ("tensor", ctypes.POINTER(_TensorView)),
        ("integer", ctypes.c_int64),
        ("real", ctypes.c_double),
        ("text", ctypes.c_char_p),
    )


_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_size_t,
)
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)
# What memory is filled with that no kernel has written: NaN in every floating-point type.
_UNWRITTEN = 0xFF


# The target that each loaded library knows: vLLM's host code asks once which GPU it has.
_TARGETS: dict[str, str] = {}
# What the host code of each loaded library has allocated: like its GPU, it keeps that for good.
_MEMORY: dict[str, list[ctypes.Array[ctypes.c_ubyte]]] = {}


class HostCode:
    """A library of host code. It is told the device it runs on; launches go to ``launch``.

    A process has one target: what the host code learned of its GPU it never forgets.
    """

    def __init__(
        self, library: Path, target: str, lanes: int, launch: Callable[[HostLaunch], None]
    ) -> None:
        if _TARGETS.setdefault(str(library), target) != target:
            raise RuntimeError(
                f"this process runs {_TARGETS[str(library)]}: {target} needs its own"
            )
        self._library = ctypes.CDLL(str(library), handle=_opened(library))
        self._launch = launch
        self._raised: BaseException | None = None
        self._heard = _LAUNCH(self._hear)
        self._memory = _MEMORY.setdefault(str(library), [])
        self._allocated = _ALLOCATE(self._allocate)
        self._library.rocm_conformance_begin(target.encode(), lanes, self._heard, self._allocated)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The memory of tensors that the host code has made."""
        return tuple(
            Span(f"tensor {number} of the host code", ctypes.addressof(memory), len(memory))
            for number, memory in enumerate(self._memory)
        )

    def call(self, operator: str, arguments: Sequence[Any]) -> None:
        """Calls an operator: tensors on the CPU, None, numbers, strings, in its own order.

        Raises:
            OperatorError: its host code refuses the arguments.
            Exception: what ``launch`` raised; nothing is launched after that.
        """
        values = (_Value * len(arguments))(*map(_value, arguments))
        message = ctypes.create_string_buffer(_MESSAGE)
        self._raised = None
        for memory in self._memory:
            ctypes.memset(memory, _UNWRITTEN, len(memory))
        function = getattr(self._library, f"rocm_conformance_call_{operator}")
        refused = function(values, len(arguments), message, ctypes.c_size_t(_MESSAGE))
        if self._raised is not None:
            raise self._raised
        if refused:
            raise OperatorError(f"{operator}: {message.value.decode(errors='replace')}")

    def _allocate(self, size: int) -> int:
        memory = (ctypes.c_ubyte * size)()
        ctypes.memset(memory, _UNWRITTEN, size)
        self._memory.append(memory)
        return ctypes.addressof(memory)

    def _hear(self, name: bytes, grid: Any, block: Any, arguments: Any, shared: int) -> int:
        """Called from C++, which no exception may cross."""
        if self._raised is not None:
            return 1
        by, of = ((int(n[0]), int(n[1]), int(n[2])) for n in (grid, block))
        try:
            self._launch(HostLaunch(name.decode(), by, of, shared, arguments))
        except BaseException as error:
            self._raised = error
            return 1
        return 0


def _opened(library: Path) -> int:
    """A handle of the library, whose functions are bound when they are called: a file defines more
    than its operators, and what else it needs of HIP's runtime is not here."""
    own = ctypes.CDLL(None)
    own.dlopen.restype = ctypes.c_void_p
    own.dlerror.restype = ctypes.c_char_p
    handle = own.dlopen(ctypes.c_char_p(str(library).encode()), os.RTLD_LAZY | os.RTLD_LOCAL)
    if not handle:
        raise OSError(f"{library} cannot be loaded: {own.dlerror().decode()}")
    return int(handle)


def _value(argument: Any) -> _Value:
    if argument is None:
        return _Value()
    if isinstance(argument, str):
        return _Value(text=argument.encode())
    if isinstance(argument, (bool, int)):
        return _Value(integer=int(argument), real=float(argument))
    if isinstance(argument, float):
        return _Value(integer=int(argument), real=argument)
    return _Value(tensor=ctypes.pointer(_view(argument)))


def _view(tensor: Any) -> _TensorView:
    if tensor.device.type != "cpu":
        raise ValueError(f"a tensor lies on {tensor.device}: an emulated device needs cpu")
    room, kind = (ctypes.c_int64 * _MOST_DIMENSIONS), str(tensor.dtype).removeprefix("torch.")
    return _TensorView(
        tensor.data_ptr(),
        tensor.dim(),
        room(*tensor.shape),
        room(*tensor.stride()),
        _TYPES.index(kind),
        tensor.element_size(),
    )
