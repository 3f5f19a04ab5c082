"""Modifiers of an instruction that nothing asked about: what they mean would be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...assembly import Instruction
from ..target import UnknownError

# How caches are used, of which results do not depend: in every generation's words.
_CACHES = frozenset(("glc", "slc", "dlc", "nt", "nv", "sc0", "sc1", "th", "scope"))
# What says that something is as usual.
_USUAL = {
    **dict.fromkeys(("src0_sel", "src1_sel", "dst_sel"), ("DWORD",)),
    "dst_unused": ("UNUSED_PAD",),
    **dict.fromkeys(("op_sel", "neg_lo", "neg_hi"), ("[0]", "[0,0]", "[0,0,0]", "[0,0,0,0]")),
    "op_sel_hi": ("[1]", "[1,1]", "[1,1,1]"),
}


class Heeded(dict[str, str]):
    """Modifiers that remember which of them were asked about, in what is left of them too."""

    def __init__(self, given: Mapping[str, str], asked: set[str] | None = None) -> None:
        super().__init__(given)
        self.asked: set[str] = set() if asked is None else asked

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def without(modifiers: Mapping[str, str], *names: str) -> dict[str, str]:
    """Modifiers without those that have been heeded."""
    kept = {name: value for name, value in modifiers.items() if name not in names}
    if not isinstance(modifiers, Heeded):
        return kept
    modifiers.asked.update(names)
    return Heeded(kept, modifiers.asked)


def refuse_others(ins: Instruction, heeded: Heeded) -> None:
    """Raises UnknownError if a modifier was never asked about, and changes results."""
    for name, value in ins.modifiers.items():
        if name not in heeded.asked | _CACHES and value not in _USUAL.get(name, ()):
            told = f"{name}:{value}" if value else name
            raise UnknownError(f"modifier {told} of {ins.mnemonic}")
