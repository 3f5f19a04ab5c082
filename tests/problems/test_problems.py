"""Problems: what they are made of, what they cover, and that they show what they are for."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import SuiteError, UsageError
from conformance.oracle import attention as oracle
from conformance.oracle.attention import attention
from conformance.oracle.judgement import Truth, judge, solve
from conformance.problems.adversarial import FAMILIES
from conformance.problems.cache_dtypes import FP8_CACHES
from conformance.problems.covering import Row, pairwise
from conformance.problems.families import backends, huge_cache_problem, problems_for
from conformance.problems.features import Features, admitted, features
from conformance.problems.problem import Problem
from conformance.problems.tensors import Tensors, dtype_of, materialise, poison_value, quantise
from conformance.problems.tiers import TIERS, default_tier
from tests.support.some import one_in
from vllm_editions import load_edition

torch.set_num_threads(1)  # tiny tensors: more threads only wait

SEED = 36702
# Backends whose caches are rows of bytes: see test_packed_caches.py and test_ds_mla.py.
IN_ROWS = {
    backend for backend in backends() if admitted(backend).packed or admitted(backend).windowed
}
USUAL = [backend for backend in backends() if backend not in IN_ROWS]
QUICK = [p for backend in USUAL for p in problems_for(backend, "quick", SEED)]


def problem_of(**fields: Any) -> Problem:
    usual: dict[str, Any] = {
        "kind": "paged",
        "backend": "TRITON_ATTN",
        "id": "a test's",
        "seed": 3,
        "query_lens": (1, 5, 0),
        "context_lens": (37, 0, 20),
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_size": 32,
        "v_head_size": 32,
    }
    return Problem(**{**usual, **fields})


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("backend", backends())
def test_json_round_trip_and_distinct_ids(backend: str, tier: str) -> None:
    made = problems_for(backend, tier, SEED)
    assert len({p.id for p in made}) == len(made)
    for problem in made:
        assert Problem.from_json(json.dumps(problem.to_json())) == problem


def test_not_a_problem() -> None:
    for bad in ("{", "[]", '{"kind": "paged"}', {**problem_of().to_json(), "dtype": "int8"}):
        with pytest.raises(SuiteError, match="not a problem"):
            Problem.from_json(bad)
    for fields, words in (
        ({"num_kv_heads": 3}, "no multiple"),
        ({"dominant": ((0, 38),)}, "no sequence has"),
        ({"context_lens": (1, 2)}, "differ in length"),
        ({"topk": 3}, "sparse"),
        ({"mm_prefix": ((),)}, "one entry per sequence"),
    ):
        with pytest.raises(SuiteError, match=words):
            materialise(problem_of(**fields))


def test_a_backend_that_came_later_is_asked_what_its_first_edition_admits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {name: Features(name, ("paged",), "a file") for name in ("ROCM_OCTAVE", "NOBODYS")}
    monkeypatch.setattr("conformance.problems.features.features", lambda: rows)
    asked = admitted.__wrapped__
    assert "ROCM_OCTAVE" not in load_edition("0.19").backends
    assert asked("ROCM_OCTAVE", "0.19").head_sizes == (256,)
    with pytest.raises(UsageError, match="no edition says what NOBODYS supports"):
        asked("NOBODYS", "0.19")


def test_unknown_backend_or_tier() -> None:
    with pytest.raises(UsageError, match="TRITON_ATTN"):
        problems_for("TRITON_ATN", "quick")
    with pytest.raises(UsageError, match="unknown tier"):
        problems_for("TRITON_ATTN", "long")


def test_every_family_of_edges_is_in_some_tier_and_every_name_is_a_family() -> None:
    named = {name for tier in TIERS.values() for names in tier.edges.values() for name in names}
    assert named == FAMILIES.keys()


@pytest.mark.parametrize(
    ("device", "quick", "tier"),
    [
        ("interpreter", False, "standard"),
        ("interpreter", True, "quick"),
        ("gpu", False, "gpu"),
        ("gpu", True, "quick"),
        ("isa:gfx942", False, "isa"),
        ("isa:gfx1100,serial", True, "isa-quick"),
        ("aot:gfx942", False, "standard"),
    ],
)
def test_the_tier_of_a_run_that_names_none(device: str, quick: bool, tier: str) -> None:
    assert default_tier(device, quick=quick) == tier


@pytest.mark.parametrize(
    "change",
    [
        {"most_rows": {"paged": 2}},
        {"repeats": 2},
        {"random_rows": 5},
        {"head_sizes": (32,)},
        {"block_sizes": (128,)},
        {"groups": (2,)},
        {"length_scale": 3},
        {"varied_kv_heads": True},
        {"edges": {"paged": ("sinks", "windows")}},
        {"edge_block_sizes": (16, 32, 544)},
        {"edge_groups": (7,)},
        {"edge_head_sizes": 1},
        {"small": False},
        {"emulated": True},
        {"long": True},
    ],
    ids=str,
)
def test_what_the_table_says_of_a_tier_is_what_its_problems_are(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    usual = problems_for("ROCM_ATTN", "quick", 1)
    monkeypatch.setitem(TIERS, "quick", replace(TIERS["quick"], **change))
    assert problems_for("ROCM_ATTN", "quick", 1) != usual


def digest() -> str:
    """Of every bit of every tensor of a few problems of each backend."""
    found = hashlib.sha256()
    for backend in backends():
        for problem in problems_for(backend, "quick", 5)[::6]:
            found.update(problem.id.encode())
            for name, tensor in materialise(problem).named().items():
                found.update(name.encode())
                found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def test_the_same_in_every_process() -> None:
    """Names and bits depend on the seed alone, not on a process's hash seed."""
    code = "import tests.problems.test_problems as t; print(t.digest())"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "12", "PATH": ""},
    )
    assert run.stdout.strip() == digest()
    assert problems_for("TRITON_ATTN", "quick", 5) != problems_for("TRITON_ATTN", "quick", 6)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("backend", backends())
