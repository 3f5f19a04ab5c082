"""Mutants that compute the same as the emulator, with the reason: no test can tell them apart."""

from __future__ import annotations

from tests.emulator.mutation.mutants import Mutant

# By module and line: what a part of the line can become, and why that changes nothing.
EQUIVALENT: dict[tuple[str, str], list[tuple[str, str, str]]] = {
    (
        "instructions.vector_integer",
        '"v_lshlrev_b64": vector("u64", "u32 u64", _shift64(lambda a, n: a << n)),',
    ): [("'u32 u64'", "'i32 u64'", "the six bits of a count have no sign")],
    (
        "instructions.vector_integer",
        '"v_ashrrev_i64": vector("i64", "u32 i64", _shift64(lambda a, n: a >> n)),',
    ): [("'i64'", "'u64'", "a result's bits are written as they are")],
    (
        "instructions.vector_half",
        '"v_cmp_class_f16": compare("b16 u32", _half_class),',
    ): [("'b16 u32'", "'b16 i32'", "the ten bits of a class mask have no sign")],
    ("numbers", "small = (np.abs(total) < 2.0**-125) & (total != 0)"): [
        (
            "(np.abs(total) < 2.0 ** (-125)) & (total != 0)",
            "(np.abs(total) < 2.0 ** (-125)) | (total != 0)",
            "the exact way is taken more often, and comes to the same",
        )
    ],
    (
        "instructions.vector_integer",
        '"v_bcnt_u32_b32": vector("u32", "u32 u32", lambda a, b: '
        "np.bitwise_count(a).astype(U32) + b),",
    ): [("'u32 u32'", "'u32 i32'", "a sum that wraps around has the same bits")],
    (
        "instructions.lds",
        "_, change, merge = narrow_load(ins.mnemonic) if size < 4 else (0, None, None)",
    ): [("0", "1", "nothing reads it")],
    ("numbers", '"nlg": lambda a, b: ~((a < b) | (a > b)),'): [
        (
            "lambda a, b: ~((a < b) | (a > b))",
            "lambda b, a: ~((a < b) | (a > b))",
            "either is larger, whichever comes first",
        )
    ],
    (
        "instructions.scalar",
        '"u32", "u32 u32", lambda a, b: ((a.astype(U64) * b) >> U64(32)).astype(U32)',
    ): [
        (
            "lambda a, b: (a.astype(U64) * b >> U64(32)).astype(U32)",
            "lambda b, a: (a.astype(U64) * b >> U64(32)).astype(U32)",
            "a product's factors may change places",
        )
    ],
    ("instructions.vector_float", "return wide - np.rint(wide)"): [
        ("np.rint", "np.trunc", "a turn more or less is the same angle"),
    ],
    ("instructions.global_memory", "vaddr, resource, soffset = ins.operands[first : first + 3]"): [
        ("3", "4", "no operand follows these"),
    ],
    ("instructions.packed", "ones, zeros = (1,) * sources, (0,) * sources"): [
        ("1", "2", "any number but 0 chooses the upper half"),
    ],
    (
        "instructions.packed",
        'third = reader(ins, 0 if accumulate else 3, "f32", target, 2)',
    ): [("2", "3", "which source a whole register is plays no part")],
}


def reason_of(one: Mutant) -> str:
    """Why a mutant is no fault; empty if it is one."""
    known = EQUIVALENT.get((one.module, one.line), [])
    return next((why for *change, why in known if change == [one.before, one.after]), "")
