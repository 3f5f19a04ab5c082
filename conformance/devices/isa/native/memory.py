"""Memory accesses of a whole wave as LLVM IR: checked against the launch's buffers, then done.

Native code finds where an access is wrong only to stop: the launch is then undone and interpreted.
For that, a buffer is copied before it is first stored to. Each access keeps the buffer that it last
used in a slot of its own (start, end, and whether there is anything in it that nobody wrote): one
comparison a vector of addresses. Of such a buffer each word that is loaded is looked at.
"""

from __future__ import annotations

from .context import field

# The interpreter stores what is not aligned byte by byte: where lanes overlap, only it knows how.
_ALIGNED = f"""
  %low = call i64 @llvm.vector.reduce.or.v8i64(<8 x i64> %ored1)
  %odd = and i64 %low, 3
  %fw = {field("fault")}
  %was = load i64, ptr %fw
  %is = or i64 %was, %odd
  store i64 %is, ptr %fw
"""
# Whether every wanted lane's address lies between two ends: %bad has a bit for each that does not.
_CHECK = """
  %room0 = sub i64 %end, %start
  %room = sub i64 %room0, {size}
  %fits = icmp sge i64 %room, 0
  %cs = insertelement <8 x i64> poison, i64 %start, i64 0
  %sv = shufflevector <8 x i64> %cs, <8 x i64> poison, <8 x i32> zeroinitializer
  %cr = insertelement <8 x i64> poison, i64 %room, i64 0
  %rv = shufflevector <8 x i64> %cr, <8 x i64> poison, <8 x i32> zeroinitializer
  br label %check
check:
  %c = phi i64 [0, %entry], [%c1, %check]
  %sum = phi i64 [0, %entry], [%sum1, %check]
  %ored = phi <8 x i64> [zeroinitializer, %entry], [%ored1, %check]
  %ap = getelementptr <8 x i64>, ptr %addresses, i64 %c
  %a = load <8 x i64>, ptr %ap, align 64
  %d = sub <8 x i64> %a, %sv
  %o = icmp ugt <8 x i64> %d, %rv
  %b8 = bitcast <8 x i1> %o to i8
  %b64 = zext i8 %b8 to i64
  %up = shl i64 %c, 3
  %at8 = shl i64 %b64, %up
  %sum1 = or i64 %sum, %at8
  %mine = lshr i64 %wanted, %up
  %mine8 = trunc i64 %mine to i8
  %mines = bitcast i8 %mine8 to <8 x i1>
  %own = select <8 x i1> %mines, <8 x i64> %a, <8 x i64> zeroinitializer
  %ored1 = or <8 x i64> %ored, %own
  %c1 = add i64 %c, 1
  %last = icmp eq i64 %c1, {chunks}
  br i1 %last, label %checked, label %check
checked:
{alignment}  %all = select i1 %fits, i64 %sum1, i64 -1
  %bad = and i64 %all, %wanted
  %good = icmp eq i64 %bad, 0
  br i1 %good, label %go, label %slow
"""

_SLOW_GLOBAL = f"""
slow:
  %anyp = {field("any_marked")}
  %any = load i64, ptr %anyp
  br label %seek
seek:
  %todo = phi i64 [%wanted, %slow], [%todo1, %sought]
  %ok0 = phi i64 [%wanted, %slow], [%ok1, %sought]
  %done = icmp eq i64 %todo, 0
  br i1 %done, label %go, label %one
one:
  %lane0 = call i64 @llvm.cttz.i64(i64 %todo, i1 true)
  %less = sub i64 %todo, 1
  %todo1 = and i64 %todo, %less
  %lp = getelementptr i64, ptr %addresses, i64 %lane0
  %la = load i64, ptr %lp
  %number = call i64 @find(ptr %ctx, i64 %la, i64 {{size}})
  %missing = icmp slt i64 %number, 0
  br i1 %missing, label %lost, label %kept
lost:
  %bit = shl i64 1, %lane0
  %others = xor i64 %bit, -1
  %ok2 = and i64 %ok0, %others
  br label %sought
kept:
  call void @keep(ptr %ctx, i64 %number, ptr %slot, i1 {{stores}})
  br label %sought
sought:
  %ok1 = phi i64 [%ok2, %lost], [%ok0, %kept]
  br label %seek
go:
  %ok = phi i64 [%wanted, %checked], [%ok0, %seek]
  %mark = phi i64 [%slot_mark, %checked], [%any, %seek]
"""
_SLOW_LDS = f"""
slow:
  %f = {field("fault")}
  store i64 1, ptr %f
  %not = xor i64 %bad, -1
  %ok0 = and i64 %wanted, %not
  br label %go
go:
  %ok = phi i64 [%wanted, %checked], [%ok0, %slow]
"""


