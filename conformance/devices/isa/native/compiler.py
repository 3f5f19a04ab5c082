"""LLVM IR to native code in this process, by llvmlite; objects are kept on disk.

A symbol that the object needs and the process does not have would end the process when it is
linked: undefined symbols are read from the object first.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any

WORKGROUP = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 4, use_errno=False
)


class NativeError(Exception):
    """Native code could not be made or loaded; the kernel is interpreted instead."""


@lru_cache(maxsize=1)
def binding() -> Any:
    """llvmlite, made ready for this machine; NativeError says what is missing."""
    try:
        import llvmlite.binding as llvm  # noqa: PLC0415 - an extra: its absence is an answer
    except ImportError as error:
        raise NativeError(f"llvmlite is not installed ({error})") from None
    # Loops over four vectors gain nothing from these, and they take a third of the time.
    llvm.set_option("", "-disable-lsr")
    llvm.set_option("", "-enable-misched=false")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    missing = [name for name in ("f16c", "fma", "sse4.1") if not features.get(name)]
    if missing:
        raise NativeError(f"this CPU has no {', '.join(missing)}")
    return llvm


@lru_cache(maxsize=1)
def host() -> str:
    """What an object depends on besides the kernel and this package."""
    llvm = binding()
    return " ".join(
        [
            llvm.get_process_triple(),
            llvm.get_host_cpu_name(),
            llvm.get_host_cpu_features().flatten(),
            ".".join(map(str, llvm.llvm_version_info)),
        ]
    )


def _machine(level: int) -> Any:
    llvm = binding()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        jit=True,
    )


def compile_text(text: str, level: int = 2) -> bytes:
    """The object of a module; NativeError if LLVM refuses it."""
    llvm = binding()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise NativeError(f"LLVM refuses the module: {error}") from None
    made: bytes = _machine(level).emit_object(module)
    return made


class Loaded:
    """An object in memory: ``workgroup`` runs one."""

    def __init__(self, data: bytes) -> None:
        llvm = binding()
        missing = [name for name in undefined_symbols(data) if not _provided(name)]
        if missing:
            raise NativeError(f"the object needs {', '.join(missing)}, which nothing provides")
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(1))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
        address = self._engine.get_function_address("workgroup")
        if not address:
            raise NativeError("the object has no function workgroup")
        self.workgroup = WORKGROUP(address)


# What LLVM may call where the machine has no instruction for it; the C library has them.
_LIBRARY = frozenset(
    (
        *("memcpy", "memset", "memmove", "fma", "fmaf", "rint", "rintf"),
        *("trunc", "truncf", "floor", "floorf", "ceil", "ceilf"),
    )
)


def _provided(name: str) -> bool:
    """Whether a symbol can be linked; those of the C library are made known."""
    llvm = binding()
    if llvm.address_of_symbol(name) is not None:
        return True
    if name not in _LIBRARY:
        return False
    function = getattr(ctypes.CDLL(None), name, None)
    if function is None:
        return False
    llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return True


def undefined_symbols(data: bytes) -> list[str]:
    """Names that an ELF object expects from elsewhere; NativeError if it is no such object.

    The format: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.symtab.html
    """
    try:
        return _undefined(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise NativeError(f"not an object file: {error}") from None


def _undefined(data: bytes) -> list[str]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise NativeError("not an object file of this machine's format")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    found = []
    for number in range(count):
        at = table + number * size
        _, kind, _, _, start, length, link = struct.unpack_from("<IIQQQQI", data, at)
        if kind != 2:
            continue
        (names,) = struct.unpack_from("<Q", data, table + link * size + 0x18)
        for entry in range(start + 24, start + length, 24):
            name, _, _, section = struct.unpack_from("<IBBH", data, entry)
            if section == 0 and name:
                end = data.index(b"\0", names + name)
                found.append(data[names + name : end].decode())
    return found
