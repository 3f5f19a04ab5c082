"""The function that runs a workgroup's waves, each to its barrier, in an order; as LLVM IR.

It is what :class:`..machine.Machine` does with one workgroup, on the same arrays: a wave passes a
barrier's wait once every wave of its workgroup has signalled more often than it has waited.
"""

from __future__ import annotations

from .context import field
from .races import ROUNDS

# What a run of a workgroup ends with, besides those of a wave: a deadlock; no order for a round.
ENDS, DEADLOCK, NO_ORDER = 0, 5, 6
_ENDED = "9223372036854775807"
_ARGUMENTS = ", ".join(
    f"ptr %{name}"
    for name in ("vg", "sg", "sccp", "own_lds", "own", "ctx", "pcp", "signalp", "waitp")
)


def _load(name: str, kind: str = "ptr") -> str:
    return f"  %{name}_p = {field(name)}\n  %{name} = load {kind}, ptr %{name}_p\n"


# Where races are looked for: what the wave that runs next is known by.
_BEGINS = """
  %r_words_at = mul i64 %lds_at, 4
  %r_shadow = getelementptr i8, ptr %race_words, i64 %r_words_at
  %r_here = sub i64 %w, %first
  %r_mine = add i64 %r_here, 1
  %r_round = load i64, ptr %r_round_p
  %r_numbered = add i64 %group, %race_first
  %r_group = add i64 %r_numbered, 1
  %r_waited_p = getelementptr i64, ptr %waited, i64 %w
  %r_waited = load i64, ptr %r_waited_p
  %r_step = and i64 %r_waited, 16777215
  %r_signalled = load i64, ptr %signalp
  %r_parted = icmp ne i64 %r_signalled, %r_waited
  %r_between = zext i1 %r_parted to i64
""" + "".join(
    f"  %set_{name} = {field('race_' + name)}\n  store {kind} %r_{name}, ptr %set_{name}\n"
    for name, kind in {
        "shadow": "ptr", "mine": "i64", "round": "i64", "group": "i64", "step": "i64",
        "between": "i64",
    }.items()
)  # fmt: skip
# A number that comes again is told from an old one by clearing the record.
_NEXT_ROUND = f"""  %r_old = load i64, ptr %r_round_p
  %r_next = add i64 %r_old, 1
  %r_again = icmp eq i64 %r_next, {ROUNDS}
  br i1 %r_again, label %clear, label %numbered
clear:
  %r_bytes = mul i64 %lds_bytes, 4
  %r_from = mul i64 %lds_at, 4
  %r_own = getelementptr i8, ptr %race_words, i64 %r_from
  call void @llvm.memset.p0.i64(ptr %r_own, i8 0, i64 %r_bytes, i1 false)
  br label %numbered
numbered:
  %r_new = phi i64 [%r_next, %released], [1, %clear]
  store i64 %r_new, ptr %r_round_p
"""


def schedule(races: bool) -> str:
    """The text; ``races``: it keeps what the accesses' checks ask for."""
    if not races:
        return _SCHEDULE.format(known="", begins="", next_round="", declares="")
    known = _load("race_words") + _load("race_rounds") + _load("race_first", "i64")
    known += "  %r_round_p = getelementptr i64, ptr %race_rounds, i64 %group\n"
    declares = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
    return _SCHEDULE.format(known=known, begins=_BEGINS, next_round=_NEXT_ROUND, declares=declares)