def _limits(space: str) -> str:
    if space == "lds":
        return (
            f"  %lp0 = {field('lds_bytes')}\n  %end = load i64, ptr %lp0\n  %start = add i64 0, 0\n"
        )
    return (
        "  %start = load i64, ptr %slot\n  %slot1 = getelementptr i64, ptr %slot, i64 1\n"
        "  %end = load i64, ptr %slot1\n"
        "  %slot2 = getelementptr i64, ptr %slot, i64 2\n  %slot_mark = load i64, ptr %slot2\n"
    )


def _place(space: str, lane: str, name: str) -> str:
    """The pointer to a lane's bytes."""
    text = (
        f"  %{name}p = getelementptr i64, ptr %addresses, i64 {lane}\n"
        f"  %{name}a = load i64, ptr %{name}p\n"
    )
    if space == "lds":
        return text + f"  %{name} = getelementptr i8, ptr %lds, i64 %{name}a\n"
    return text + f"  %{name} = inttoptr i64 %{name}a to ptr\n"


def _head(space: str, size: int, lanes: int, stores: bool) -> str:
    slow = _SLOW_LDS if space == "lds" else _SLOW_GLOBAL
    text = _limits(space) + _CHECK + slow
    return text.format(
        size=size,
        chunks=lanes // 8,
        stores="true" if stores else "false",
        alignment=_ALIGNED if stores and size >= 4 else "",
    )


