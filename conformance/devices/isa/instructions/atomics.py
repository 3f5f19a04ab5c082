"""Atomic operations: what becomes of the old value, by the names that instructions have.

Hardware guarantees no more than some order of lanes; here the lowest comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..numbers import from_bf16, from_half, to_bf16, to_half
from ..state import Lanes
from .access import Places

U32, U64, F32 = np.uint32, np.uint64, np.float32
Change = Callable[[Lanes, Lanes], Lanes]


@dataclass(frozen=True)
class Atomic:
    """One operation on ``size`` bytes: unsigned integers of that size, old and given, to new.

    ``change`` is None where the given value is stored if the old one equals another.
    """

    size: int
    change: Change | None

    @property
    def words(self) -> int:
        return self.size // 4


def _signed(function: Change) -> Change:
    def change(old: Lanes, new: Lanes) -> Lanes:
        kind = f"i{old.itemsize}"
        return function(old.view(kind), new.view(kind)).view(old.dtype)

    return change


def _float(function: Change) -> Change:
    def change(old: Lanes, new: Lanes) -> Lanes:
        kind = f"f{old.itemsize}"
        return function(old.view(kind), new.view(kind)).view(old.dtype)

    return change


def _pair_sum(decode: Callable[[Lanes], Lanes], encode: Callable[[Lanes], Lanes]) -> Change:
    def change(old: Lanes, new: Lanes) -> Lanes:
        low = encode(decode(old) + decode(new))
        high = encode(decode(old >> U32(16)) + decode(new >> U32(16)))
        return low | (high << U32(16))

    return change


def _add(old: Lanes, new: Lanes) -> Lanes:
    return old + new


def _sub(old: Lanes, new: Lanes) -> Lanes:
    return old - new


def _reverse_sub(old: Lanes, new: Lanes) -> Lanes:
    return new - old


def _sub_to_zero(old: Lanes, new: Lanes) -> Lanes:
    return np.where(old < new, old.dtype.type(0), old - new)


def _increment(old: Lanes, most: Lanes) -> Lanes:
    """Counts up to ``most`` and then from 0 again."""
    return np.where(old >= most, old.dtype.type(0), old + old.dtype.type(1))


def _decrement(old: Lanes, most: Lanes) -> Lanes:
    """Counts down to 0 and then from ``most`` again."""
    return np.where((old == 0) | (old > most), most, old - old.dtype.type(1))


def _swap(_old: Lanes, new: Lanes) -> Lanes:
    return new


_INTEGERS: dict[str, tuple[str, Change]] = {
    "add": ("u", _add),
    "sub": ("u", _sub),
    "swap": ("b", _swap),
    "and": ("b", lambda old, new: old & new),
    "or": ("b", lambda old, new: old | new),
    "xor": ("b", lambda old, new: old ^ new),
    "umax": ("u", np.maximum),
    "umin": ("u", np.minimum),
    "smax": ("i", _signed(np.maximum)),
    "smin": ("i", _signed(np.minimum)),
    "inc": ("u", _increment),
    "dec": ("u", _decrement),
}
_FLOATS: dict[str, Atomic] = {
    "add_f32": Atomic(4, _float(_add)),
    "pk_add_f16": Atomic(4, _pair_sum(from_half, to_half)),
    "pk_add_bf16": Atomic(4, _pair_sum(from_bf16, to_bf16)),
    **dict.fromkeys(("max_f32", "fmax", "max_num_f32"), Atomic(4, _float(np.fmax))),
    **dict.fromkeys(("min_f32", "fmin", "min_num_f32"), Atomic(4, _float(np.fmin))),
    "add_f64": Atomic(8, _float(_add)),
    **dict.fromkeys(("max_f64", "max_num_f64"), Atomic(8, _float(np.fmax))),
    **dict.fromkeys(("min_f64", "min_num_f64"), Atomic(8, _float(np.fmin))),
}


def _integers(bits: int, old_suffix: str) -> dict[str, Atomic]:
    """The operations under RDNA3's names (add_u32) and the older ones (add, add_x2)."""
    table = {}
    for name, (kind, change) in _INTEGERS.items():
        plain = name[1:] if name in ("umax", "umin", "smax", "smin") else name
        for known in (f"{plain}_{kind}{bits}", name + old_suffix):
            table[known] = Atomic(bits // 8, change)
    return table


# By what follows global_atomic_, buffer_atomic_ or flat_atomic_.
GLOBAL_ATOMICS: dict[str, Atomic] = {
    **_integers(32, ""),
    **_integers(64, "_x2"),
    **dict.fromkeys(("csub", "csub_u32", "sub_clamp_u32"), Atomic(4, _sub_to_zero)),
    **dict.fromkeys(("cmpswap", "cmpswap_b32"), Atomic(4, None)),
    **dict.fromkeys(("cmpswap_x2", "cmpswap_b64"), Atomic(8, None)),
    **_FLOATS,
}


def _lds_atomics() -> dict[str, Atomic]:
    table: dict[str, Atomic] = {}
    for bits in (32, 64):
        for name, (kind, change) in _INTEGERS.items():
            if name == "swap":
                continue
            plain = name[1:] if name in ("umax", "umin", "smax", "smin") else name
            table[f"{plain}_{kind}{bits}"] = Atomic(bits // 8, change)
        table[f"rsub_u{bits}"] = Atomic(bits // 8, _reverse_sub)
        for name in ("wrxchg", "storexchg"):
            table[f"{name}_b{bits}"] = Atomic(bits // 8, _swap)
        for name in ("cmpst", "cmpstore"):
            table[f"{name}_b{bits}"] = Atomic(bits // 8, None)
    return {**table, **{name: one for name, one in _FLOATS.items() if name not in ("fmax", "fmin")}}


# By what follows ds_, without rtn_.
LDS_ATOMICS: dict[str, Atomic] = _lds_atomics()


def in_turn(
    atomic: Atomic,
    places: Places,
    values: Lanes,
    load: Callable[[Places], Lanes],
    store: Callable[[Places, Lanes], None],
) -> Lanes:
    """Applies an atomic in the order of lanes; distinct addresses go at once.

    ``values`` (uint32 [words, lanes]) are the given words, then those to compare with where it
    compares. ``load`` and ``store`` take numbers of lanes and deal in uint32 [words, lanes].
    Returns the old values, likewise.
    """
    words = atomic.words
    given = _joined(values[:words])
    old = np.empty((words, places.size), dtype=U32)
    left = np.arange(places.size)
    while left.size:
        _, first = np.unique(places[left], return_index=True)
        now = left[np.sort(first)]
        held = load(now)
        before = _joined(held)
        if atomic.change is None:
            after = np.where(before == _joined(values[words:])[now], given[now], before)
        else:
            after = atomic.change(before, given[now])
        store(now, _apart(after))
        old[:, now] = held
        left = np.setdiff1d(left, now, assume_unique=True)
    return old


def _joined(rows: Lanes) -> Lanes:
    """Words as numbers of 32 or 64 bits: [lanes]."""
    if len(rows) == 1:
        return rows[0]
    return rows[0] | (rows[1].astype(U64) << 32)


def _apart(values: Lanes) -> Lanes:
    """Numbers of 32 or 64 bits as two words, of which a store takes as many as it has bytes."""
    return np.stack([values.astype(U32), (values >> U64(32)).astype(U32)])