_SCHEDULE = (
    """{declares}
define i64 @workgroup(ptr %ctx, i64 %first, i64 %count, i64 %group, i64 %serial) {{
entry:
"""
    + "".join(
        _load(name)
        for name in (
            *("vector", "scalar", "scc", "lds", "scratch", "pc", "signalled", "waited"),
            *("waiting", "order", "round"),
        )
    )
    + "".join(
        _load(name, "i64") for name in ("vector_stride", "scratch_stride", "lds_bytes", "rounds")
    )
    + f"""{{known}}  %ordered = icmp ne i64 %serial, 0
  %lds_at = mul i64 %group, %lds_bytes
  %own_lds = getelementptr i8, ptr %lds, i64 %lds_at
  %my_round = getelementptr i64, ptr %round, i64 %group
  %after = add i64 %first, %count
  br label %again
again:
  %now = load i64, ptr %my_round
  %beyond = icmp sge i64 %now, %rounds
  %unknown = and i1 %ordered, %beyond
  br i1 %unknown, label %no_order, label %head
no_order:
  ret i64 {NO_ORDER}
head:
  %i = phi i64 [%first, %again], [%next, %step]
  %stopped = phi i64 [0, %again], [%stopped1, %step]
  %more = icmp slt i64 %i, %after
  br i1 %more, label %pick, label %settle
pick:
  br i1 %ordered, label %drawn, label %chosen
drawn:
  %per_round = getelementptr ptr, ptr %order, i64 %now
  %row = load ptr, ptr %per_round
  %place = getelementptr i64, ptr %row, i64 %i
  %who = load i64, ptr %place
  br label %chosen
chosen:
  %w = phi i64 [%i, %pick], [%who, %drawn]
  %pcp = getelementptr i64, ptr %pc, i64 %w
  %at = load i64, ptr %pcp
  %ended = icmp eq i64 %at, {_ENDED}
  %waitp = getelementptr i8, ptr %waiting, i64 %w
  %wait = load i8, ptr %waitp
  %waits = icmp ne i8 %wait, 0
  %idle = or i1 %ended, %waits
  br i1 %idle, label %skip, label %go
skip:
  br label %step
go:
  %v_at = mul i64 %w, %vector_stride
  %vg = getelementptr i8, ptr %vector, i64 %v_at
  %s_at = mul i64 %w, 512
  %sg = getelementptr i8, ptr %scalar, i64 %s_at
  %sccp = getelementptr i8, ptr %scc, i64 %w
  %x_at = mul i64 %w, %scratch_stride
  %own = getelementptr i8, ptr %scratch, i64 %x_at
  %signalp = getelementptr i64, ptr %signalled, i64 %w
{{begins}}  %end = call i64 @kernel({_ARGUMENTS})
  %bad = icmp sgt i64 %end, 2
  br i1 %bad, label %leave, label %usual
leave:
  ret i64 %end
usual:
  %stops = icmp eq i64 %end, 2
  %at_once = and i1 %stops, %ordered
  br i1 %at_once, label %leave, label %noted
noted:
  %one = zext i1 %stops to i64
  br label %step
step:
  %new = phi i64 [0, %skip], [%one, %noted]
  %stopped1 = or i64 %stopped, %new
  %next = add i64 %i, 1
  br label %head
settle:
  %any_stopped = icmp ne i64 %stopped, 0
  br i1 %any_stopped, label %stop, label %least
stop:
  ret i64 2
least:
  %j = phi i64 [%first, %settle], [%j1, %least_next]
  %low = phi i64 [{_ENDED}, %settle], [%low1, %least_next]
  %all_over = phi i1 [true, %settle], [%all_over1, %least_next]
  %left = icmp slt i64 %j, %after
  br i1 %left, label %least_next, label %free
least_next:
  %sp = getelementptr i64, ptr %signalled, i64 %j
  %s = load i64, ptr %sp
  %smaller = icmp slt i64 %s, %low
  %low1 = select i1 %smaller, i64 %s, i64 %low
  %pj = getelementptr i64, ptr %pc, i64 %j
  %pv = load i64, ptr %pj
  %over = icmp eq i64 %pv, {_ENDED}
  %all_over1 = and i1 %all_over, %over
  %j1 = add i64 %j, 1
  br label %least
free:
  br i1 %all_over, label %done, label %release
done:
  ret i64 {ENDS}
release:
  %k = phi i64 [%first, %free], [%k1, %release_next]
  %any = phi i1 [false, %free], [%any1, %release_next]
  %remain = icmp slt i64 %k, %after
  br i1 %remain, label %look, label %released
look:
  %wk = getelementptr i8, ptr %waiting, i64 %k
  %wkv = load i8, ptr %wk
  %is_waiting = icmp ne i8 %wkv, 0
  %dk = getelementptr i64, ptr %waited, i64 %k
  %dkv = load i64, ptr %dk
  %enough = icmp sgt i64 %low, %dkv
  %leaves = and i1 %is_waiting, %enough
  br i1 %leaves, label %let, label %release_next
let:
  %dk1 = add i64 %dkv, 1
  store i64 %dk1, ptr %dk
  store i8 0, ptr %wk
  br label %release_next
release_next:
  %any1 = phi i1 [%any, %look], [true, %let]
  %k1 = add i64 %k, 1
  br label %release
released:
{{next_round}}  %then = add i64 %now, 1
  store i64 %then, ptr %my_round
  br i1 %any, label %again, label %deadlock
deadlock:
  ret i64 {DEADLOCK}
}}}}
"""
)