def _fetch(size: int, lanes: int, source: str, lane: str, name: str) -> str:
    """From memory to the lane's place in each row of words."""
    if size < 4:
        kind = f"i{8 * size}"
        return (
            f"  %{name}n = load {kind}, ptr {source}, align 1\n"
            f"  %{name}w = zext {kind} %{name}n to i32\n"
            f"  %{name}o = getelementptr i32, ptr %out, i64 {lane}\n"
            f"  store i32 %{name}w, ptr %{name}o\n"
        )
    text = ""
    for word in range(size // 4):
        text += (
            f"  %{name}s{word} = getelementptr i32, ptr {source}, i64 {word}\n"
            f"  %{name}w{word} = load i32, ptr %{name}s{word}, align 1\n"
            f"  %{name}r{word} = getelementptr i32, ptr %out, i64 {word * lanes}\n"
            f"  %{name}o{word} = getelementptr i32, ptr %{name}r{word}, i64 {lane}\n"
            f"  store i32 %{name}w{word}, ptr %{name}o{word}\n"
        )
    return text


def load_function(space: str, size: int, lanes: int, check: str = "") -> str:
    """``wanted`` lanes load ``size`` bytes into rows of words; the rest of ``running`` get 0.

    ``check`` is what is done before, with the lanes that may be accessed in %ok.
    """
    whole = (1 << lanes) - 1 if lanes < 64 else -1
    zeros = "".join(
        f"  %zr{w} = getelementptr i32, ptr %out, i64 {w * lanes}\n"
        f"  %zo{w} = getelementptr i32, ptr %zr{w}, i64 %l\n"
        f"  store i32 0, ptr %zo{w}\n"
        for w in range(max(size // 4, 1))
    )
    return (
        f"define internal void @{space}_load_{size}(ptr noalias %ctx, ptr noalias %lds, "
        "ptr noalias %slot, ptr noalias %addresses, i64 %wanted, i64 %running, "
        "ptr noalias %out) #1 {\nentry:\n"
        + _head(space, size, lanes, stores=False)
        + check
        + f"  %every = icmp eq i64 %ok, {whole}\n  br i1 %every, label %full, label %some\n"
        "full:\n  %i = phi i64 [0, %go], [%i1, %full]\n"
        + _place(space, "%i", "q")
        + _fetch(size, lanes, "%q", "%i", "x")
        + f"  %i1 = add i64 %i, 1\n  %end1 = icmp eq i64 %i1, {lanes}\n"
        "  br i1 %end1, label %out1, label %full\n"
        "some:\n  %m = phi i64 [%running, %go], [%m1, %next]\n"
        "  %empty = icmp eq i64 %m, 0\n  br i1 %empty, label %out1, label %take\n"
        "take:\n  %l = call i64 @llvm.cttz.i64(i64 %m, i1 true)\n  %m0 = sub i64 %m, 1\n"
        "  %m1 = and i64 %m, %m0\n  %w0 = lshr i64 %ok, %l\n  %w1 = trunc i64 %w0 to i1\n"
        "  br i1 %w1, label %get, label %zero\n"
        "get:\n"
        + _place(space, "%l", "p")
        + _fetch(size, lanes, "%p", "%l", "y")
        + "  br label %next\nzero:\n"
        + zeros
        + "  br label %next\nnext:\n  br label %some\nout1:\n"
        + (_LOOK.format(size=size) if space == "global" else "  ret void\n")
        + "}\n"
    )


# Each lane's words, where the buffer has any that nobody wrote.
_LOOK = """
  %looks = icmp ne i64 %mark, 0
  br i1 %looks, label %look, label %leave
look:
  %n = phi i64 [%ok, %out1], [%n1, %looked]
  %over = icmp eq i64 %n, 0
  br i1 %over, label %leave, label %looked
looked:
  %k = call i64 @llvm.cttz.i64(i64 %n, i1 true)
  %n0 = sub i64 %n, 1
  %n1 = and i64 %n, %n0
  %kp = getelementptr i64, ptr %addresses, i64 %k
  %ka = load i64, ptr %kp
  call void @look(ptr %ctx, i64 %ka, i64 {size})
  br label %look
leave:
  ret void
"""


def store_function(space: str, size: int, lanes: int, check: str = "") -> str:
    """``wanted`` lanes store: words, or bytes where narrow; of two lanes the later one wins."""
    body = ""
    units = size // 4 if size >= 4 else size
    for unit in range(units):
        kind, step = ("i32", 4) if size >= 4 else ("i8", 1)
        word = unit if size >= 4 else 0
        narrow = (
            f"  %b{unit} = lshr i32 %v{unit}, {8 * unit}\n  %n{unit} = trunc i32 %b{unit} to i8\n"
        )
        value = f"%v{unit}" if size >= 4 else f"%n{unit}"
        after = f"w{unit + 1}" if unit + 1 < units else "over"
        body += (
            f"  br label %h{unit}\nh{unit}:\n"
            f"  %m{unit} = phi i64 [%ok, %{f'w{unit}' if unit else 'go'}], [%k{unit}, %t{unit}]\n"
            f"  %e{unit} = icmp eq i64 %m{unit}, 0\n"
            f"  br i1 %e{unit}, label %{after}, label %t{unit}\n"
            f"t{unit}:\n  %l{unit} = call i64 @llvm.cttz.i64(i64 %m{unit}, i1 true)\n"
            f"  %j{unit} = sub i64 %m{unit}, 1\n  %k{unit} = and i64 %m{unit}, %j{unit}\n"
            + _place(space, f"%l{unit}", f"p{unit}")
            + f"  %d{unit} = getelementptr i8, ptr %p{unit}, i64 {step * unit}\n"
            f"  %r{unit} = getelementptr i32, ptr %rows, i64 {word * lanes}\n"
            f"  %s{unit} = getelementptr i32, ptr %r{unit}, i64 %l{unit}\n"
            f"  %v{unit} = load i32, ptr %s{unit}\n"
            + ("" if size >= 4 else narrow)
            + f"  store {kind} {value}, ptr %d{unit}, align 1\n  br label %h{unit}\n"
        )
        if unit + 1 < units:
            body += f"w{unit + 1}:\n"
    return (
        f"define internal void @{space}_store_{size}(ptr noalias %ctx, ptr noalias %lds, "
        "ptr noalias %slot, ptr noalias %addresses, i64 %wanted, ptr noalias %rows) #1 {\nentry:\n"
        + _head(space, size, lanes, stores=True)
        + check
        + body
        + "over:\n  ret void\n}\n"
    )


def scalar_load_function(size: int) -> str:
    """One value for the wave; zeros where it may not be read."""
    kind = f"<{max(size // 4, 1)} x i32>"
    fetch = f"%v = load {kind}, ptr %p, align 1"
    if size < 4:
        fetch = (
            f"%n = load i{8 * size}, ptr %p, align 1\n  %w = zext i{8 * size} %n to i32\n"
            f"  %v = insertelement {kind} poison, i32 %w, i64 0"
        )
    return f"""
define internal {kind} @scalar_load_{size}(ptr noalias %ctx, ptr noalias %slot, i64 %at) #1 {{
entry:
  %start = load i64, ptr %slot
  %slot1 = getelementptr i64, ptr %slot, i64 1
  %end = load i64, ptr %slot1
  %last = add i64 %at, {size}
  %after = icmp sge i64 %at, %start
  %before = icmp sle i64 %last, %end
  %inside = and i1 %after, %before
  br i1 %inside, label %go, label %seek
seek:
  %number = call i64 @find(ptr %ctx, i64 %at, i64 {size})
  %missing = icmp slt i64 %number, 0
  br i1 %missing, label %lost, label %kept
lost:
  ret {kind} zeroinitializer
kept:
  call void @keep(ptr %ctx, i64 %number, ptr %slot, i1 false)
  br label %go
go:
  %slot2 = getelementptr i64, ptr %slot, i64 2
  %mark = load i64, ptr %slot2
  %looks = icmp ne i64 %mark, 0
  br i1 %looks, label %look, label %take
look:
  call void @look(ptr %ctx, i64 %at, i64 {size})
  br label %take
take:
  %p = inttoptr i64 %at to ptr
  {fetch}
  ret {kind} %v
}}
"""


def helper(name: str, lanes: int, check: str = "") -> str:
    """The text of a function by its name, such as ``global_load_16`` or ``lds_store_4``."""
    space, kind, size = name.split("_")
    if space == "scalar":
        return scalar_load_function(int(size))
    made = load_function if kind == "load" else store_function
    return made(space, int(size), lanes, check)
