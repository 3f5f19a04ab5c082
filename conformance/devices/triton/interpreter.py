"""Triton's interpreter as a device: its bfloat16 and its fp8 made right.

The interpreter holds bfloat16 as uint16 (numpy has no such type) and converts, multiplies and
adds the raw bits: conversions truncate, ``tl.dot`` multiplies bit patterns as integers
(``triton/runtime/interpreter.py`` of 3.6 and 3.9: ``cast_impl``, ``create_dot``, ``binary_op``;
https://triton-lang.org/main/programming-guide/chapter-3/debugging.html names the limit). Every
bfloat16 kernel would fail for the interpreter's fault, so this module replaces those three by what
hardware does: round to nearest even, products in float32. Its conversions to fp8 neither round
to nearest nor saturate, which AMD's and NVIDIA's do; torch's do the first, this the second.
``and`` and ``or`` of blocks, which Python would not combine, are combined as compiled. Before
3.8 it has no way to name the fp8 types of FNUZ, which MI300 computes in. One comparison that masks
a whole block is a mask.

Needs nothing but numpy, torch and triton: it runs in the subject's own Python.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
from dataclasses import replace
from typing import Any

from .shared_operands import share_operands
from .shared_shapes import share_shapes

VARIABLE = "TRITON_INTERPRET"
_COMBINED = "_combined_blocks"


def choose() -> None:
    """Makes Triton interpret; must be called before Triton is imported."""
    os.environ[VARIABLE] = "1"


def repair() -> None:
    """Replaces the interpreter's bfloat16 and fp8 arithmetic, and what makes it slow.

    Call it once Triton is imported.
    """
    import numpy as np  # noqa: PLC0415 - Triton must not be imported before `choose`
    import triton.language as tl  # noqa: PLC0415
    from triton.runtime import interpreter  # noqa: PLC0415

    builder: Any = interpreter.InterpreterBuilder
    handle: Any = interpreter.TensorHandle

    def widen(tensor: Any) -> Any:
        """The numpy array of a handle, bfloat16 as float32."""
        if tensor.dtype.scalar != tl.bfloat16:
            return tensor.data
        return (tensor.data.astype(np.uint32) << 16).view(np.float32)

    def narrow(array: Any) -> Any:
        """float32 as the bits of bfloat16, to nearest even; NaN stays NaN."""
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return np.where(np.isnan(array), np.uint16(0x7FC0), rounded)

    upstream_cast, upstream_fp_to_fp = builder.cast_impl, builder.create_fp_to_fp
    upstream_dot, upstream_binary = builder.create_dot, builder.binary_op
    upstream_splat = builder.create_splat

    def convert(source: Any, dst_type: Any) -> Any:
        wide = widen(source)
        if dst_type.scalar == tl.bfloat16:
            return handle(narrow(wide.astype(np.float32)), tl.bfloat16)
        with np.errstate(over="ignore", invalid="ignore"):
            # float32 is not the last word on a float64 or an integer, but numpy's is.
            return handle(wide.astype(interpreter._get_np_dtype(dst_type)), dst_type.scalar)

    float8, to_float8, from_float8 = _float8(widen, convert)

    def is_wide(dtype: Any) -> bool:
        return bool(dtype.is_int() or dtype in (tl.float16, tl.float32, tl.float64))

    def cast_impl(self: Any, source: Any, dst_type: Any) -> Any:
        kinds = (source.dtype.scalar, dst_type.scalar)
        if tl.bfloat16 in kinds and all(kind == tl.bfloat16 or is_wide(kind) for kind in kinds):
            return convert(source, dst_type)
        return upstream_cast(self, source, dst_type)

    def create_fp_to_fp(self: Any, source: Any, dst_type: Any, rounding_mode: Any) -> Any:
        kinds = (source.dtype.scalar, dst_type.scalar)
        if tl.bfloat16 in kinds and all(kind == tl.bfloat16 or is_wide(kind) for kind in kinds):
            return convert(source, dst_type)
        if kinds[1] in float8 and kinds[0] not in float8:
            return to_float8(source, kinds[1])
        if kinds[0] in float8 and kinds[1] not in float8:
            return from_float8(source, dst_type)
        return upstream_fp_to_fp(self, source, dst_type, rounding_mode)

    def create_dot(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
        if tl.bfloat16 not in (a.dtype.scalar, b.dtype.scalar):
            return upstream_dot(self, a, b, d, *options)
        product = np.matmul(widen(a), widen(b), dtype=np.float32)
        return handle((product + d.data).astype(d.data.dtype), d.dtype.scalar)

    def binary_op(self: Any, left: Any, right: Any, op: Any) -> Any:
        if left.dtype.scalar != tl.bfloat16:
            return upstream_binary(self, left, right, op)
        result = op(widen(left), widen(right))
        if result.dtype == np.bool_:
            return handle(result, tl.int1)
        return handle(narrow(result), tl.bfloat16)

    def create_splat(self: Any, shape: Any, scalar: Any) -> Any:
        # The handle of a comparison has the type of what was compared.
        if scalar.data.dtype == np.bool_:
            scalar = handle(scalar.data, tl.int1)
        return upstream_splat(self, shape, scalar)

    interpreter.ReduceOps.sum = _pairwise_sum(interpreter.ReduceOps.sum, widen, narrow)
    builder.cast_impl = cast_impl
    builder.create_fp_to_fp = create_fp_to_fp
    builder.create_dot = create_dot
    builder.binary_op = binary_op
    builder.create_splat = create_splat
    _name_every_float8(interpreter)
    _combine_blocks(interpreter)
    _hasten(interpreter)


def _name_every_float8(interpreter: Any) -> None:
    """Lets kernels convert to every fp8 type that Triton has.

    The interpreter puts a ``dtype.to_ir`` of its own in place of Triton's at each launch; until 3.7
    it raises an error for the types of FNUZ, though the interpreter's builder knows them
    (``_patch_lang_core`` and ``InterpreterBuilder.get_fp8e4b8_ty`` in
    ``triton/runtime/interpreter.py``).
    """
    patch = interpreter._patch_lang_core

    def patch_and_name(lang: Any, *scope: Any) -> Any:
        patched = patch(lang, *scope)
        upstream = lang.dtype.to_ir

        def to_ir(self: Any, builder: Any) -> Any:
            if self.is_fp8():
                return getattr(builder, f"get_{self.name}_ty")()
            return upstream(self, builder)

        lang.dtype.to_ir = to_ir
        return patched

    interpreter._patch_lang_core = patch_and_name


def _combine_blocks(interpreter: Any) -> None:
    """Makes ``a and b`` and ``a or b`` of blocks what they are compiled to, element by element.

    Python itself, which interprets them, would give one of the two blocks. Kernels have them,
    though Triton advises against it (``visit_BoolOp`` in ``triton/compiler/code_generator.py``).
    """
    import triton.language as tl  # noqa: PLC0415 - as in `repair`

    def combined(name: str, first: Any, rest: Any) -> Any:
        if isinstance(first, tl.tensor) and first.type.is_block():
            return getattr(first, name)(rest())
        return (first and rest()) if name == "logical_and" else (first or rest())

    def visit(self: Any, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        name = ast.Constant("logical_and" if isinstance(node.op, ast.And) else "logical_or")
        nothing = ast.arguments([], [], None, [], [], None, [])
        made, *others = node.values
        for other in others:
            later = ast.Lambda(nothing, other)
            made = ast.Call(ast.Name(_COMBINED, ast.Load()), [name, made, later], [])
        return ast.copy_location(made, node)

    # Its module's names are those that a rewritten kernel finds.
    vars(interpreter)[_COMBINED] = combined
    interpreter.ASTTransformer.visit_BoolOp = visit


def _hasten(interpreter: Any) -> None:
    """Spares half of the time: what the interpreter does at every step to no effect.

    It replaces the members of ``triton.language`` by its own at every call of a device function,
    although the launch has done so; it makes its table of types at every conversion; and it looks
    for overflow in integers, but reports it only with ``debug``, which nothing sets
    (``_patch_lang``, ``_get_np_dtype`` and ``InterpreterOptions`` in
    ``triton/runtime/interpreter.py``; ``device_assert`` in ``triton/language/semantic.py``).
    """
    import triton.language as tl  # noqa: PLC0415 - as in `repair`

    patch = interpreter._patch_lang
    nothing_to_undo = getattr(interpreter, "_LangPatchScope", lambda: None)
    modules: dict[Any, list[Any]] = {}

    def patch_unless_done(fn: Any) -> Any:
        if fn not in modules:
            modules[fn] = [m for m in (tl, tl.core) if any(m is v for v in fn.__globals__.values())]
        if modules[fn] and not any(tl.core.is_builtin(m.load) for m in modules[fn]):
            return nothing_to_undo()
        return patch(fn)

    interpreter._patch_lang = patch_unless_done
    _call_members_directly(interpreter)
    of_pointer, of_scalar = interpreter._get_np_dtype, functools.cache(interpreter._get_np_dtype)

    def numpy_type(kind: Any) -> Any:
        return of_pointer(kind) if kind.scalar.is_ptr() else of_scalar(kind.scalar)

    interpreter._get_np_dtype = numpy_type
    # Before 3.4 Triton's semantics are functions, and shapes are lists.
    if hasattr(interpreter, "interpreter_semantic"):
        semantic = type(interpreter.interpreter_semantic)
        share_shapes(tl.core, semantic)
        share_operands(tl.core, semantic)
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=builder.options.debug)


def _call_members_directly(interpreter: Any) -> None:
    """Gives members of ``triton.language`` the semantics without asking twice whether they have it.

    What the interpreter puts in a member's place copies its keywords to replace one, and calls the
    member's wrapper, which looks for that one. Each launch looks for the members anew, among all
    names of four modules and classes (``_patch_attr`` and ``_patch_builtin`` in
    ``triton/runtime/interpreter.py``, ``builtin`` in ``triton/language/core.py``).
    """
    import triton.language as tl  # noqa: PLC0415 - as in `repair`

    upstream, semantic = (
        interpreter._patch_builtin,
        getattr(interpreter, "interpreter_semantic", None),
    )
    known: dict[Any, list[tuple[str, Any]]] = {}

    def with_semantic(inner: Any) -> Any:
        def member(*args: Any, **kwargs: Any) -> Any:
            kwargs["_semantic"] = semantic
            return inner(*args, **kwargs)

        return member

    def patch_builtin(owner: Any, builder: Any, *scope: Any) -> None:
        if semantic is None or not scope:
            upstream(owner, builder, *scope)
            return
        if owner not in known:
            known[owner] = [
                (name, with_semantic(getattr(member, "__wrapped__", member)))
                for name, member in inspect.getmembers(owner)
                if tl.core.is_builtin(member)
            ]
        for name, member in known[owner]:
            scope[0].set_attr(owner, name, member)

    interpreter._patch_builtin = patch_builtin


def _float8(widen: Any, convert: Any) -> tuple[set[Any], Any, Any]:
    """The fp8 types, and conversions to them (to nearest even, saturated) and from them (exact)."""
    import numpy as np  # noqa: PLC0415 - as in `repair`
    import torch  # noqa: PLC0415
    import triton.language as tl  # noqa: PLC0415
    from triton.runtime.interpreter import TensorHandle  # noqa: PLC0415

    handle: Any = TensorHandle
    encodings = {
        tl.float8e4nv: torch.float8_e4m3fn,
        tl.float8e4b8: torch.float8_e4m3fnuz,
        tl.float8e5: torch.float8_e5m2,
        tl.float8e5b16: torch.float8_e5m2fnuz,
    }
    every_byte = torch.arange(256, dtype=torch.uint8)
    decoded = {kind: every_byte.view(dtype).float().numpy() for kind, dtype in encodings.items()}

    def to_float8(source: Any, kind: Any) -> Any:
        wide = torch.from_numpy(np.array(widen(source), dtype=np.float32))
        limit = torch.finfo(encodings[kind]).max
        stored = wide.clamp(-limit, limit).to(encodings[kind]).view(torch.uint8)
        return handle(stored.numpy().reshape(source.data.shape), kind)

    def from_float8(source: Any, dst_type: Any) -> Any:
        return convert(handle(decoded[source.dtype.scalar][source.data], tl.float32), dst_type)

    return set(encodings), to_float8, from_float8


def _pairwise_sum(upstream: Any, widen: Any, narrow: Any) -> Any:
    """Sums in bfloat16 that round after every addition, as the compiled tree of them does."""
    import numpy as np  # noqa: PLC0415 - as in `repair`
    import triton.language as tl  # noqa: PLC0415

    def pairwise_sum(self: Any, source: Any) -> Any:
        if source.dtype.scalar != tl.bfloat16:
            return upstream(self, source)
        wide = widen(source.handle)
        axis = 0 if self.axis is None else self.axis
        wide = np.moveaxis(wide.reshape(-1) if self.axis is None else wide, axis, 0)
        while len(wide) > 1:
            half = len(wide) // 2
            added = narrow(wide[:half] + wide[half : 2 * half]).astype(np.uint32) << 16
            wide = np.concatenate([added.view(np.float32), wide[2 * half :]])
        total = narrow(np.expand_dims(wide[0], axis) if self.keep_dims else wide[0])
        return self.to_tensor(total, source.dtype)

    return pairwise_sum
