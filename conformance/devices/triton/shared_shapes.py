"""Makes Triton's interpreter quicker: types and tensors of one shape share what the shape decides.

A kernel makes hundreds of thousands of tensors of a few shapes. For each, ``triton.language`` wraps
every extent as a constant and that constant's type anew, checks that extents are powers of two,
and spells the type's name; to add two tensors it compares their shapes extent by extent, as
constants again. Shapes never change, so the first tensor of a shape makes all that once
(``block_type``, ``tensor`` and ``tuple`` in ``triton/language/core.py``, ``broadcast_impl_value``
in ``triton/language/semantic.py``). A block's type is itself the same object each time.

Needs nothing but triton: it runs in the subject's own Python.
"""

from __future__ import annotations

from typing import Any

# What a tensor has besides what its shape decides.
_OF_TENSOR = ("handle", "type", "dtype")
# What is kept at a time: every launch has types of its own for its pointers, and numbers that a
# loop counts with are new each time.
MOST = 4096


def share_shapes(core: Any, semantic: Any) -> None:
    """Patches ``triton.language.core`` and the class of the interpreter's semantics."""
    _share_types(core)
    _share_constants(core)
    upstream = semantic.broadcast_impl_value

    def broadcast_impl_value(self: Any, lhs: Any, rhs: Any) -> Any:
        left, right = lhs.type, rhs.type
        if left.is_block() and right.is_block() and left.shape is right.shape:
            return lhs, rhs
        return upstream(self, lhs, rhs)

    semantic.broadcast_impl_value = broadcast_impl_value


def keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keeps a value; where there are too many, they are found out anew."""
    if len(known) >= MOST:
        known.clear()
    known[key] = value


def _share_types(core: Any) -> None:
    constexpr, upstream = core.constexpr, core.block_type.__init__
    shapes: dict[tuple[int, ...], Any] = {}
    # By shape and the element type's identity; the type of a block has that of its elements, so
    # that no other takes its place.
    known: dict[tuple[tuple[int, ...], int], Any] = {}

    def new(cls: Any, element_ty: Any, shape: Any) -> Any:
        extents = tuple([e.value if isinstance(e, constexpr) else e for e in shape])
        if all(type(extent) is int for extent in extents):
            found = known.get((extents, id(element_ty)))
            if found is not None and type(found) is cls:
                return found
        return object.__new__(cls)

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        if self.__dict__:
            return  # it is a known one
        # Raises where extents are none, and says what is allowed.
        upstream(self, element_ty, shape)
        extents = tuple([e.value if isinstance(e, constexpr) else e for e in shape])
        self.shape = shapes.setdefault(extents, self.shape)
        keep(known, (extents, id(element_ty)), self)

    core.block_type.__new__ = new
    core.block_type.__init__ = block_type


def _share_constants(core: Any) -> None:
    upstream = core.tensor.__init__
    # By the shape's identity; the shape is kept, so that no other takes its place.
    known: dict[int, tuple[Any, dict[str, Any]]] = {}

    def tensor(self: Any, handle: Any, type: Any) -> None:  # noqa: A002 - Triton's parameter
        shape = type.shape if type.is_block() else ()
        found = known.get(id(shape))
        if found is None:
            upstream(self, handle, type)
            rest = {k: v for k, v in vars(self).items() if k not in _OF_TENSOR}
            known[id(shape)] = (shape, rest)
            return
        self.__dict__.update(found[1])
        self.handle = handle
        self.type = type
        self.dtype = type.scalar

    core.tensor.__init__ = tensor
