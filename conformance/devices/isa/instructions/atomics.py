"""Atomic operations: what becomes of the old value, by the names that instructions have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..numbers import from_bf16, from_half, to_bf16, to_half
from ..state import Lanes

U32, F32 = np.uint32, np.float32

ATOMIC_NAMES = {
    "add": "add_u32 add",
    "sub": "sub_u32 sub",
    "swap": "swap_b32 swap",
    "and": "and_b32 and",
    "or": "or_b32 or",
    "xor": "xor_b32 xor",
    "umax": "max_u32 umax",
    "umin": "min_u32 umin",
    "smax": "max_i32 smax",
    "smin": "min_i32 smin",
    "add_f32": "add_f32",
    "pk_add_f16": "pk_add_f16",
    "pk_add_bf16": "pk_add_bf16",
    "max_f32": "max_f32 fmax max_num_f32",
    "min_f32": "min_f32 fmin min_num_f32",
    "cmpswap": "cmpswap_b32 cmpswap",
}

ATOMICS: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "swap": lambda _old, new: new,
    "and": lambda old, new: old & new,
    "or": lambda old, new: old | new,
    "xor": lambda old, new: old ^ new,
    "umax": np.maximum,
    "umin": np.minimum,
    "smax": lambda old, new: np.maximum(old.view(np.int32), new.view(np.int32)).view(U32),
    "smin": lambda old, new: np.minimum(old.view(np.int32), new.view(np.int32)).view(U32),
    "add_f32": lambda old, new: (old.view(F32) + new.view(F32)).view(U32),
    "pk_add_f16": lambda old, new: _pair_sum(old, new, from_half, to_half),
    "pk_add_bf16": lambda old, new: _pair_sum(old, new, from_bf16, to_bf16),
    "max_f32": lambda old, new: np.fmax(old.view(F32), new.view(F32)).view(U32),
    "min_f32": lambda old, new: np.fmin(old.view(F32), new.view(F32)).view(U32),
}


def _pair_sum(old: Lanes, new: Lanes, decode: Any, encode: Any) -> Lanes:
    low = encode(decode(old & U32(0xFFFF)) + decode(new & U32(0xFFFF)))
    high = encode(decode(old >> U32(16)) + decode(new >> U32(16)))
    return low | (high << U32(16))
