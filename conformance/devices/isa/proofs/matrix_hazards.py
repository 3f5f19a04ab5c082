"""How long the registers of a matrix or dot product must be left alone, on CDNA.

Sources: as :mod:`.hazard_rules`; the numbers are those of the manuals' tables of dependencies, by
the passes of the earlier product.
"""

from __future__ import annotations

from collections.abc import Iterable

from .issued import Issued
from .registers import Register

Places = Iterable[Register]


def product(one: Issued) -> Places:
    return one.vector_writes if one.mfma else ()


def accumulator(one: Issued) -> frozenset[Register]:
    place = 0 if one.name.startswith("v_smfmac_") else 3
    return one.operand(place) if one.mfma else frozenset()


def accumulator_read(one: Issued) -> Places:
    """Products of float32 and float64 read it early enough from CDNA3 on."""
    return accumulator(one) if one.mfma and one.fast_matrix else ()


def touches_product(one: Issued) -> Places:
    if one.mfma:
        return one.vector_reads
    if one.vector or one.vmem or one.lds:
        return one.vector_reads | one.vector_writes
    return ()


def after_product(first: Issued, later: Issued, place: Register) -> int:
    """How long a product's result must be left alone.

    The whole of it as the next product's accumulator is forwarded, and needs no wait but for the
    shortest of CDNA3.
    """
    passes, fast = first.passes, first.fast_matrix
    family = first.target.family.name
    slower = int(family == "CDNA4" and passes > 2)
    double = first.name.startswith("v_mfma_f64")
    if later.mfma and place in accumulator(later) and place not in factors(later):
        return accumulated(first, later)
    if double:
        if passes == 4:
            return 6 if later.vector else 9
        return (19 if family == "CDNA4" else 11) if later.vector else 18
    return passes + 3 + slower if fast else passes + 2


def factors(one: Issued) -> frozenset[Register]:
    return one.operand(1) | one.operand(2)


def accumulated(first: Issued, later: Issued) -> int:
    whole = accumulator(later) == frozenset(product(first))
    passes, family = first.passes, first.target.family.name
    if whole:
        if first.name == later.name and first.name.startswith("v_mfma_f64_4x4x4"):
            return 4
        return 2 if family != "CDNA2" and passes == 2 else 0
    if first.name.startswith("v_mfma_f64"):
        return 0 if later.fast_matrix else passes + 1 if passes > 4 else 4
    if family == "CDNA2":
        return passes + int(later.name.startswith("v_mfma_f64"))
    if not first.fast_matrix:
        return 0 if later.fast_matrix else passes
    return passes + 1 + int(family == "CDNA4" and (later.fast_matrix or passes > 2))


def overwrites_accumulator(first: Issued, _later: Issued, _place: Register) -> int:
    return first.passes - 1


def dot_result(one: Issued) -> Places:
    return one.vector_writes if one.dot else ()


def after_dot(first: Issued, later: Issued, place: Register) -> int:
    if first.name != later.name:
        return 3
    return 3 if place in factors(later) else 0
