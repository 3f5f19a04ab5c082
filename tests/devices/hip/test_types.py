"""The suite's own 16- and 8-bit types for HIP kernels, each function against torch's."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conformance.cache import cache_root
from conformance.devices.hip import clang as clang_module
from conformance.devices.hip.clang import (
    CompileError,
    common_flags,
    find_clang,
    host_flags,
    run_clang,
)
from conformance.devices.hip.compiled import Compilations
from conformance.devices.hip.kernels import HipCode, only
from conformance.devices.hip.sources import Unit
from conformance.devices.isa import execute
from conformance.devices.kernel import Argument, Kernel, Launch, pointer
from conformance.devices.resources import resources_of
from conformance.devices.spelling import parse_device
from tests.support.some import one_in

HERE = Path(__file__).parent
FILE = "conversions.hip"
SOURCE = f'#include <rocm_conformance/runtime.h>\n#include "{FILE}"\n'
Expected = Callable[[torch.Tensor], torch.Tensor]
H, B = torch.float16, torch.bfloat16


# -- what torch says -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Function:
    """A function of ``conversions.hip``: its inputs' dtype, its result's, and what torch says."""

    takes: torch.dtype
    gives: torch.dtype
    expected: Expected


def part(x: torch.Tensor, dtype: torch.dtype, shift: int) -> torch.Tensor:
    """The lower (0) or upper (16) half of 32-bit words as a 16-bit float, in float64: exact."""
    return (x >> shift).to(torch.int16).view(dtype).double()


def once(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 rounded to binary16 at once, or as bfloat16's arithmetic is: to float32 before."""
    if dtype == B:
        return x.float().to(B)
    with np.errstate(over="ignore"):
        return torch.from_numpy(x.numpy().astype(np.float16))