def test_only_what_the_backend_admits(backend: str, tier: str) -> None:
    row, table = features()[backend], load_edition("0.19").backends.get(backend)
    for problem in problems_for(backend, tier, SEED):
        assert problem.backend == backend and problem.kind in row.kinds, problem
        assert (
            problem.is_latent
            or problem.kind == "indexer"
            or problem.head_size in (admitted(backend).head_sizes)
        ), problem
        if problem.kind == "indexer":
            assert problem.dtype == "bfloat16" or problem.kv_cache_dtype != "auto", problem
        elif table is not None:
            assert problem.dtype in table.dtypes, problem
            assert problem.kv_cache_dtype in admitted(backend).caches, problem
        if table is not None and problem.has_cache:
            sizes = table.block_sizes
            assert not sizes or any(problem.block_size % b == 0 for b in sizes), problem
            assert not problem.sinks or table.sinks, problem
            assert not problem.mm_prefix or table.mm_prefix, problem
            assert problem.key_lens is None or "encoder_decoder" in table.attn_types, problem
        assert not problem.soft_cap or row.soft_cap, problem
        assert problem.alibi != "sqrt" or row.alibi_sqrt, problem
        assert problem.alibi == "none" or row.alibi, problem
        windowed = row.window or row.encoder_window or problem.is_ds_mla
        assert max(problem.window) < 0 or windowed, problem
        if problem.kind == "mla" and "long" not in problem.tags:
            assert row.query_lens != "one" or set(problem.query_lens) == {1}, problem
            assert row.query_lens != "uniform" or len(set(problem.query_lens)) == 1, problem
        assert (
            not row.query_heads
            or problem.kind == "indexer"
            or (problem.num_heads in row.query_heads)
        ), problem


