"""exp2 and log2 in float64: as exact as is said of them, wherever float32 has a number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from conformance.devices.isa import elementary
from conformance.devices.isa.elementary import exp2, log2


def numbers(least: float, most: float) -> list[float]:
    """float32 numbers all over a range, its ends, and those next to whole numbers and halves."""
    draw = np.random.default_rng(7)
    middle = np.arange(math.ceil(least), math.floor(most) + 1, 0.5, dtype=np.float32)
    found = [draw.uniform(least, most, 2000).astype(np.float32), middle]
    found += [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
    return sorted({float(x) for some in found for x in some if least <= x <= most})


def is_exact(of: Callable[..., object]) -> None:
    """The error is what the module says: of a series that is cut off, and of float64's own."""
    if of is exp2:
        given = numbers(-149, 128)
        wanted = [2.0**x if x < 1024 else math.inf for x in given]
        got = exp2(np.array(given, np.float32)).tolist()
        assert max(abs(a / b - 1) for a, b in zip(got, wanted, strict=True)) < 3e-13
        return
    given = [*numbers(0.4, 4), *(float(np.float32(2.0**x)) for x in numbers(-148, 127.9))]
    wanted = [math.log2(x) for x in given]
    got = log2(np.array(given, np.float32)).tolist()
    errors = [abs(a - b) / max(abs(b), 1e-9) for a, b in zip(got, wanted, strict=True)]
    assert max(errors) < 6e-16


def test_powers() -> None:
    is_exact(exp2)


def test_logarithms() -> None:
    is_exact(log2)


def test_the_ends() -> None:
    """Past what float32 holds, and where there is no number."""
    given = np.array([-np.inf, -500, -150, 128, 500, np.inf, np.nan], np.float32)
    with np.errstate(over="ignore"):
        powers = exp2(given).astype(np.float32)
    assert powers[:6].tolist() == [0, 0, 0, np.inf, np.inf, np.inf] and np.isnan(powers[6])
    given = np.array([0.0, -0.0, np.inf, -1.0, -np.inf, np.nan], np.float32)
    logarithms = log2(given)
    assert logarithms[:3].tolist() == [-np.inf, -np.inf, np.inf]
    assert np.isnan(logarithms[3:]).all()


@pytest.mark.parametrize(("name", "of"), [("_EXP2", exp2), ("_ATANH", log2)])
def test_a_term_that_is_missing_is_noticed(
    name: str, of: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elementary, name, getattr(elementary, name)[:-1])
    with pytest.raises(AssertionError):
        is_exact(of)
