"""Where a release's sources define an operator, and what of a file its kernels do not need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# The operators of ROCM_OCTAVE, which releases have from 0.33 on.
OCTAVE = ("octave_cache_store", "octave_decode", "octave_rotate", "octave_prefill")
# Of each operator the files that have defined it, newest first: vLLM moves its host code to
# torch's stable API file by file.
FILES = {
    "paged_attention": (
        *("csrc/libtorch_stable/rocm/attention.cu", "csrc/rocm/attention_dispatch.cu"),
        "csrc/rocm/attention.cu",
    ),
    **dict.fromkeys(
        ("reshape_and_cache", "reshape_and_cache_flash", "concat_and_cache_mla"),
        ("csrc/libtorch_stable/cache_kernels.cu", "csrc/cache_kernels.cu"),
    ),
    **dict.fromkeys(OCTAVE, ("csrc/attention/octave_attn.cu",)),
}
# Files beside one of these that hold host code of its operators: what each of a table launches.
PARTS = {
    "csrc/rocm/attention_dispatch.cu": "attention_paged_attn_*.cu",
    "csrc/attention/octave_attn.cu": "octave_*.cu",
}
# Files in which all kernels, in a namespace, stand before the host code, of which a macro cannot
# hide all: it has functions that give a value, and names the launches by macros.
KERNELS_FIRST = re.compile(r"csrc/attention/octave_\w+\.cu")
# What the release's own build adds to a file's flags (CMakeLists.txt#L397 of 0.33).
FILE_FLAGS = {
    "csrc/attention/octave_decode_mfma_cdna.cu": ("-mllvm", "-amdgpu-mfma-vgpr-form"),
}
# Where the release's Python code calls them: torch.ops.<namespace>.<operator>.
NAMESPACES = {"paged_attention": "_rocm_C", **dict.fromkeys(OCTAVE, "_C")}
USUAL_NAMESPACE = "_C_cache_ops"
_BINDINGS = (
    "csrc/attention/octave_torch_bindings.cpp",
    "csrc/rocm/torch_bindings.cpp",
    "csrc/libtorch_stable/torch_bindings.cpp",
    "csrc/torch_bindings.cpp",
)
_SCHEMA = re.compile(r"\bdef\(\s*((?:\"[^\"]*\"\s*)+)\)")
_FUNCTION = re.compile(r"^void (\w+)\(", re.M)
_COMMENT = re.compile(r"^\s*//.*$", re.M)


class NoSourceError(Exception):
    """The release's sources define no such operator where it is looked for."""


@dataclass(frozen=True)
class Unit:
    """One file of a release's unpacked source distribution. ``file`` is relative to ``root``."""

    root: Path
    file: str

    @property
    def text(self) -> str:
        return (self.root / self.file).read_text(encoding="utf-8")

    @property
    def parts(self) -> list[str]:
        """The files that hold host code besides, relative to ``root``."""
        folder = (self.root / self.file).parent
        found = sorted(folder.glob(PARTS[self.file])) if self.file in PARTS else []
        names = [path.relative_to(self.root).as_posix() for path in found]
        return [name for name in names if name != self.file]

    @property
    def whole(self) -> str:
        """The text of all the files."""
        parts = (Unit(self.root, file).text for file in self.parts)
        return "\n".join((self.text, *parts))

    def of_kernel(self, instance: str) -> Unit:
        """The one of the files that defines a kernel, by its demangled signature."""
        match = re.match(r"(?:void )?(?:(\w+)::)?(\w+)", instance)
        assert match is not None
        space, name = match.groups()
        for file in self.parts if space else ():
            part = Unit(self.root, file)
            opened = re.search(rf"^namespace {space}\b", part.text, re.M)
            if opened and re.search(rf"__global__[^;{{]*\b{name}\s*\(", part.text):
                return part
        return self


def unit_of(root: Path, operator: str) -> Unit:
    """The file that defines an operator."""
    for file in FILES.get(operator, ()):
        if (root / file).is_file():
            return Unit(root, file)
    raise NoSourceError(f"{root.name} has no file known to define the operator {operator}")


def later_operators(root: Path) -> tuple[str, ...]:
    """Those operators of the release that not all have."""
    return tuple(name for name in OCTAVE if any((root / file).is_file() for file in FILES[name]))


def schema_of(root: Path, operator: str) -> str:
    """An operator's schema, as the release declares it to torch."""
    for file in _BINDINGS:
        path = root / file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for match in _SCHEMA.finditer(text):
            schema = "".join(re.findall(r'"([^"]*)"', match.group(1)))
            if schema.startswith(f"{operator}("):
                return re.sub(r"\s+", " ", schema)
    raise NoSourceError(f"{root.name} declares no operator {operator} to torch")


def host_source(unit: Unit, operators: tuple[str, ...]) -> str:
    """The host code of a file, with a C function for each operator that is to be called."""
    lines = ["#include <rocm_conformance/runtime.h>"]
    lines += [f'#include "{file}"' for file in (*unit.parts, unit.file)]
    lines.append("#include <rocm_conformance/operators.h>")
    for operator in operators:
        lines.append(
            f'extern "C" int rocm_conformance_call_{operator}(const rocm_conformance::Value* '
            "values, int count, char* message, size_t room) { return rocm_conformance::invoke("
            f"&{operator}, values, count, message, room); }}"
        )
    return "\n".join(lines) + "\n"


def device_source(unit: Unit, instance: str) -> str:
    """One kernel of a file: ``instance`` is its demangled signature.

    Host functions of the file are hidden from the compiler, which would otherwise make every
    kernel that they can launch: a macro turns the head of each into a declaration of something
    else and the rest into a template that nobody uses.
    """
    instantiated = [f"template __global__ {instance};"] if "<" in instance else []
    if KERNELS_FIRST.fullmatch(unit.file):
        return "\n".join((_before_host_code(unit), *instantiated)) + "\n"
    hidden = host_functions(unit.text)
    lines = [
        f"#define {name}(...) rocm_conformance_hidden_{name}(); template <int> "
        f"void rocm_conformance_never_{name}(__VA_ARGS__)"
        for name in hidden
    ]
    lines.append(f'#include "{unit.file}"')
    lines += [f"#undef {name}" for name in hidden]
    return "\n".join([*lines, *instantiated]) + "\n"


def _before_host_code(unit: Unit) -> str:
    """A file up to the end of its last namespace, with what it includes from its own folder."""
    text = unit.text
    end = [match.end() for match in re.finditer(r"^}  // namespace \w+$", text, re.M)][-1]
    kept = text[:end]
    begun, ended = (len(re.findall(rf"^ *#\s*{word}", kept, re.M)) for word in ("if", "endif"))
    folder = Path(unit.file).parent
    beside = re.compile(r'(#\s*include\s+")(\w+\.cuh")')
    return beside.sub(rf"\g<1>{folder}/\g<2>", kept) + "\n#endif" * (begun - ended)


def host_functions(text: str) -> list[str]:
    """The host functions at the outermost level that can be hidden: no templates, no kernels.

    One that shares its name with a kernel cannot: a macro knows no namespaces.
    """
    found = []
    for match in _FUNCTION.finditer(text):
        name = match.group(1)
        before = _COMMENT.sub("", text[: match.start()]).rstrip()
        is_plain = not before or before[-1] in "};" or before.splitlines()[-1].startswith("#")
        if is_plain and not re.search(rf"\b{name}\s*<", text):
            found.append(name)
    return list(dict.fromkeys(found))