def fma(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a * b + a, rounded to odd: what is rounded to fewer bits after that is rounded once."""
    product = a * b  # of two short floats: exact
    total = product + a
    back = total - product
    lost = (product - (total - back)) + (a - back)
    is_even = total.view(torch.int64) & 1 == 0
    inexact = (lost != 0) & lost.isfinite() & is_even
    beside = torch.nextafter(total, torch.where(lost > 0, torch.inf, -torch.inf).double())
    return torch.where(inexact, beside, total)


def rounded(dtype: torch.dtype, shape: Callable[..., torch.Tensor]) -> Expected:
    """A function of both halves, rounded once."""
    return lambda x: once(shape(part(x, dtype, 0), part(x, dtype, 16)), dtype)


def by_halves(dtype: torch.dtype, shape: Callable[..., torch.Tensor]) -> Expected:
    """A function of pairs: the halves with each other in either order."""

    def expected(x: torch.Tensor) -> torch.Tensor:
        low, high = part(x, dtype, 0), part(x, dtype, 16)
        made = [once(shape(low, high), dtype), once(shape(high, low), dtype)]
        return torch.stack(made, -1)

    return expected


def saturated(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As torch converts, but for what torch's releases do differently beyond an encoding's range:
    finite numbers are clamped, an infinity is NaN in an encoding that has none."""
    limit = torch.finfo(dtype).max
    infinite = x if dtype == torch.float8_e5m2 else torch.full_like(x, float("nan"))
    clamped = torch.where(x.isnan(), x, x.clamp(-limit, limit))
    return torch.where(x.isinf(), infinite, clamped).to(dtype)


def both(one: Expected) -> Expected:
    """Of x and -x."""
    return lambda x: torch.stack([one(x), one(-x)], -1)


def halves_of(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.view(dtype).view(*x.shape, -1)


def functions() -> Iterator[tuple[str, Function]]:
    f32, bits = torch.float32, torch.int32
    add, mul = (lambda a, b: a + b), (lambda a, b: a * b)

    for name in ("float2half", "float2half_rn", "bits_of_half"):
        yield name, Function(f32, H, lambda x: x.to(H))
    for name in ("half2float", "half_of_bits", "half22float2", "half22float2_high"):
        yield name, Function(H, f32, lambda x: x.float())
    yield "float22half2", Function(f32, H, both(lambda x: x.to(H)))
    for name, shape in {"hadd": add, "hmul": mul}.items():
        yield name, Function(bits, H, rounded(H, shape))
        yield f"bf16_{name}", Function(bits, B, rounded(B, shape))
        yield f"{name}2", Function(bits, H, by_halves(H, shape))
        yield f"bf16_{name}2", Function(bits, B, by_halves(B, shape))
    yield "plus2", Function(bits, H, by_halves(H, add))
    yield "hfma2", Function(bits, H, by_halves(H, fma))
    yield "bf16_hfma", Function(bits, B, rounded(B, fma))
    yield "bf16_hfma2", Function(bits, B, by_halves(B, fma))
    yield "float2bf16", Function(f32, B, lambda x: x.to(B))
    for name in ("bf162float", "bf1622float2", "bf1622float2_high"):
        yield name, Function(B, f32, lambda x: x.float())
    yield "float22bf162", Function(f32, B, both(lambda x: x.to(B)))
    for name, dtype in {
        "e4m3": torch.float8_e4m3fn,
        "e5m2": torch.float8_e5m2,
        "e4m3_fnuz": torch.float8_e4m3fnuz,
        "e5m2_fnuz": torch.float8_e5m2fnuz,
    }.items():
        yield from fp8_functions(name, dtype)


def fp8_functions(name: str, dtype: torch.dtype) -> Iterator[tuple[str, Function]]:
    f32, pairs = torch.float32, torch.int16

    def encoded(x: torch.Tensor) -> torch.Tensor:
        return saturated(x.float(), dtype)

    yield f"{name}_of_float", Function(f32, dtype, encoded)
    yield f"{name}_constructed", Function(f32, dtype, encoded)
    yield f"{name}_of_float2", Function(f32, dtype, both(encoded))
    yield f"{name}_of_half", Function(H, dtype, encoded)
    yield f"{name}_of_half2", Function(torch.int32, dtype, lambda x: encoded(halves_of(x, H)))
    yield f"{name}_to_half", Function(dtype, H, lambda x: x.to(H))
    yield f"{name}_to_half2", Function(pairs, H, lambda x: halves_of(x, dtype).to(H))
    yield f"{name}_to_float", Function(dtype, f32, lambda x: x.float())
    yield f"{name}_to_float2", Function(pairs, f32, lambda x: halves_of(x, dtype)[..., 0].float())
    yield (
        f"{name}_to_float2_high",
        Function(pairs, f32, lambda x: halves_of(x, dtype)[..., 1].float()),
    )


FUNCTIONS = dict(functions())


def inputs(dtype: torch.dtype, *, few: bool = False) -> torch.Tensor:
    """All bits where they are few enough; of floats and words the corners and a random draw."""
    generator = torch.Generator().manual_seed(0)
    size = torch.empty(0, dtype=dtype).element_size()
    if size == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    if size == 2:
        every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
        return (every[:: 31 if few else 1].contiguous()).view(dtype)
    corners = edges()
    draw = torch.randint(-(1 << 31), 1 << 31, (500 if few else 200_000,), generator=generator)
    # Magnitudes that 8-bit floats have: of all floats only one in ten would be one.
    near = torch.randn(500 if few else 200_000, generator=generator) * 2.0 ** torch.randint(
        -20, 18, (500 if few else 200_000,), generator=generator
    )
    if dtype == torch.int32:
        return draw.to(torch.int32)
    chosen = corners[:: 61 if few else 1]
    return torch.cat([draw.to(torch.int32).view(torch.float32), chosen, near])


@lru_cache(maxsize=1)
def edges() -> torch.Tensor:
    """Every number of the short types, what lies half-way between two, and their neighbours."""
    found = [torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan")])]
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2fnuz, B, H):
        width = torch.empty(0, dtype=dtype).element_size()
        every = torch.arange(1 << 8 * width).to(torch.uint8 if width == 1 else torch.int32)
        numbers = (every if width == 1 else every.to(torch.int16)).view(dtype).float()
        numbers = numbers[numbers.isfinite()].sort().values.double()
        middles = (numbers[1:] + numbers[:-1]) / 2
        found += [numbers.float(), middles.float()]
    middle = torch.cat(found)
    up = torch.nextafter(middle, torch.full_like(middle, float("inf")))
    down = torch.nextafter(middle, torch.full_like(middle, float("-inf")))
    return torch.cat([middle, up, down])


# -- what the headers say --------------------------------------------------------------------------
def results(name: str, given: torch.Tensor) -> torch.Tensor:
    """An empty result of a function, in its dtype: [n] or, of pairs, [n, 2]."""
    function = FUNCTIONS[name]
    shape = function.expected(given[:1]).shape[1:]
    return torch.empty((len(given), *shape), dtype=torch.uint8).new_empty(
        (len(given), *shape), dtype=function.gives
    )


def on_host(library: ctypes.CDLL, name: str, given: torch.Tensor) -> torch.Tensor:
    made = results(name, given)
    getattr(library, f"host_{name}")(
        ctypes.c_void_p(given.data_ptr()), ctypes.c_void_p(made.data_ptr()), len(given)
    )
    return made


def library_of(folder: Path) -> ctypes.CDLL:
    """The functions as host code, compiled with the headers of ``folder``."""
    compilations = Compilations(find_clang(), cache_root() / "hip")
    empty = compilations.folder / "empty"
    empty.touch()

    def flags(root: Path) -> list[str]:
        made = [*common_flags(root), *host_flags(empty), "-I", str(root)]
        return [word.replace(str(clang_module.HEADERS), str(folder)) for word in made]

    return ctypes.CDLL(str(compilations.made(SOURCE, flags, HERE, ".so", FILE)))


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return library_of(clang_module.HEADERS)


def wrong(name: str, given: torch.Tensor, made: torch.Tensor) -> str:
    """Where a result is not torch's: NaN for NaN, a zero with its sign."""
    expected = FUNCTIONS[name].expected(given)
    one, two = made.float(), expected.float()
    same = ((one == two) & (one.signbit() == two.signbit())) | (one.isnan() & two.isnan())
    if bool(same.all()):
        return ""
    at = int((~same).reshape(len(given), -1).any(1).nonzero()[0])
    return f"{name}({given[at]}) is {made[at]}, torch has {expected[at]}; {int((~same).sum())} so"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_host(library: ctypes.CDLL, name: str) -> None:
    given = inputs(FUNCTIONS[name].takes)
    assert wrong(name, given, on_host(library, name, given)) == ""


def device_text(target: str) -> str:
    code = HipCode(HERE, target, 64, find_clang(), cache_root() / "hip")
    return code.kernel_text(Unit(HERE, FILE), "all its kernels")


def on_device(text: str, target: str, name: str, given: torch.Tensor) -> torch.Tensor:
    made = results(name, given)
    device = parse_device(f"isa:{target},poison")
    lanes, count = device.facts.wave_size, len(given)
    alone = only(text, f"device_{name}")
    resources = resources_of(alone, 0, 256 // lanes, device.facts)
    kernel = Kernel(name, alone, 0, 256 // lanes, lanes, resources)
    arguments = (
        pointer("given", given),
        pointer("made", made),
        Argument("n", count.to_bytes(4, "little")),
    )
    execute(Launch(kernel, (-(-count // 256), 1, 1), (256, 1, 1), arguments), device)
    return made


# gfx942 has instructions for FNUZ, gfx1201 for OCP, gfx1100 and gfx90a none.
@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx1100", "gfx1201"])
def test_device(target: str) -> None:
    text = device_text(target)
    found = []
    for name, function in FUNCTIONS.items():
        given = inputs(function.takes, few=True)
        found.append(wrong(name, given, on_device(text, target, name, given)))
    assert not [each for each in found if each]


def test_every_function_is_asked() -> None:
    defined = set()
    for header in ("hip_fp16.h", "hip_bf16.h", "hip_fp8.h"):
        text = (clang_module.HEADERS / "hip" / header).read_text(encoding="utf-8")
        defined |= set(re.findall(r"ROCM_CONFORMANCE_INLINE \w+ (__\w+|operator\+)\(", text))
    asked = (HERE / FILE).read_text(encoding="utf-8") + "operator+"
    assert not {name for name in defined if name not in asked}


FAULTS = {
    "ties away from even": ("hip_fp8.h", "__builtin_rintf(", "__builtin_roundf("),
    "truncated": ("hip_fp8.h", "__builtin_rintf(", "__builtin_truncf("),
    "bias of OCP": ("hip_fp8.h", "(is_fnuz(kind) ? 1 : 0)", "0"),
    "saturates at 448": ("hip_fp8.h", "448.0f : 240.0f", "448.0f : 448.0f"),
    "negative zero": ("hip_fp8.h", "is_fnuz(kind) && stored == 0 ? 0 :", ""),
    "infinity clamped": ("hip_fp8.h", "(bits & 0x7f800000u) == 0x7f800000u", "value != value"),
    "no NaN read": ("hip_fp8.h", "(bits & 0x7f) == 0x7f)", "false)"),
    "bfloat16 truncated": ("hip_bf16.h", "bits + 0x7fff + last", "bits"),
    "bfloat16 ties up": ("hip_bf16.h", "0x7fff + last", "0x8000"),
    "bfloat16 loses NaN": ("hip_bf16.h", "(bits >> 16) | 0x0040", "(bits >> 16) & 0xff80"),
    "half product added": ("hip_fp16.h", "a.data * b.data)", "a.data + b.data)"),
}


@pytest.mark.parametrize("fault", one_in(4, FAULTS))
def test_a_fault_is_seen(fault: str, tmp_path: Path) -> None:
    header, good, bad = FAULTS[fault]
    headers = tmp_path / "headers"
    shutil.copytree(clang_module.HEADERS, headers)
    path = headers / "hip" / header
    text = path.read_text(encoding="utf-8")
    assert good in text
    path.write_text(text.replace(good, bad), encoding="utf-8")
    broken = library_of(headers)
    found: list[Any] = []
    for name, function in FUNCTIONS.items():
        given = inputs(function.takes)
        found.append(wrong(name, given, on_host(broken, name, given)))
    assert any(found)


@pytest.mark.parametrize("name", ["__HIP_NOSAT", "__hip_cvt_float_to_fp8_sr"])
def test_other_roundings_do_not_compile(name: str, tmp_path: Path) -> None:
    source = tmp_path / "asks.hip"
    source.write_text(f"#include <hip/hip_fp8.h>\nauto x = {name};\n", encoding="utf-8")
    arguments = [*common_flags(tmp_path), "--cuda-host-only", "-fsyntax-only", str(source)]
    with pytest.raises(CompileError, match=name):
        run_clang(find_clang(), arguments, "what asks for it")
