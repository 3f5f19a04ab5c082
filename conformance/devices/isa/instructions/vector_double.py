"""Vector arithmetic on float64, and conversions from it.

Sources: as :mod:`.vector_float`.
"""

from __future__ import annotations

import numpy as np

from ..numbers import to_int
from ..primitives import primitive
from ..state import Lanes
from .alu import Build, Function, compare, named, vector
from .division import fma64
from .vector_float import is_of_class

U32, U64, I32, F64 = np.uint32, np.uint64, np.int32, np.float64


def _larger(a: Lanes, b: Lanes) -> Lanes:
    """Of a number and a NaN the number; +0 is larger than -0."""
    bits = a.view(U64) & b.view(U64)
    return np.where(a == b, bits.view(F64), np.fmax(a, b))


def _smaller(a: Lanes, b: Lanes) -> Lanes:
    bits = a.view(U64) | b.view(U64)
    return np.where(a == b, bits.view(F64), np.fmin(a, b))


# Native code has no frexp of float64 that knows denormals: these are interpreted.
@primitive("mantissa64")
def _mantissa(a: Lanes) -> Lanes:
    return np.frexp(a)[0]


@primitive("exponent64")
def _exponent(a: Lanes) -> Lanes:
    return np.frexp(a)[1].astype(I32)


def _class(a: Lanes, wanted: Lanes) -> Lanes:
    """By the upper word: the lower one only tells whether the fraction is zero."""
    high, low = (a >> U64(32)).astype(U32), (a & U64(0xFFFFFFFF)) != 0
    return is_of_class(high | low.astype(U32), wanted, power_bits=11, fraction_bits=20)


def _exact(function: Function) -> Build:
    """A function whose result no mode rounds."""
    return vector("f64", "f64", function, rounds=False)


DOUBLES: dict[str, Build] = {
    "v_mul_f64": vector("f64", "f64 f64", lambda a, b: a * b),
    "v_fma_f64": vector("f64", "f64 f64 f64", fma64),
    "v_fmac_f64": vector("f64", "f64 f64", fma64, accumulate=True),
    **named("v_max_f64 v_max_num_f64", vector("f64", "f64 f64", _larger, rounds=False)),
    **named("v_min_f64 v_min_num_f64", vector("f64", "f64 f64", _smaller, rounds=False)),
    "v_ldexp_f64": vector(
        "f64", "f64 i32", lambda a, n: np.ldexp(a, np.clip(n, -3000, 3000)).astype(F64)
    ),
    "v_floor_f64": _exact(np.floor),
    "v_ceil_f64": _exact(np.ceil),
    "v_trunc_f64": _exact(np.trunc),
    "v_rndne_f64": _exact(np.rint),
    "v_fract_f64": _exact(lambda a: a - np.floor(a)),
    "v_frexp_mant_f64": _exact(_mantissa),
    "v_frexp_exp_i32_f64": vector("i32", "f64", _exponent),
    "v_rcp_f64": _exact(lambda a: F64(1) / a),
    "v_sqrt_f64": _exact(np.sqrt),
    "v_rsq_f64": _exact(lambda a: F64(1) / np.sqrt(a)),
    "v_cvt_i32_f64": vector("i32", "f64", to_int(-(2**31), 2**31 - 1, I32)),
    "v_cvt_u32_f64": vector("u32", "f64", to_int(0, 2**32 - 1, U32)),
    "v_cmp_class_f64": compare("b64 u32", _class),
    "v_cmpx_class_f64": compare("b64 u32", _class, to_exec=True),
}
