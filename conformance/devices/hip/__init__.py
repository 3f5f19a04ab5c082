"""HIP kernels of a vLLM release on a device of the suite: its own host code, its own kernels.

The sources are those of the release's source distribution, unmodified. :mod:`.clang` compiles an
operator's file twice: its host code into a library that this process calls, against small headers
that stand in for torch's and HIP's (``headers/``), and each kernel that the host code launches
into AMD machine code for the target. So the release itself chooses the kernel, its template
arguments, its grid and its arguments; :mod:`.operators` hands them to the emulator.

Upstream clang is not ROCm's: the code that is judged is that of the release's sources, not the
binary that ships. Like all of this package it needs no more than a subject's own Python has.
"""