def test_tiers_are_large_enough_and_cheap_enough() -> None:
    made = {t: [p for b in backends() for p in problems_for(b, t, SEED)] for t in TIERS}
    assert len(made["quick"]) <= 275
    assert len(made["standard"]) >= 600
    assert len(made["gpu"]) >= 3000
    longest = max(made["gpu"], key=lambda p: max(p.seq_lens))
    assert max(longest.seq_lens) == 131_072
    assert max(max(p.query_lens) for p in made["gpu"]) == 16_384
    for tier in ("quick", "standard"):
        assert max(max(p.seq_lens) for p in made[tier]) < 2400
    assert len(made["isa"]) <= 210 and len(made["isa-quick"]) <= 60
    for tier in ("isa", "isa-quick"):
        assert max(max(p.seq_lens) for p in made[tier]) <= 600
        assert max(p.num_tokens * p.num_heads for p in made[tier]) <= 3000


@pytest.mark.parametrize("tier", ["isa", "isa-quick"])
def test_emulated_tiers_have_what_changes_code(tier: str) -> None:
    """Of every kind some, in both dtypes; each backend is asked what its kernels can do."""
    made = [p for b in backends() for p in problems_for(b, tier, SEED)]
    assert {p.kind for p in made} == {kind for f in features().values() for kind in f.kinds}
    assert {p.dtype for p in made} == {"float16", "bfloat16"}
    dense = [p for p in made if p.kind in ("paged", "varlen") and not features()[p.backend].hip]
    assert {p.head_size for p in dense} == {64, 80, 128}
    assert {p.backend for p in made} == {*backends()} - {"TORCH_SDPA"}
    assert not any(p.backend == "FLEX_ATTENTION" and p.kind == "varlen" for p in made)
    for name in backends():
        row, table = features()[name], admitted(name)
        mine = [p for p in made if p.backend == name and p.kind == "paged"]
        if "paged" not in row.kinds or name in IN_ROWS:
            continue
        assert any(p.soft_cap for p in mine) or not row.soft_cap, name
        assert any(max(p.window) >= 0 for p in mine) or not row.window, name
        assert any(p.sinks for p in mine) or not table.sinks, name
        assert any(p.alibi != "none" for p in mine) or not row.alibi, name
        assert any(p.kv_cache_dtype in FP8_CACHES for p in mine) or len(table.caches) == 1, name
        assert any(max(p.context_lens) > 500 for p in mine), f"{name}: nothing to split"


@pytest.mark.parametrize("backend", ["ROCM_ATTN", "TRITON_ATTN"])
def test_standard_has_every_size_that_matters(backend: str) -> None:
    made = [p for p in problems_for(backend, "standard", SEED) if p.kind == "paged"]
    assert {p.head_size for p in made} == set(admitted(backend).head_sizes)
    assert {p.block_size for p in made} == {16, 32, 48, 64, 128, 544, 784, 1056}
    assert {p.group for p in made} >= {1, 2, 3, 4, 5, 7, 8, 16}
    assert {p.kv_cache_dtype for p in made} == {"auto", *FP8_CACHES}
    assert {p.poison for p in made} == {"nan", "inf", "huge"}
    assert (
        {bool(p.skipped_writes) for p in made}
        == {bool(p.extra_rows) for p in made}
        == {False, True}
    )
    assert {bool(p.head_pad) for p in made} == {bool(p.row_pad) for p in made} == {False, True}
    lens = {n for p in made for n in p.seq_lens}
    edges = (16, 32, 64, 128, 256, 512)
    assert lens >= {1, *(e + off for e in edges for off in (0, 1)), 15, 31, 127, 255}
    tags = {tag for p in made for tag in p.tags}
    assert tags >= {
        *("first_and_last", "block_edge", "partition_edge", "tile_edge", "segment_edge"),
        *("causal_edge", "causal_edge_after_context", "context_edge", "window_edge"),
        *("prefix_edge", "large_logits", "fp8_scales", "many_sequences"),
    }


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=5),
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
    st.integers(0, 999),
)
def test_pairwise_covers_every_pair_that_can_be(
    counts: list[int], forbidden: set[tuple[int, int]], seed: int
) -> None:
    """Against all rows there are: the pairs in any allowed one are in one that was made."""
    values = {f"p{i}": [10 * i + v for v in range(count)] for i, count in enumerate(counts)}

    def allowed(row: Row) -> bool:
        last = len(counts) - 1
        pair = (row.get("p0", -1), row.get(f"p{last}", -1) - 10 * last)
        return pair not in forbidden

    rows = pairwise(values, random.Random(seed), allowed)
    every = (dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))
    wanted = {pair for row in every if allowed(row) for pair in combinations(row.items(), 2)}
    assert {pair for row in rows for pair in combinations(row.items(), 2)} == wanted
    assert all(allowed(row) for row in rows)
    assert len(rows) <= max(1, len(wanted))


