"""Vector arithmetic on float16 beyond sums and products, each through float32.

Sources: as :mod:`.vector_float`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..elementary import log2
from ..numbers import max_num, maximum, min_num, minimum
from .alu import Build, Function, compare, named, vector
from .vector_float import cos_turns, is_of_class, med3, sin_turns

U32, I32, F32 = np.uint32, np.int32, np.float32


def _three(one: Function, two: Function) -> Build:
    return vector(
        "f16", "f16 f16 f16", lambda a, b, c: two(one(a, b), c), rounds=False, preserve=True
    )


def _exact(function: Function) -> Build:
    """A function whose result no mode rounds."""
    return vector("f16", "f16", function, rounds=False)


_half_class = partial(is_of_class, power_bits=5, fraction_bits=10)

HALVES: dict[str, Build] = {
    **named("v_max3_f16 v_max3_num_f16", _three(max_num, max_num)),
    **named("v_min3_f16 v_min3_num_f16", _three(min_num, min_num)),
    **named("v_maxmin_f16 v_maxmin_num_f16", _three(max_num, min_num)),
    **named("v_minmax_f16 v_minmax_num_f16", _three(min_num, max_num)),
    "v_maximum3_f16": _three(maximum, maximum),
    "v_minimum3_f16": _three(minimum, minimum),
    **named(
        "v_med3_f16 v_med3_num_f16",
        vector("f16", "f16 f16 f16", med3, rounds=False, preserve=True),
    ),
    "v_maximum_f16": vector("f16", "f16 f16", maximum, rounds=False, preserve=True),
    "v_minimum_f16": vector("f16", "f16 f16", minimum, rounds=False, preserve=True),
    "v_log_f16": _exact(log2),
    "v_rsq_f16": _exact(lambda a: F32(1) / np.sqrt(a)),
    "v_sin_f16": _exact(sin_turns),
    "v_cos_f16": _exact(cos_turns),
    "v_floor_f16": _exact(np.floor),
    "v_ceil_f16": _exact(np.ceil),
    "v_trunc_f16": _exact(np.trunc),
    "v_rndne_f16": _exact(np.rint),
    "v_fract_f16": _exact(lambda a: a - np.floor(a)),
    "v_frexp_mant_f16": _exact(lambda a: np.frexp(a)[0]),
    "v_frexp_exp_i16_f16": vector("i16", "f16", lambda a: np.frexp(a)[1].astype(I32)),
    # Any power past these is zero or too large, and stays finite until it is rounded.
    "v_ldexp_f16": vector(
        "f16", "f16 i16", lambda a, n: np.ldexp(a.astype(np.float64), np.clip(n, -400, 400))
    ),
    "v_cmp_class_f16": compare("b16 u32", _half_class),
    "v_cmpx_class_f16": compare("b16 u32", _half_class, to_exec=True),
}
