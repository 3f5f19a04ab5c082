"""AMD machine code as native code: the table of instructions, traced, compiled by LLVM.

From the bottom: :mod:`.symbols` (arrays that record what numpy does to them), :mod:`.trace` (one
instruction as effects on the registers), :mod:`.lower` (an expression as LLVM IR), :mod:`.memory`
and :mod:`.matrices` (accesses and matrix products as IR), :mod:`.plan`, :mod:`.region`,
:mod:`.block` and :mod:`.emit` (a kernel as IR),
:mod:`.compiler` (IR to an object, its cache on disk) and :mod:`.machine` (which waves run next).

What cannot be traced is interpreted, instruction by instruction, on the same registers. A launch in
which native code finds anything wrong is undone and interpreted: errors are the interpreter's.
llvmlite is an extra: without it everything is interpreted.
"""