def test_pairwise_is_small() -> None:
    rows = pairwise({f"p{i}": range(4) for i in range(8)}, random.Random(1))
    assert len(rows) < 40  # of 65,536


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(QUICK))
def test_tensors_fit_together(problem: Problem) -> None:
    """Slots are distinct, lie in owned blocks, and hold what the packed keys are."""
    tensors = materialise(problem)
    rows = problem.num_tokens + problem.extra_rows
    assert tensors.query.shape == (rows, problem.num_heads, problem.head_size)
    assert tensors.keys.shape == (problem.key_starts[-1], problem.num_kv_heads, problem.key_size)
    assert tensors.query[: problem.num_tokens].double().isfinite().all()
    assert tensors.keys.isfinite().all() and tensors.values.isfinite().all()
    if not problem.has_cache:
        assert tensors.block_table is None and tensors.key is None
        return
    written = cache_of(problem, tensors)
    for s, keys in enumerate(problem.seq_lens):
        for position in range(problem.kept_from(s), keys):
            slot = slot_of(problem, tensors, s, position)
            assert torch.equal(written.pop(slot), tensors.keys[problem.key_starts[s] + position])
    assert not written


def cache_of(problem: Problem, tensors: Tensors) -> dict[int, torch.Tensor]:
    """What a cache holds after the context's and the query tokens' writes: a key by slot."""
    assert tensors.context_slots is not None and tensors.context_key is not None
    writes = list(zip(tensors.context_slots.tolist(), tensors.context_key, strict=True))
    if tensors.slot_mapping is not None and tensors.key is not None:
        slots = tensors.slot_mapping.tolist()  # it ends before the last padding rows
        writes += zip(slots, tensors.key[: len(slots)], strict=True)
    slots = [slot for slot, _ in writes if slot != -1]
    assert len(set(slots)) == len(slots)
    skipped = sum(slot == -1 for slot, _ in writes)
    assert skipped == problem.skipped_writes + problem.extra_rows // 2 * problem.has_new_keys
    return {slot: key for slot, key in writes if slot != -1}


