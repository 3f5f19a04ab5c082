"""Makes Triton's interpreter quicker: what types alone decide about two operands is decided once.

Before it computes ``a + b``, ``triton.language`` finds the type to compute in, converts both to it,
makes a tensor of a number, fills it up to the other's shape, and compares shapes. What comes of all
that depends on the operands' types and on the number, of which a kernel has few, and it has them
hundreds of thousands of times (``binary_op_type_checking_impl`` in
``triton/language/semantic.py``).

Needs nothing but triton: it runs in the subject's own Python.
"""

from __future__ import annotations

from typing import Any

from .shared_shapes import keep


def share_operands(core: Any, semantic: Any) -> None:
    """Patches the class of the interpreter's semantics; types are those that `share_shapes` gives.

    An operand that comes out as it went in does so for every pair of these types, and a number
    becomes the same tensor beside every tensor of a type that stays as it is.
    """
    upstream, tensor = semantic.binary_op_type_checking_impl, core.tensor
    # By the types' identities and what is allowed; the types are kept, so that no others take
    # their place.
    unchanged: dict[Any, Any] = {}
    numbers: dict[Any, Any] = {}

    def binary_op_type_checking_impl(self: Any, lhs: Any, rhs: Any, *rest: Any, **more: Any) -> Any:
        if more or type(lhs) is not tensor:
            return upstream(self, lhs, rhs, *rest, **more)
        kind = type(rhs)
        if kind is tensor:
            key = (id(lhs.type), id(rhs.type), rest)
            if key in unchanged:
                return lhs, rhs
            left, right = upstream(self, lhs, rhs, *rest)
            if left is lhs and right is rhs:
                keep(unchanged, key, (lhs.type, rhs.type))
            return left, right
        if kind not in (int, float):
            return upstream(self, lhs, rhs, *rest)
        # Zero has two signs, and NaN is not itself.
        number = rhs if kind is int else rhs.hex()
        # Where programs run abreast, a block of numbers has an axis more.
        lanes = getattr(self.builder, "has_lanes", False)
        number_key = (id(lhs.type), kind, number, lanes, rest)
        found = numbers.get(number_key)
        if found is not None:
            return lhs, found[1]
        left, right = upstream(self, lhs, rhs, *rest)
        if left is lhs:
            keep(numbers, number_key, (lhs.type, right))
        return left, right

    semantic.binary_op_type_checking_impl = binary_op_type_checking_impl
