"""Code objects that ship as files (``.co``): read into the assembly text that devices are handed.

LLVM's tools read the file: headers, symbols and the metadata note by llvm-readobj, the kernel's
descriptor and its instructions by llvm-objdump. What a file says is
https://llvm.org/docs/AMDGPUUsage.html#elf-code-object. Where a branch goes is taken from its
encoding, because labels may be stripped.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..assembly import parse_program
from ..kernel import Kernel, Kind
from ..resources import resources_of
from ..spelling import DeviceName
from .clang import find_clang

_MAGIC = b"\x7fELF"
_MACHINE = "EM_AMDGPU"
_TARGET_FLAG = "EF_AMDGPU_MACH_AMDGCN_"
_HEADING = re.compile(r"^([0-9a-f]{16}) <(.+)>:$")
_CODE = re.compile(r"^\t(.*?)\s*// ([0-9A-F]{12}): ([0-9A-F ]+?)\s*(?:<.*>)?$")
_BRANCH = re.compile(r"^(s_c?branch\w*|s_call_b64)\s")
# An argument that only fills the layout up.
_PADDING = "pad"
_PATIENCE = 120  # seconds
# Vector registers are handed out by eights, and a SIMD holds eight waves at most (CDNA 3).
_REGISTERS_BY, _MOST_WAVES = 8, 8


class CodeObjectError(Exception):
    """A file is no code object that can be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class ArgumentPlace:
    """Where a kernel has an argument: byte ``offset`` in the segment and ``size`` in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class CodeObject:
    """One kernel of a file.

    ``sha256`` is the file's. ``arguments`` are those of the kernel's metadata, in order, without
    what only fills up the layout. ``workgroup``: the lanes that it must be launched with, or 0.
    """

    path: Path
    sha256: str
    target: str
    symbol: str
    text: str
    arguments: tuple[ArgumentPlace, ...]
    workgroup: int

    @property
    def name(self) -> str:
        """As reports show it: the file and the start of its digest."""
        return f"{self.path.name} (sha256 {self.sha256})"

    def as_kernel(self, device: DeviceName) -> Kernel:
        """As devices are handed it.

        Raises:
            CodeObjectError: it is for another target than the device's.
        """
        if self.target != device.target:
            raise CodeObjectError(
                f"{self.path} is for {self.target}: expected a code object for {device.target}"
            )
        descriptor = parse_program(self.text, self.symbol).descriptor
        lanes, lds = device.facts.wave_size, descriptor.get("group_segment_fixed_size", 0)
        waves = -(-self.workgroup // lanes)
        taken = -(-max(descriptor.get("next_free_vgpr", 1), 1) // _REGISTERS_BY) * _REGISTERS_BY
        by_registers = min(device.facts.family.vgprs // taken, _MOST_WAVES)
        by_lds = device.facts.lds_pool // lds * waves // device.facts.family.simds if lds else 8
        resources = replace(
            resources_of(self.text, lds, waves, device.facts),
            occupancy=min(by_registers, max(by_lds, 1)),
        )
        # Padding counts where resources count it, in the metadata.
        arguments: dict[str, Kind] = {f"argument {n}": "bytes" for n in range(resources.arguments)}
        return Kernel(self.path.stem, self.text, lds, waves, lanes, resources, arguments)


def read_code_object(path: Path, target: str = "", symbol: str = "") -> CodeObject:
    """Reads the kernel ``symbol`` of a file, or the only one; ``target``: what it must be for.

    Raises:
        CodeObjectError: it cannot be read, is cut off, is for something else, or has no such
            kernel; the message names the file and says which.
        ClangMissingError: LLVM's tools are not here.
    """
    return _read(path, target, symbol, hashlib.sha256(_bytes(path)).hexdigest())


@lru_cache(maxsize=64)
def _read(path: Path, target: str, symbol: str, sha256: str) -> CodeObject:
    """Reads a file of this digest; the same file is read once."""
    described = _described(path)
    found = _target(path, described["ElfHeader"])
    if target and found != target:
        raise CodeObjectError(f"{path} is for {found}: expected a code object for {target}")
    notes = _metadata(path, described)
    # The note is YAML whose mappings have their keys in alphabetical order.
    entries = {_value(one, "name"): one for one in _kernels(notes)}
    if symbol not in entries and (symbol or len(entries) != 1):
        raise CodeObjectError(
            f"{path} holds the kernels {', '.join(sorted(entries)) or 'none'}: expected "
            f"{symbol or 'one'}"
        )
    symbol = symbol or next(iter(entries))
    entry = entries[symbol]
    sections = {name: _disassembled(path, found, name) for name in (".rodata", ".text")}
    descriptor = _descriptor(path, symbol, sections[".rodata"], entry)
    code = "\n".join(_instructions(path, symbol, sections[".text"], set(entries)))
    text = (
        f'\t.amdgcn_target "amdgcn-amd-amdhsa--{found}"\n{code}\n{descriptor}\n'
        f"\t.amdgpu_metadata\n---\namdhsa.kernels:\n{entry}...\n"
    )
    return CodeObject(
        path=path,
        sha256=sha256,
        target=found,
        symbol=symbol,
        text=text,
        arguments=tuple(_places(entry)),
        workgroup=int(_value(entry, "max_flat_workgroup_size") or 0),
    )


# -- headers and metadata --------------------------------------------------------------------------
def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CodeObjectError(f"{path} cannot be read: {error.strerror}") from None
    if not data.startswith(_MAGIC):
        raise CodeObjectError(f"{path} is no ELF file: expected a code object for an AMD GPU")
    return data


def _tool(name: str, *arguments: str) -> tuple[str, str]:
    """What an LLVM tool says, and its first error, without the tool's own name."""
    done = subprocess.run(
        [find_clang().tool(name), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE,
        check=False,
    )
    error = next(iter(done.stderr.splitlines()), "")
    failed = done.returncode != 0 or "error:" in error
    return done.stdout, (error.partition("error: ")[2] or error or "it failed") if failed else ""


def _described(path: Path) -> Mapping[str, Any]:
    said, error = _tool(
        "llvm-readobj", "--elf-output-style=JSON", "--file-headers", "--notes", str(path)
    )
    if error:
        raise CodeObjectError(f"{path} is damaged or cut off: {error}")
    try:
        described: Mapping[str, Any] = json.loads(said)[0]
        described["ElfHeader"]["Machine"]["Name"]
    except (ValueError, LookupError, TypeError):
        raise CodeObjectError(f"{path} is damaged: its headers cannot be read") from None
    return described


def _target(path: Path, header: Mapping[str, Any]) -> str:
    """The target that the file's header names: ``gfx942``."""
    machine = header["Machine"]["Name"]
    if machine != _MACHINE:
        raise CodeObjectError(f"{path} is for the machine {machine}: expected an AMD GPU's")
    flags = [flag["Name"] for flag in header["Flags"]["Flags"]]
    named = [flag.removeprefix(_TARGET_FLAG) for flag in flags if flag.startswith(_TARGET_FLAG)]
    if len(named) != 1:
        raise CodeObjectError(f"{path} names no target that this LLVM knows: {flags}")
    return str(named[0].lower())


def _metadata(path: Path, described: Mapping[str, Any]) -> str:
    """The text of the metadata note, wherever llvm-readobj puts it."""
    texts = [text for text in _strings(described) if "amdhsa.kernels:" in text]
    if not texts:
        raise CodeObjectError(f"{path} has no metadata of kernels: expected the note AMDGPU")
    return texts[0]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _kernels(notes: str) -> list[str]:
    """The entry of each kernel."""
    listed = notes.partition("amdhsa.kernels:\n")[2]
    listed = re.split(r"^(?:amdhsa\.|\.\.\.)", listed, maxsplit=1, flags=re.M)[0]
    return re.split(r"^(?=  - )", listed, flags=re.M)[1:]


def _value(entry: str, key: str) -> str:
    """A scalar of a kernel's own, not of one of its arguments."""
    match = re.search(rf"^(?:    |  - )\.{key}:\s+(\S+)$", entry, re.M)
    return match.group(1).strip("'\"") if match else ""


def _places(entry: str) -> Iterator[ArgumentPlace]:
    args = re.search(r"^(?:    |  - )\.args:\s*\n((?:      .*\n)*)", entry, re.M)
    for one in re.split(r"^\s+- ", args.group(1) if args else "", flags=re.M)[1:]:
        values = dict(re.findall(r"\.(\w+):\s*(\S+)", one))
        name = values.get("name", "")
        if name != _PADDING:
            yield ArgumentPlace(name, int(values["offset"]), int(values["size"]))


# -- the descriptor and the code -------------------------------------------------------------------
def _disassembled(path: Path, target: str, section: str) -> str:
    said, error = _tool("llvm-objdump", "-D", "-j", section, f"--mcpu={target}", str(path))
    if error:
        raise CodeObjectError(f"{path} is damaged: {error}")
    return said


def _descriptor(path: Path, symbol: str, text: str, entry: str) -> str:
    """The kernel's directives; assemblers leave the size of its arguments to the metadata."""
    match = re.search(
        rf"^\.amdhsa_kernel {re.escape(symbol)}\n.*?^\.end_amdhsa_kernel$", text, re.S | re.M
    )
    if match is None:
        raise CodeObjectError(f"{path} has no readable descriptor of {symbol}")
    size = _value(entry, "kernarg_segment_size")
    return re.sub(r"(\.amdhsa_kernarg_size) 0$", rf"\1 {size}", match.group(0), flags=re.M)


@dataclass(frozen=True)
class _Line:
    """One instruction where it stands, with its encoding in words."""

    at: int
    text: str
    words: tuple[str, ...]

    @property
    def goal(self) -> int:
        """Where a branch goes: its distance in words, from the instruction after it."""
        distance = int(self.words[0], 16) & 0xFFFF
        return self.at + 4 + 4 * (distance - 0x10000 if distance & 0x8000 else distance)


def _instructions(path: Path, symbol: str, text: str, kernels: set[str]) -> Iterator[str]:
    """The kernel's lines, from its own symbol to that of the next one, with labels."""
    starts, lines = {}, []
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            starts[heading.group(2)] = int(heading.group(1), 16)
        elif code := _CODE.match(line):
            lines.append(_Line(int(code.group(2), 16), code.group(1), tuple(code.group(3).split())))
    if symbol not in starts:
        raise CodeObjectError(f"{path} has no code of {symbol}")
    start = starts[symbol]
    others = [at for name, at in starts.items() if name in kernels and at > start]
    end = min(others, default=max((line.at for line in lines), default=start) + 1)
    own = [line for line in lines if start <= line.at < end]
    goals = {line.goal for line in own if _BRANCH.match(line.text)}
    places = {line.at for line in own}
    if lost := sorted(goals - places):
        raise CodeObjectError(f"{path} branches to {lost[0]:#x}, where it has no instruction")
    yield f"{symbol}:"
    for each in own:
        if each.at in goals:
            yield f".L{each.at:x}:"
        yield f"\t{_readable(each)}"
    yield ".Lfunc_end0:"
    yield f"; codeLenInByte = {sum(4 * len(line.words) for line in own)}"


def _readable(line: _Line) -> str:
    """An instruction with its goal as a label; what LLVM cannot decode keeps its bits as a name,
    so that it stops whoever reaches it."""
    if _BRANCH.match(line.text):
        return re.sub(r"\S+$", f".L{line.goal:x}", line.text)
    if line.text.startswith((".", "<")):
        return f"undecodable_{'_'.join(line.words).lower()}"
    return line.text