def slot_of(problem: Problem, tensors: Tensors, s: int, position: int) -> int:
    assert tensors.block_table is not None
    block = int(tensors.block_table[s, position // problem.block_size])
    assert 0 <= block < problem.num_blocks
    return block * problem.block_size + position % problem.block_size


def test_what_must_not_be_read_is_poisoned() -> None:
    problem = problem_of(head_pad=8, row_pad=2, extra_rows=3, skipped_writes=4, poison="nan")
    tensors = materialise(problem)
    for x in (tensors.query, tensors.key, tensors.value):
        assert x is not None
        assert x[: problem.num_tokens].isfinite().all() and x[problem.num_tokens :].isnan().all()
        whole = x.as_strided((x.untyped_storage().nbytes() // x.itemsize,), (1,), 0)
        assert int(whole.isfinite().sum()) == x[: problem.num_tokens].numel()
    assert tensors.context_key is not None and tensors.context_slots is not None
    assert tensors.context_key[tensors.context_slots == -1].isnan().all()
    assert tensors.block_table is not None
    table = tensors.block_table
    past = [table[s, -(-n // problem.block_size) :] for s, n in enumerate(problem.seq_lens)]
    assert all(len(p) and bool(((p < 0) | (p >= problem.num_blocks)).all()) for p in past)
    assert poison_value(replace(problem, poison="huge"), torch.float16) == 65504


def test_strides_survive_a_move() -> None:
    problem = problem_of(head_pad=8, row_pad=2)
    tensors = materialise(problem)
    moved = tensors.to(torch.device("meta"))
    assert moved.query.stride() == tensors.query.stride() != tensors.query.contiguous().stride()


@pytest.mark.parametrize("cache", FP8_CACHES)
def test_stored_values_do_not_depend_on_how_one_divides(cache: str) -> None:
    """``x / s`` and ``x * (1 / s)`` in float32 give one fp8 value, for every key and value."""
    problem = problem_of(
        kv_cache_dtype=cache, k_scale=0.0123, v_scale=0.0061, query_lens=(400,), context_lens=(600,)
    )
    tensors = materialise(problem)
    for x, scale in ((tensors.keys, problem.k_scale), (tensors.values, problem.v_scale)):
        by_reciprocal = x.float() * (1 / torch.tensor(scale))
        limit = torch.finfo(getattr(torch, cache.replace("fp8", "float8"))).max
        other = by_reciprocal.clamp(-limit, limit).to(
            getattr(torch, cache.replace("fp8", "float8"))
        )
        assert torch.equal(quantise(x, problem, scale).float(), other.float())


def test_dominant_keys_dominate_and_large_logits_are_large() -> None:
    problem = problem_of(query_lens=(1,), context_lens=(200,), dominant=((0, 77),), head_size=64)
    tensors = materialise(problem)
    ((_, operands),) = oracle.sequences(problem, tensors)
    (piece,) = oracle.pieces(problem, tensors, 0, operands)
    assert piece.weight[..., 77].mean() > 0.5
    problem = replace(problem, large_logits=True, dominant=())
    tensors = materialise(problem)
    ((_, operands),) = oracle.sequences(problem, tensors)
    (piece,) = oracle.pieces(problem, tensors, 0, operands)
    heads = piece.logit.reshape(4, -1)
    assert heads[::2].min() > 89 and heads[1::2].max() < -89  # exp overflows in float32 at 88.8


def test_huge_cache_needs_64_bit_offsets() -> None:
    problem = huge_cache_problem("ROCM_ATTN")
    slot = problem.num_kv_heads * problem.head_size
    tensors = materialise(problem)
    assert tensors.slot_mapping is not None
    assert (tensors.slot_mapping[: problem.num_tokens] * slot > 2**31).all()


@dataclass(frozen=True)
class View:
    """What a mask is made from: query positions [R, 1], key positions [1, N], what is seen."""

    problem: Problem
    s: int
    i: torch.Tensor
    j: torch.Tensor
    seen: torch.Tensor

    @property
    def context(self) -> int:
        return self.problem.context_lens[self.s]

    def under(self, **fields: Any) -> torch.Tensor:
        """What another problem would see."""
        other = replace(self.problem, **fields)
        return oracle_visible(other, self.s, self.i[:, 0], self.j[0])


def causal_plus_one(view: View) -> torch.Tensor:
    plain = view.problem.causal and view.problem.window == (-1, -1)
    return view.seen | (view.j == view.i + 1) if plain else view.seen


def without_partial_block(view: View) -> torch.Tensor:
    keys = view.problem.seq_lens[view.s]
    return view.seen & ((view.j < keys // 16 * 16) | torch.tensor(keys <= 16))


def without_context(view: View) -> torch.Tensor:
    extends = view.problem.has_cache and view.problem.query_lens[view.s] > 1
    return view.seen & (view.j >= view.context) if extends else view.seen


def shorter_ranges(view: View) -> torch.Tensor:
    ranges = view.problem.mm_prefix
    return view.under(mm_prefix=tuple(tuple((a, b - 1) for a, b in r) for r in ranges))


oracle_visible = oracle.visible
# Faults as masks: what a kernel would see wrongly.
MASKS: dict[str, Callable[[View], torch.Tensor]] = {
    "causal edge one too far": causal_plus_one,
    "causal edge one short": lambda v: v.seen & ~((v.j == v.i) & (v.i > 0) & v.problem.causal),
    "first key": lambda v: v.seen & ~((v.j == 0) & (v.i > 0)),
    "last partial block": without_partial_block,
    "first key of a block": lambda v: v.seen & ~((v.j == 16) & (v.i > 16)),
    "last key of a block": lambda v: v.seen & ~((v.j == 15) & (v.i > 15)),
    "last key of a large tile": lambda v: v.seen & ~((v.j == 127) & (v.i > 127)),
    "second partition": lambda v: v.seen & ~((v.j >= 256) & (v.j < 512)),
    "last partition": lambda v: v.seen & ~((v.j >= 512) & (v.i >= 512)),
    "first key of a partition": lambda v: v.seen & (v.j != 256),
    "context of an extended chunk": without_context,
    "prefix ranges": lambda v: v.under(mm_prefix=()),
    "last position of prefix ranges": shorter_ranges,
}


def window(left: int, right: int = 0) -> Callable[[Problem], Problem]:
    def wrong(problem: Problem) -> Problem:
        a, b = problem.window
        return replace(problem, window=(a + left if a >= 0 else a, b + right if b > 0 else b))

    return wrong


# Faults as another problem with the same tensors.
OTHERS: dict[str, Callable[[Problem], Problem]] = {
    "window one too wide": window(1),
    "window one too narrow": lambda p: window(-1)(p) if p.window[0] > 0 else p,
    "right side of a window": window(0, 1),
    "no soft cap": lambda p: replace(p, soft_cap=0.0),
    "square root left out": lambda p: replace(p, alibi=p.alibi.replace("sqrt", "linear")),  # type: ignore[arg-type]  # a literal
    "keys' scale for values": lambda p: replace(p, v_scale=p.k_scale),
    "scale applied twice": lambda p: replace(p, scale=p.softmax_scale**2),
    "two to the power instead of e": lambda p: replace(p, scale=p.softmax_scale * 0.6931),
}


def without_rope(problem: Problem, tensors: Tensors) -> Tensors:
    keys = tensors.keys.clone()
    keys[..., problem.latent_rank :] = 0
    return replace(tensors, keys=keys) if problem.is_latent else tensors


def modulo(problem: Problem, tensors: Tensors) -> Tensors:
    """Query head ``h`` reads KV head ``h % G``: the same as every head with that one's keys."""
    if problem.is_latent:
        return tensors
    order = torch.arange(problem.num_heads) % problem.num_kv_heads
    return replace(tensors, keys=tensors.keys[:, order], values=tensors.values[:, order])


def altered(
    name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[Problem, Tensors], Tensors]:
    """A fault in one tensor, where the problem has it."""

    def wrong(_: Problem, tensors: Tensors) -> Tensors:
        tensor = getattr(tensors, name)
        return tensors if tensor is None else replace(tensors, **{name: change(tensor)})

    return wrong


# Faults as other tensors.
TENSORS: dict[str, Callable[[Problem, Tensors], Tensors]] = {
    "no ALiBi": altered("alibi_slopes", lambda x: 0 * x),
    "no sinks": altered("sinks", lambda x: x - 1e4),
    "sinks twice": altered("sinks", lambda x: x + 0.6931),
    "sinks of another head": altered("sinks", lambda x: x.roll(1)),
    "rope part of MLA": without_rope,
    "one choice too few": altered("topk_indices", lambda x: x[:, :-1]),
    "values of the token before": altered("values", lambda x: x.roll(1, 0)),
    "KV heads by modulo": modulo,
}


def caught(wrong: Callable[[Problem, Tensors], torch.Tensor]) -> Counter[str]:
    """How many quick problems of each backend a wrong output shows in."""
    found: Counter[str] = Counter()
    for problem in QUICK:
        known = solved(problem)
        if known is None:
            continue
        tensors, truth = known
        output = wrong(problem, tensors).to(dtype_of(problem))
        found[problem.backend] += not judge(problem, truth, output).passed
    return found


@cache
def solved(problem: Problem) -> tuple[Tensors, Truth] | None:
    """A quick problem's tensors and truth; None for the indexer's, which is judged otherwise."""
    if problem.kind == "indexer":
        return None
    tensors = materialise(problem)
    return tensors, solve(problem, tensors, with_torch=False)


PAGED = {b for b in USUAL if "paged" in features()[b].kinds}
MLA = {b for b, row in features().items() if "mla" in row.kinds}
PACKED = set(USUAL) - MLA - {"ROCM_AITER_MLA_SPARSE", "ROCM_AITER_FA"}
CAPPED = {b for b, row in features().items() if row.soft_cap}
ALIBI = {b for b, row in features().items() if row.alibi}
STORED = {b for b in PAGED if admitted(b).caches != ("auto",)}
SINKS = {b for b in backends() if admitted(b).sinks}
PREFIX = {b for b in backends() if admitted(b).mm_prefix}
# Which backends' quick problems must show which fault.
SHOWN_BY: dict[str, set[str]] = {
    "causal edge one too far": PAGED | MLA,
    "causal edge one short": PAGED | MLA,
    "first key": set(USUAL),
    "last partial block": set(USUAL),
    "first key of a block": PAGED | MLA,
    "last key of a block": PAGED | MLA,
    "last key of a large tile": PAGED | MLA,
    "second partition": PAGED | MLA,
    "last partition": PAGED | MLA,
    "first key of a partition": PAGED | MLA,
    "context of an extended chunk": PAGED | MLA,
    "prefix ranges": PREFIX,
    "last position of prefix ranges": PREFIX,
    "window one too wide": PAGED,
    "window one too narrow": PAGED,
    "right side of a window": {"TRITON_ATTN", "FLEX_ATTENTION"},
    "no soft cap": CAPPED,
    "square root left out": {"TRITON_ATTN", "TRITON_ATTN_DIFFKV"},
    "keys' scale for values": STORED,
    "scale applied twice": set(USUAL),
    "two to the power instead of e": set(USUAL),
    "no ALiBi": ALIBI,
    "no sinks": SINKS,
    "sinks twice": SINKS,
    "sinks of another head": SINKS,
    "rope part of MLA": MLA | {"ROCM_AITER_MLA_SPARSE"},
    "one choice too few": {"ROCM_AITER_MLA_SPARSE"},
    "values of the token before": PAGED | PACKED,
    "KV heads by modulo": PAGED,
}


def as_heads(problem: Problem, fault: str) -> Problem:
    """For the fault that gives each query head keys of its own."""
    own = fault == "KV heads by modulo" and not problem.is_latent
    return replace(problem, num_kv_heads=problem.num_heads) if own else problem


@pytest.mark.parametrize("fault", one_in(3, [*MASKS, *OTHERS, *TENSORS]))
def test_quick_problems_show_faults(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong attention shows in a quick problem of every backend that it could be in."""
    if fault in MASKS:

        def visible(problem: Problem, s: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            seen = oracle_visible(problem, s, i, j)
            return MASKS[fault](View(problem, s, i[:, None], j[None, :], seen))

        for problem in QUICK:
            solved(problem)
        monkeypatch.setattr(oracle, "visible", visible)
        found = caught(lambda p, t: attention(p, t)[0])
    elif fault in OTHERS:
        found = caught(lambda p, t: attention(OTHERS[fault](p), t)[0])
    else:
        found = caught(lambda p, t: attention(as_heads(p, fault), TENSORS[fault](p, t))[0])
    assert {b for b, n in found.items() if n} >= SHOWN_BY[fault], found


def test_right_attention_shows_nothing() -> None:
    assert sum(caught(lambda p, t: attention(p, t)[0]).values()) == 0
