"""What native code and Python share: a context of fields, and what a launch's buffers are."""

from __future__ import annotations

# Places of the fields in the context that native code and Python share, each 8 bytes.
FIELDS = (
    "fault",
    "buffers",
    "starts",
    "ends",
    "shadows",
    "saved",
    "lds_bytes",
    "budget",
    "slots",
    "counts",
    "temporary",
    "vector",
    "vector_stride",
    "scalar",
    "scc",
    "lds",
    "scratch",
    "scratch_stride",
    "pc",
    "signalled",
    "waited",
    "waiting",
    "order",
    "rounds",
    "round",
    "marked",
    "any_marked",
    "pattern",
    "loaded",
    "lanes_off",
    "race_words",
    "race_rounds",
    "race_stores",
    "race_first",
    "race_shadow",
    "race_mine",
    "race_round",
    "race_group",
    "race_step",
    "race_between",
)
# Bytes of what an access knows of the buffer that it last used.
SLOT = 24
CONTEXT = {name: 8 * place for place, name in enumerate(FIELDS)}


def field(name: str) -> str:
    """A constant expression cannot add to an argument, so a field's place is its offset."""
    return f"getelementptr i8, ptr %ctx, i64 {CONTEXT[name]}"


# find: the number of the buffer that holds so many bytes, or -1 and a fault. keep: notes a buffer
# in an access' slot, and copies it before it is first stored to. look: a fault if any word of an
# access holds what it held when nobody had written it.
FIND = f"""
define internal i64 @find(ptr %ctx, i64 %at, i64 %size) {{
entry:
  %np = {field("buffers")}
  %n = load i64, ptr %np
  %sp = {field("starts")}
  %starts = load ptr, ptr %sp
  %ep = {field("ends")}
  %ends = load ptr, ptr %ep
  %last = add i64 %at, %size
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %more]
  %left = icmp slt i64 %i, %n
  br i1 %left, label %look, label %none
look:
  %s = getelementptr i64, ptr %starts, i64 %i
  %start = load i64, ptr %s
  %e = getelementptr i64, ptr %ends, i64 %i
  %end = load i64, ptr %e
  %after = icmp sge i64 %at, %start
  %before = icmp sle i64 %last, %end
  %inside = and i1 %after, %before
  br i1 %inside, label %found, label %more
more:
  %next = add i64 %i, 1
  br label %head
found:
  ret i64 %i
none:
  %f = {field("fault")}
  store i64 1, ptr %f
  ret i64 -1
}}

define internal void @keep(ptr %ctx, i64 %number, ptr %slot, i1 %stores) {{
entry:
  %sp = {field("starts")}
  %starts = load ptr, ptr %sp
  %s = getelementptr i64, ptr %starts, i64 %number
  %start = load i64, ptr %s
  %ep = {field("ends")}
  %ends = load ptr, ptr %ep
  %e = getelementptr i64, ptr %ends, i64 %number
  %end = load i64, ptr %e
  store i64 %start, ptr %slot
  %slot2 = getelementptr i64, ptr %slot, i64 1
  store i64 %end, ptr %slot2
  %mp = {field("marked")}
  %marked = load ptr, ptr %mp
  %m = getelementptr i8, ptr %marked, i64 %number
  %is_marked = load i8, ptr %m
  %mark = zext i8 %is_marked to i64
  %slot3 = getelementptr i64, ptr %slot, i64 2
  store i64 %mark, ptr %slot3
  br i1 %stores, label %check, label %note
note:
  %lp = {field("loaded")}
  %loaded = load ptr, ptr %lp
  %l = getelementptr i8, ptr %loaded, i64 %number
  store i8 1, ptr %l
  br label %done
check:
  %vp = {field("saved")}
  %saved = load ptr, ptr %vp
  %v = getelementptr i8, ptr %saved, i64 %number
  %is = load i8, ptr %v
  %already = icmp ne i8 %is, 0
  br i1 %already, label %done, label %save
save:
  store i8 1, ptr %v
  %hp = {field("shadows")}
  %shadows = load ptr, ptr %hp
  %h = getelementptr ptr, ptr %shadows, i64 %number
  %shadow = load ptr, ptr %h
  %from = inttoptr i64 %start to ptr
  %size = sub i64 %end, %start
  call void @llvm.memcpy.p0.p0.i64(ptr %shadow, ptr %from, i64 %size, i1 false)
  br label %done
done:
  ret void
}}

define internal void @look(ptr %ctx, i64 %at, i64 %size) {{
entry:
  %pp = {field("pattern")}
  %pattern = load ptr, ptr %pp
  %first = and i64 %at, -4
  %after = add i64 %at, %size
  br label %word
word:
  %a = phi i64 [%first, %entry], [%a1, %next]
  %p = inttoptr i64 %a to ptr
  %is = load i32, ptr %p, align 4
  %place = and i64 %a, 65532
  %q = getelementptr i8, ptr %pattern, i64 %place
  %was = load i32, ptr %q, align 4
  %same = icmp eq i32 %is, %was
  br i1 %same, label %found, label %next
found:
  %f = {field("fault")}
  store i64 1, ptr %f
  ret void
next:
  %a1 = add i64 %a, 4
  %more = icmp slt i64 %a1, %after
  br i1 %more, label %word, label %done
done:
  ret void
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.vector.reduce.or.v8i64(<8 x i64>)
"""
