"""What can be shown of a kernel's machine code without luck: about every way through it.

:mod:`.registers` says what an instruction reads and writes, from the same traces that become native
code; :mod:`.waits` shows that nothing is used before the wait that guards it; :mod:`.hazards` that
nothing is used too soon after another instruction, by the tables of :mod:`.hazard_rules`.
"""
