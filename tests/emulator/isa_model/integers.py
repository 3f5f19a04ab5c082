"""Vector instructions on integers and bits, and moves."""

from __future__ import annotations

from collections.abc import Callable

from tests.emulator.isa_model.bits import Row, named, signed

WORD, LONG = (1 << 32) - 1, (1 << 64) - 1


def perm(a: int, b: int, selector: int) -> int:
    """Bytes 0-3 are b's, 4-7 a's; 8-11 the sign of an odd byte; 12 is 0, above it 0xFF."""
    data = (a << 32 | b).to_bytes(8, "little")
    chosen = []
    for choice in selector.to_bytes(4, "little"):
        if choice < 8:
            chosen.append(data[choice])
        elif choice < 12:
            chosen.append(0xFF if data[2 * (choice - 8) + 1] & 0x80 else 0)
        else:
            chosen.append(0 if choice == 12 else 0xFF)
    return int.from_bytes(bytes(chosen), "little")


def field(a: int, offset: int, size: int) -> int:
    return a >> (offset & 31) & (1 << (size & 31)) - 1


def signed_field(a: int, offset: int, size: int) -> int:
    """A field that reaches past the register holds copies of the sign."""
    return signed(signed(a, 32) >> (offset & 31), size & 31) if size & 31 else 0


def reverse(bits: int) -> Callable[[int], int]:
    return lambda a: int(f"{a:0{bits}b}"[::-1], 2)


def leading_zeros(a: int, bits: int = 32) -> int:
    return bits - a.bit_length() if a else WORD


def trailing_zeros(a: int) -> int:
    return (a & -a).bit_length() - 1 if a else WORD


def sign_bits(a: int) -> int:
    return WORD if a in (0, WORD) else next(n for n in range(32) if a >> 31 - n & 1 != a >> 31)


def parts(word: int, size: int, has_sign: bool = False) -> list[int]:
    pieces = [word >> at & (1 << size) - 1 for at in range(0, 32, size)]
    return [signed(piece, size) for piece in pieces] if has_sign else pieces


def gaps(size: int, a: int, b: int) -> int:
    return sum(abs(x - y) for x, y in zip(parts(a, size), parts(b, size), strict=True))


def masked_gaps(a: int, b: int, c: int) -> int:
    return c + sum(abs(x - y) for x, y in zip(parts(a, 8), parts(b, 8), strict=True) if y)


