"""What a release's own source says: the words of its questions, its backends, and where.

The files are read, not imported. A release without one of them is not the less blessed: its base's
words are taken, and the draft says so.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vllm_editions import Edition
from vllm_editions.changes import Edit

SELECTOR = "v1/attention/selector.py"
CACHE = "config/cache.py"
REGISTRY = "v1/attention/backends/registry.py"
PLATFORM = "platforms/rocm.py"
CHECKS = "v1/attention/backend.py"
# Backends of other makers are in the same enumeration; these are looked at even if none is ever
# a candidate.
OURS = "ROCM_"
# The member of a class that says what it supports, by the field of an edition.
MEMBERS = {
    "head_sizes": "get_supported_head_sizes",
    "min_head_size": "supports_head_size",
    "dtypes": "supported_dtypes",
    "kv_cache_dtypes": "supported_kv_cache_dtypes",
    "kv_cache_dtype_required": "supports_kv_cache_dtype",
    "block_sizes": "get_supported_kernel_block_sizes",
    "mm_prefix": "supports_mm_prefix",
    "mla": "is_mla",
    "sparse": "is_sparse",
    "sinks": "supports_sink",
    "attn_types": "supports_attn_type",
    "per_head_quant_scales": "supports_per_head_quant_scales",
    "sliding_window": "supports_sliding_window",
    "non_causal": "supports_non_causal",
    "batch_invariant": "supports_batch_invariance",
    "kv_connector": "supports_kv_connector",
    "rswa": "supports_rswa",
    "only_on": "supports_compute_capability",
    "refuses": "supports_combination",
}
FUNCTIONS = {
    "candidates": "_get_backend_priorities",
    "vit": "get_vit_attn_backend",
    "paged_attention": "use_rocm_custom_paged_attention",
    "selection": "get_attn_backend_cls",
}


@dataclass(frozen=True)
class Facts:
    """What a release can be asked; ``notes`` are what could not be read.

    ``backends`` has the module of each backend's class, "" where that is not known.
    """

    fields: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    backends: dict[str, str]
    root: Path | None = None
    notes: tuple[str, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)

    def source(self, edit: Edit, release: str) -> str:
        """The line where a row's reader should begin to look: a guess, to be confirmed."""
        path, line = self._place(edit)
        return f"https://github.com/vllm-project/vllm/blob/v{release}/vllm/{path}#L{line}"

    def _place(self, edit: Edit) -> tuple[str, int]:
        top, _, rest = edit.path.partition(".")
        if top == "asked":
            file = {"fields": SELECTOR, "kv_cache_dtypes": CACHE}.get(rest, PLATFORM)
            return file, max([1, *(self.lines.get(str(name), 1) for name in edit.add)])
        if top == "backends":
            backend, _, entry = rest.partition(".")
            file = self.backends.get(backend, "") or REGISTRY
            member = MEMBERS.get(entry, "")
            found = member and (
                self._line(file, f"def {member}(") or self._line(file, f"{member}:")
            )
            return file, found or self._line(file, "class ") or 1
        if edit.path.startswith("selection.checks"):
            words = [str(entry["reason"]) for entry in edit.add if isinstance(entry, dict)]
            return CHECKS, next((at for word in words if (at := self._line(CHECKS, word))), 1)
        function = FUNCTIONS.get(top, FUNCTIONS["selection"])
        return PLATFORM, self._line(PLATFORM, f"def {function}(") or 1

    def _line(self, file: str, text: str) -> int:
        """The number of the first line that contains a text; 0 if there is none."""
        path = self.root / file if self.root else None
        if path is None or not path.is_file():
            return 0
        lines = path.read_text(encoding="utf-8").splitlines()
        return next((number for number, line in enumerate(lines, 1) if text in line), 0)


def facts_of_source(root: Path | None, fields: tuple[str, ...], base: Edition) -> Facts:
    """Reads a release's files; ``fields`` is what its selector says it takes."""
    notes: list[str] = []
    lines: dict[str, int] = {}
    dtypes = _read(root, CACHE, _cache_dtypes, notes, "KV-cache dtypes") or dict.fromkeys(
        base.asked.kv_cache_dtypes, 1
    )
    lines.update(dtypes)
    lines.update(_read(root, SELECTOR, _fields, notes, "request fields"))
    members = _read(root, REGISTRY, _members, notes, "backends")
    backends = dict.fromkeys(base.backends, "")
    if members:
        backends = {name: _module(path) for name, path in members.items()}
    known = fields or base.asked.fields
    return Facts(known, tuple(dtypes), backends, root, tuple(notes), lines)


def _module(path: str) -> str:
    """``vllm.v1.attention.backends.x.Backend`` -> ``v1/attention/backends/x.py``."""
    module = path.rpartition(".")[0].removeprefix("vllm.")
    return f"{module.replace('.', '/')}.py" if module else ""


ValueT = TypeVar("ValueT")


def _read(
    root: Path | None,
    file: str,
    reader: Callable[[ast.Module], dict[str, ValueT]],
    notes: list[str],
    what: str,
) -> dict[str, ValueT]:
    """What a file says by name; {} and a note if it is not there or says nothing."""
    found: dict[str, ValueT] = {}
    path = root / file if root else None
    if path is not None and path.is_file():
        found = reader(ast.parse(path.read_text(encoding="utf-8")))
    if root is not None and not found:
        notes.append(f"{file} says no {what}: those of the base are taken")
    return found


def _cache_dtypes(module: ast.Module) -> dict[str, int]:
    """The names in ``CacheDType = Literal[...]``, each with its line."""
    for node in module.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and "CacheDType" in _targets(node):
            constants = (c for c in ast.walk(node) if isinstance(c, ast.Constant))
            return {c.value: c.lineno for c in constants if isinstance(c.value, str)}
    return {}


def _fields(module: ast.Module) -> dict[str, int]:
    """The fields of ``AttentionSelectorConfig``, each with its line."""
    statements = _class_body(module, "AttentionSelectorConfig")
    return {
        node.target.id: node.lineno
        for node in statements
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _members(module: ast.Module) -> dict[str, str]:
    """The members of ``AttentionBackendEnum``, each with the path of its class, or ""."""
    found = {}
    for node in _class_body(module, "AttentionBackendEnum"):
        if isinstance(node, ast.Assign):
            path = node.value.value if isinstance(node.value, ast.Constant) else None
            found.update(dict.fromkeys(_targets(node), path if isinstance(path, str) else ""))
    return found


def _class_body(module: ast.Module, name: str) -> Iterator[ast.stmt]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            yield from node.body


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]
