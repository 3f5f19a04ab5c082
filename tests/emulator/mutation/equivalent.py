"""Mutants that compute the same as the emulator, with the reason: no test can tell them apart."""

from __future__ import annotations

from tests.emulator.mutation.mutants import Mutant

# (module, before, after): why
EQUIVALENT: dict[tuple[str, str, str], str] = {}


def reason_of(one: Mutant) -> str:
    """Why a mutant is no fault; empty if it is one."""
    return EQUIVALENT.get((one.module, one.before, one.after), "")