def means(a: int, b: int, c: int) -> int:
    bytes_of = zip(parts(a, 8), parts(b, 8), parts(c, 8), strict=True)
    return sum((x + y + (up & 1)) // 2 << 8 * n for n, (x, y, up) in enumerate(bytes_of))


def dot(size: int, one: bool, two: bool) -> Callable[[int, int, int], int]:
    """``one``, ``two``: whether the parts of a source have a sign."""
    return lambda a, b, c: (
        c + sum(x * y for x, y in zip(parts(a, size, one), parts(b, size, two), strict=True))
    )


def packed(low: int, high: int) -> Callable[[int, int], int]:
    return lambda a, b: sum(
        (max(low, min(high, v)) & 0xFFFF) << 16 * n for n, v in enumerate((a, b))
    )


def two(function: Callable[..., int], kind: str = "u32", **more: bool) -> Row:
    return Row(kind, f"{kind} {kind}", function, **more)  # type: ignore[arg-type] # flags only


def three(function: Callable[..., int], kind: str = "u32", **more: bool) -> Row:
    return Row(kind, f"{kind} {kind} {kind}", function, **more)  # type: ignore[arg-type] # likewise


def same(kind: str, form: str = "") -> Row:
    return Row(kind, kind, lambda a: a, form=form)


def carrying(sources: str, function: Callable[..., int]) -> Row:
    """A sum or difference, and whether it is outside 32 bits."""
    return Row("u32 mask", sources, lambda *v: (function(*v), not 0 <= function(*v) <= WORD))


INTEGERS: dict[str, Row] = {
    "v_mov_b32": same("b32"),
    "v_mov_b16": same("b16"),
    "v_mov_b64": same("b64"),
    "v_accvgpr_read_b32": same("b32", "{0}, a{1n}"),
    "v_accvgpr_write_b32": same("b32", "a{0n}, {1}"),
    "v_accvgpr_mov_b32": same("b32", "a{0n}, a{1n}"),
    "v_cndmask_b32": Row("b32", "b32 b32 mask", lambda a, b, c: b if c else a),
    "v_cndmask_b16": Row("b16", "b16 b16 mask", lambda a, b, c: b if c else a),
    **named("v_add_u32 v_add_nc_u32", two(lambda a, b: a + b)),
    **named("v_sub_u32 v_sub_nc_u32", two(lambda a, b: a - b)),
    **named("v_subrev_u32 v_subrev_nc_u32", two(lambda a, b: b - a)),
    **named("v_add_i32 v_add_nc_i32", two(lambda a, b: a + b, "i32")),
    **named("v_sub_i32 v_sub_nc_i32", two(lambda a, b: a - b, "i32")),
    **named("v_add_u16 v_add_nc_u16", two(lambda a, b: a + b, "u16")),
    **named("v_sub_u16 v_sub_nc_u16", two(lambda a, b: a - b, "u16")),
    "v_mul_lo_u16": two(lambda a, b: a * b, "u16"),
    "v_add_co_u32": carrying("u32 u32", lambda a, b: a + b),
    "v_sub_co_u32": carrying("u32 u32", lambda a, b: a - b),
    "v_subrev_co_u32": carrying("u32 u32", lambda a, b: b - a),
    **named("v_addc_co_u32 v_add_co_ci_u32",
            carrying("u32 u32 mask", lambda a, b, c: a + b + c)),
    **named("v_subb_co_u32 v_sub_co_ci_u32",
            carrying("u32 u32 mask", lambda a, b, c: a - b - c)),
    **named("v_mul_lo_u32 v_mul_lo_i32", two(lambda a, b: a * b)),
    "v_mul_hi_u32": two(lambda a, b: a * b >> 32),
    "v_mul_hi_i32": two(lambda a, b: a * b >> 32, "i32"),
    "v_mul_u32_u24": Row("u32", "u24 u24", lambda a, b: a * b),
    "v_mul_i32_i24": Row("i32", "i24 i24", lambda a, b: a * b),
    "v_mul_hi_u32_u24": Row("u32", "u24 u24", lambda a, b: a * b >> 32),
    "v_mul_hi_i32_i24": Row("i32", "i24 i24", lambda a, b: a * b >> 32),
    "v_mad_u32_u24": Row("u32", "u24 u24 u32", lambda a, b, c: a * b + c),
    "v_mad_i32_i24": Row("i32", "i24 i24 i32", lambda a, b, c: a * b + c),
    **named("v_mad_u64_u32 v_mad_co_u64_u32",
            Row("u64 mask", "u32 u32 u64", lambda a, b, c: (a * b + c, a * b + c > LONG))),
    # The carry is bit 64 of the sum in 65 bits.
    **named("v_mad_i64_i32 v_mad_co_i64_i32",
            Row("i64 mask", "i32 i32 i64", lambda a, b, c: (a * b + c, a * b + c < 0))),
    "v_mad_u16": three(lambda a, b, c: a * b + c, "u16", keeps=True),
    "v_mad_i16": three(lambda a, b, c: a * b + c, "i16", keeps=True),
    "v_mad_u32_u16": Row("u32", "u16 u16 u32", lambda a, b, c: a * b + c),
    "v_mad_i32_i16": Row("i32", "i16 i16 i32", lambda a, b, c: a * b + c),
    "v_and_b32": two(lambda a, b: a & b),
    "v_or_b32": two(lambda a, b: a | b),
    "v_xor_b32": two(lambda a, b: a ^ b),
    "v_xnor_b32": two(lambda a, b: ~(a ^ b)),
    "v_not_b32": Row("u32", "u32", lambda a: ~a),
    "v_and_b16": two(lambda a, b: a & b, "u16"),
    "v_or_b16": two(lambda a, b: a | b, "u16"),
    "v_xor_b16": two(lambda a, b: a ^ b, "u16"),
    "v_not_b16": Row("u16", "u16", lambda a: ~a),
    "v_and_or_b32": three(lambda a, b, c: a & b | c),
    "v_or3_b32": three(lambda a, b, c: a | b | c),
    "v_xor3_b32": three(lambda a, b, c: a ^ b ^ c),
    "v_xad_u32": three(lambda a, b, c: (a ^ b) + c),
    "v_add3_u32": three(lambda a, b, c: a + b + c),
    "v_lshl_add_u32": three(lambda a, n, c: (a << (n & 31)) + c),
    "v_lshl_or_b32": three(lambda a, n, c: (a << (n & 31)) | c),
    "v_add_lshl_u32": three(lambda a, b, n: (a + b) << (n & 31)),
    "v_add_nc_u64": Row("u64", "u64 u64", lambda a, b: a + b, target="gfx1250"),
    "v_sub_nc_u64": Row("u64", "u64 u64", lambda a, b: a - b, target="gfx1250"),
    "v_mul_u64": Row("u64", "u64 u64", lambda a, b: a * b, target="gfx1250"),
    "v_mad_u32": Row("u32", "u32 u32 u32", lambda a, b, c: a * b + c, target="gfx1250"),
    "v_mad_nc_u64_u32": Row("u64", "u32 u32 u64", lambda a, b, c: a * b + c, target="gfx1250"),
    "v_mad_nc_i64_i32": Row("i64", "i32 i32 i64", lambda a, b, c: a * b + c, target="gfx1250"),
    "v_lshl_add_u64": Row("u64", "u64 u32 u64", lambda a, n, c: (a << (n & 7)) + c),
    "v_lshlrev_b32": two(lambda n, a: a << (n & 31)),
    "v_lshrrev_b32": two(lambda n, a: a >> (n & 31)),
    "v_ashrrev_i32": Row("i32", "u32 i32", lambda n, a: a >> (n & 31)),
    "v_lshlrev_b16": two(lambda n, a: a << (n & 15), "u16"),
    "v_lshrrev_b16": two(lambda n, a: a >> (n & 15), "u16"),
    "v_ashrrev_i16": Row("i16", "u16 i16", lambda n, a: a >> (n & 15)),
    "v_lshlrev_b64": Row("u64", "u32 u64", lambda n, a: a << (n & 63)),
    "v_lshrrev_b64": Row("u64", "u32 u64", lambda n, a: a >> (n & 63)),
    "v_ashrrev_i64": Row("i64", "u32 i64", lambda n, a: a >> (n & 63)),
    "v_bfe_u32": three(field),
    "v_bfe_i32": Row("i32", "u32 u32 u32", signed_field),
    "v_bfi_b32": three(lambda a, b, c: a & b | ~a & c),
    "v_bfm_b32": two(lambda a, b: ((1 << (a & 31)) - 1) << (b & 31)),
    "v_bfrev_b32": Row("u32", "u32", reverse(32)),
    "v_bcnt_u32_b32": two(lambda a, b: a.bit_count() + b),
    **named("v_ffbh_u32 v_clz_i32_u32", Row("u32", "u32", leading_zeros)),
    **named("v_ffbl_b32 v_ctz_i32_b32", Row("u32", "u32", trailing_zeros)),
    "v_perm_b32": three(perm),
    "v_alignbit_b32": three(lambda a, b, n: (a << 32 | b) >> (n & 31)),
    "v_alignbyte_b32": three(lambda a, b, n: (a << 32 | b) >> 8 * (n & 3)),
    "v_pack_b32_f16": Row("u32", "u16 u16", lambda a, b: a | b << 16),
    **{f"v_{name}_{kind}": two(function, kind)
       for kind in ("i32", "u32", "i16", "u16")
       for name, function in (("min", min), ("max", max))},
    **{f"v_{name}3_{kind}": three(function, kind)
       for kind in ("i32", "u32")
       for name, function in (("min", min), ("max", max),
                              ("med", lambda *v: sorted(v)[1]))},
    **named("v_ffbh_i32 v_cls_i32", Row("u32", "u32", sign_bits)),
    **named("v_subbrev_co_u32 v_subrev_co_ci_u32",
            carrying("u32 u32 mask", lambda a, b, c: b - a - c)),
    **{f"v_{name}3_{kind}": three(function, kind, keeps=True)
       for kind in ("i16", "u16")
       for name, function in (("min", min), ("max", max),
                              ("med", lambda *v: sorted(v)[1]))},
    "v_sad_u8": three(lambda a, b, c: gaps(8, a, b) + c),
    "v_sad_hi_u8": three(lambda a, b, c: (gaps(8, a, b) << 16) + c),
    "v_sad_u16": three(lambda a, b, c: gaps(16, a, b) + c),
    "v_sad_u32": three(lambda a, b, c: abs(a - b) + c),
    "v_msad_u8": three(masked_gaps),
    "v_lerp_u8": three(means),
    **{f"v_dot{32 // size}_{kind}32_{kind}{size}":
       Row(f"{kind}32", f"b32 b32 {kind}32", dot(size, kind == "i", kind == "i"))
       for size in (16, 8, 4) for kind in "iu"},
    **{f"v_dot{32 // size}c_i32_i{size}":
       Row("i32", "b32 b32", dot(size, True, True), accumulates=True) for size in (16, 8, 4)},
    # neg_lo says which source's parts have a sign.
    "v_dot4_i32_iu8": Row("i32", "b32 b32 i32", dot(8, True, False),
                          form="{0}, {1}, {2}, {3} neg_lo:[1,0,0]", target="gfx1100"),
    "v_dot8_i32_iu4": Row("i32", "b32 b32 i32", dot(4, False, True),
                          form="{0}, {1}, {2}, {3} neg_lo:[0,1,0]", target="gfx1100"),
    "v_cvt_pk_i16_i32": Row("u32", "i32 i32", packed(-(1 << 15), (1 << 15) - 1)),
    "v_cvt_pk_u16_u32": Row("u32", "u32 u32", packed(0, (1 << 16) - 1)),
}  # fmt: skip
