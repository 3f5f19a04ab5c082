"""What a device is handed: a kernel, and a launch of it.

A kernel is machine code as text with what its compiler said of it; it comes from Triton, from HIP
source or from a code object. A launch adds the argument bytes, the memory they lead to, the grid
and the workgroup. Whoever launches turns its own argument types into bytes, so that a device reads
no language's types: see :mod:`conformance.devices.triton.arguments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from .resources import Resources

# The type of an argument as its language spells it ("*fp16", "i32", "constexpr"); tuples nest.
Kind: TypeAlias = "str | tuple[Kind, ...]"
Extent: TypeAlias = tuple[int, int, int]


@runtime_checkable
class Tensor(Protocol):
    """What is asked of a tensor: torch's has all of it."""

    @property
    def shape(self) -> Sequence[int]: ...
    def stride(self) -> Sequence[int]: ...
    def element_size(self) -> int: ...
    def numel(self) -> int: ...
    def data_ptr(self) -> int: ...


@dataclass(frozen=True)
class Span:
    """Bytes of this process's memory that a kernel may access: ``size`` from ``start`` on."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Argument:
    """One argument as the kernel reads it: little-endian bytes, and the memory they lead to.

    ``offset`` is its place in the argument segment, in bytes; None: where the kernel's metadata has
    the next of its arguments. A structure passed by value is one argument; so may be a whole
    segment, at offset 0, of a kernel whose metadata names no arguments.
    """

    name: str
    data: bytes
    spans: tuple[Span, ...] = ()
    offset: int | None = None


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel: its assembly text and what the compiler says of it.

    ``lds_bytes`` is the LDS that each of its workgroups has before a launch adds its own;
    ``num_warps`` how many waves of ``wave_size`` lanes a workgroup has as compiled. ``signature``
    is the type of every argument by name, "constexpr" where it was compiled in, and ``constants``
    the values compiled in. ``dots`` counts the matrix products of its source.
    """

    name: str
    text: str
    lds_bytes: int
    num_warps: int
    wave_size: int
    resources: Resources
    signature: Mapping[str, Kind] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    dots: int = 0

    @property
    def key(self) -> str:
        """Kernel and configuration in one line: what tells two compilations apart."""
        values = ",".join(f"{k}={short_name(v)}" for k, v in sorted(self.constants.items()))
        return f"{self.name}({','.join(self.types)})[{values},num_warps={self.num_warps}]"

    @property
    def types(self) -> list[str]:
        """The types of the arguments that are not compiled in, in order."""
        return [short_name(kind) for kind in self.signature.values() if kind != "constexpr"]

    @property
    def workgroup(self) -> Extent:
        """The workgroup it was compiled for, in lanes, where a launch has no say in it."""
        return (self.num_warps * self.wave_size, 1, 1)


@dataclass(frozen=True)
class Launch:
    """One launch: ``grid`` in workgroups, ``workgroup`` in lanes, both x, y, z.

    ``dynamic_lds`` is LDS in bytes beyond the kernel's own. ``abreast``: its waves rely on one
    another's pace where barriers order nothing. Memory that an argument leads to must stay alive
    until the launch has run.
    """

    kernel: Kernel
    grid: Extent
    workgroup: Extent
    arguments: tuple[Argument, ...] = ()
    dynamic_lds: int = 0
    abreast: bool = False

    @property
    def lanes(self) -> int:
        """Lanes of a workgroup."""
        x, y, z = self.workgroup
        return x * y * z

    @property
    def waves(self) -> int:
        """Waves of a workgroup; the last one may have lanes that do not run."""
        return -(-self.lanes // self.kernel.wave_size)

    @property
    def lds_bytes(self) -> int:
        """LDS that a workgroup has."""
        return self.kernel.lds_bytes + self.dynamic_lds


def tensor_span(name: str, tensor: Tensor) -> Span | None:
    """The bytes of a tensor's elements, from the first to the last; None if it has none.

    Raises:
        ValueError: the tensor is not in CPU memory.
    """
    place = getattr(getattr(tensor, "device", None), "type", "cpu")
    if place != "cpu":
        raise ValueError(f"argument {name} lies on {place}: an emulated device needs cpu")
    if tensor.numel() == 0:
        return None
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return Span(name, tensor.data_ptr(), (reach + 1) * tensor.element_size())


def pointer(name: str, tensor: Tensor | None) -> Argument:
    """A pointer argument: the address of a tensor, or null."""
    if tensor is None:
        return Argument(name, bytes(8))
    span = tensor_span(name, tensor)
    data = tensor.data_ptr().to_bytes(8, "little")
    return Argument(name, data, (span,) if span is not None else ())


def short_name(value: object) -> str:
    """A type or constant as one word."""
    return str(getattr(value, "__name__", value))
