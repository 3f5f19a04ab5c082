"""The MLA backends in Triton's interpreter, against float64 attention written out per row.

The expected values come from :func:`attention` below, on purpose not from ``conformance.oracle``:
a mistake in the oracle that the kernels share would show here, where it could not show there.

Everything that must not be read is NaN or out of range: unmapped slots, padding rows and columns,
block table entries past a sequence's blocks. Memory that must not be written is compared with what
it held before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import tests.devices.interpreter  # noqa: F401 - before the kernels

# isort: split
from rocm_reference.attention import Batch, Geometry, Scales, Scores
from rocm_reference.backends.registry import backend
from rocm_reference.backends.rocm_aiter_mla import AiterMLA
from rocm_reference.backends.rocm_aiter_mla_sparse import AiterMLASparse
from rocm_reference.backends.triton_mla import TritonMLA
from rocm_reference.ops.mla.common import heads_per_tile

CPU = torch.device("cpu")
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
FN, FNUZ, E5M2 = torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2
GARBAGE = 2**31 - 1
SENTINEL = 7.0
PADDING_ROWS = 2
NAN = math.nan


@dataclass
class Setup:
    """A batch and what is in its cache; ``keys[s]`` float64 [N, D] as the cache gives them back."""

    geometry: Geometry
    batch: Batch
    scales: Scales
    cache: torch.Tensor
    slots: list[torch.Tensor]

    @property
    def rows(self) -> int:
        return int(self.batch.query_start_loc[-1])

    @property
    def keys(self) -> list[torch.Tensor]:
        flat = self.cache.flatten(0, 1).double() * self.scales.k
        return [flat[slots] for slots in self.slots]

    def positions(self) -> list[tuple[int, int, int]]:
        """``(row, sequence, position)`` of every query token."""
        starts, lens = self.batch.query_start_loc.tolist(), self.batch.seq_lens.tolist()
        return [
            (row, s, lens[s] - starts[s + 1] + row)
            for s in range(len(lens))
            for row in range(starts[s], starts[s + 1])
        ]


def set_up(
    queries: list[int],
    lens: list[int],
    heads: int,
    dtype: torch.dtype = F16,
    cache_dtype: torch.dtype | None = None,
    rank: int = 64,
    rope: int = 16,
    block: int = 16,
    seed: int = 0,
) -> Setup:
    torch.manual_seed(seed)
    size = rank + rope
    geometry = Geometry(heads, 1, size, rank, dtype, cache_dtype or dtype, block)
    counts = [math.ceil(n / block) for n in lens]
    total = sum(counts) + 2
    dealt = torch.randperm(total)
    table = torch.full((len(lens), max(counts) + 1), GARBAGE, dtype=torch.int32)
    # Blocks and slots stand apart: strides are not those of a dense tensor.
    cache = torch.full((total, block + 1, size + 16), NAN).to(geometry.cache_dtype)
    cache = cache[:, :block, :size]
    scales = Scales(k=0.37 if cache_dtype else 1.0)
    slots = []
    for s, n in enumerate(lens):
        mine = dealt[sum(counts[:s]) : sum(counts[: s + 1])]
        table[s, : counts[s]] = mine.int()
        position = torch.arange(n)
        slots.append(mine[position // block] * block + position % block)
        rows = stored(torch.randn(n, size).to(dtype), geometry, scales)
        cache[mine[position // block], position % block] = rows
    starts = torch.tensor([0, *queries]).cumsum(0).int()
    seq_lens = torch.tensor(lens, dtype=torch.int32)
    batch = Batch(starts, seq_lens, table, max(queries), max(lens))
    return Setup(geometry, batch, scales, cache, slots)


def stored(rows: torch.Tensor, geometry: Geometry, scales: Scales) -> torch.Tensor:
    """What a cache holds of rows: torch's own conversion, after saturation."""
    if geometry.cache_dtype == geometry.dtype:
        return rows
    largest = torch.finfo(geometry.cache_dtype).max
    scaled = rows.float() / torch.tensor(scales.k, dtype=F32)
    return scaled.clamp(-largest, largest).to(geometry.cache_dtype)


def strided(rows: torch.Tensor, more_rows: int = PADDING_ROWS, fill: float = NAN) -> torch.Tensor:
    """``rows`` [T, H, D] with padding rows behind, in a buffer that is wider in each dimension."""
    tokens, heads, size = rows.shape
    buffer = torch.full((tokens + more_rows, heads + 1, size + 8), fill, dtype=rows.dtype)
    buffer[:tokens, :heads, :size] = rows
    return buffer[:, :heads, :size]


class Results:
    """An output and a log-sum-exp that only the rows below ``rows`` of may change."""

    def __init__(self, rows: int, heads: int, columns: int, dtype: torch.dtype) -> None:
        self.rows = rows
        self.out = strided(torch.full((rows, heads, columns), NAN, dtype=dtype), fill=SENTINEL)
        self.out[rows:] = SENTINEL
        self.lse = strided(torch.full((rows, heads, 1), NAN), fill=SENTINEL)[..., 0]

    def check(self, row: int, out: torch.Tensor, lse: torch.Tensor, error: float) -> None:
        """Whether a row is float64 ``out`` [H, V] and ``lse`` [H], within ``error``."""
        torch.testing.assert_close(self.out[row].double(), out, rtol=0, atol=error)
        torch.testing.assert_close(self.lse[row].double(), lse, rtol=0, atol=max(error, 1e-4))

    def check_rest(self) -> None:
        """Whether nothing else was written."""
        assert self.out._base is not None and self.lse._base is not None
        for whole, view in ((self.out._base, self.out), (self.lse._base, self.lse[..., None])):
            rest = whole.clone()
            rest[: self.rows, : view.shape[1], : view.shape[2]] = SENTINEL
            assert (rest == SENTINEL).all()


def attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row: ``query`` [H, D], ``keys`` [N, H or 1, D], ``values`` [N, H or 1, V]; in float64."""
    logits = torch.einsum("hd,nhd->hn", query, keys.expand(-1, len(query), -1)) * scale
    if not len(keys):
        return query.new_zeros(len(query), values.shape[2]), query.new_full(
            logits.shape[:1], -math.inf
        )
    out = torch.einsum("hn,nhv->hv", logits.softmax(1), values.expand(-1, len(query), -1))
    return out, logits.logsumexp(1)


def limit(dtype: torch.dtype, largest: torch.Tensor, roundings: float = 1.5) -> float:
    """Of the error of a mean of values up to ``largest``, after so many roundings of ``dtype``."""
    most = largest.abs().max().item() if largest.numel() else 0.0
    return (roundings * torch.finfo(dtype).eps + 64 * torch.finfo(F32).eps) * max(most, 1.0)


def check_decode(
    tested: Any,
    setup: Setup,
    causal: bool = True,
    selected: torch.Tensor | None = None,
    batch: Batch | None = None,
) -> tuple[str, ...]:
    """Attends, and judges every row; ``batch``: given to the backend instead of the true one."""
    geometry, scale = setup.geometry, 0.11
    query = torch.randn(setup.rows, geometry.num_heads, geometry.head_size).to(geometry.dtype)
    results = Results(setup.rows, geometry.num_heads, geometry.v_head_size, geometry.dtype)
    common = (setup.cache, batch or setup.batch, geometry, Scores(scale, causal=causal))
    given = (*common, setup.scales, results.out, results.lse)
    more = {} if selected is None else {"selected": selected}
    ran = tested.attend(strided(query), None, None, *given, **more)
    keys = setup.keys
    for row, s, position in setup.positions():
        seen = keys[s]
        if selected is not None:
            chosen = selected[row].long()
            seen = seen[chosen[(chosen >= 0) & (chosen < len(seen))]]
        elif causal:
            seen = seen[: max(position + 1, 0)]
        values = seen[:, None, : geometry.v_head_size]
        expected = attention(query[row].double(), seen[:, None], values, scale)
        results.check(row, *expected, limit(geometry.dtype, values))
    results.check_rest()
    return tuple(ran)


RAGGED = {"queries": [1, 3, 0, 3, 1, 4], "lens": [130, 37, 20, 3, 0, 2]}
DECODES = {
    "one-head": {**RAGGED, "heads": 1},
    "odd-heads-fnuz": {**RAGGED, "heads": 3, "dtype": BF16, "cache_dtype": FNUZ, "block": 1},
    "two-tiles-e4m3": {
        "queries": [1, 2],
        "lens": [70, 33],
        "heads": 17,
        "cache_dtype": FN,
        "block": 32,
    },
    "odd-sizes-e5m2": {**RAGGED, "heads": 5, "cache_dtype": E5M2, "rank": 48, "rope": 24},
    "float32": {**RAGGED, "heads": 4, "dtype": F32, "block": 544},
    "576": {
        "queries": [1, 2],
        "lens": [90, 40],
        "heads": 16,
        "dtype": BF16,
        "rank": 512,
        "rope": 64,
    },
}
SPLIT = ("latent_decode_split", "combine_segments")
SHARED = ("expand_block_table", "plan_work", "latent_worker", "combine_cut")


@pytest.mark.parametrize("case", DECODES)
@pytest.mark.parametrize("name", ["TRITON_MLA", "ROCM_AITER_MLA"])
def test_decode(name: str, case: str) -> None:
    arguments: dict[str, Any] = DECODES[case]
    tested = TritonMLA(segments=3) if name == "TRITON_MLA" else AiterMLA(workers=3)
    assert check_decode(tested, set_up(**arguments)) == (SPLIT if name == "TRITON_MLA" else SHARED)


def test_splits_are_chosen_by_batch_and_length() -> None:
    few = set_up([1], [300], heads=2)
    many = set_up([1] * 32, [65] + [1] * 31, heads=2)
    assert check_decode(backend("TRITON_MLA"), few) == SPLIT
    assert check_decode(backend("TRITON_MLA"), many) == ("latent_decode",)


@pytest.mark.parametrize("workers", [1, 2, 11])
def test_any_number_of_workers(workers: int) -> None:
    """Items that one worker has whole, that two share, that many share; workers without work."""
    check_decode(AiterMLA(workers), set_up([1, 2, 1], [330, 40, 5], heads=17, seed=workers))


@pytest.mark.parametrize("tested", [TritonMLA(segments=2), AiterMLA(workers=2)])
def test_without_a_causal_mask(tested: Any) -> None:
    check_decode(tested, set_up([4, 2], [70, 33], heads=2), causal=False)


@pytest.mark.parametrize("tested", [TritonMLA(segments=2), AiterMLA(workers=2)])
def test_a_missing_key_shows(tested: Any) -> None:
    """The judge of this file bites: without a sequence's last key the result is wrong."""
    setup = set_up([1], [65], heads=2)
    shorter = replace(setup.batch, seq_lens=setup.batch.seq_lens - 1)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check_decode(tested, setup, batch=shorter)


@pytest.mark.parametrize("tested", [TritonMLA(segments=2), AiterMLA(workers=2)])
def test_offsets_beyond_2_to_the_31(tested: Any) -> None:
    """Only the pages that are touched exist: the rest of the 4 GiB is never written."""
    setup = set_up([1], [64], heads=1, cache_dtype=FN)
    dense, size = setup.cache, setup.geometry.head_size
    stride = (2**31 // 3 // size + 8) * size
    sparse = torch.empty(stride * len(dense), dtype=torch.uint8).view(FN)
    setup.cache = sparse.as_strided(dense.shape, (stride, size, 1))
    setup.cache.copy_(dense)
    assert int(setup.slots[0].max()) // setup.geometry.block_size * stride > 2**31
    check_decode(tested, setup)
    write_everything(tested, setup)


def test_blocks_that_are_no_multiple_of_a_slot_apart() -> None:
    setup = set_up([1, 2], [40, 20], heads=2)
    dense = setup.cache
    stride = dense.shape[1] * dense.shape[2] + 24
    buffer = torch.full((stride * len(dense),), NAN, dtype=F16)
    setup.cache = buffer.as_strided(dense.shape, (stride, dense.shape[2], 1))
    setup.cache.copy_(dense)
    check_decode(AiterMLA(workers=3), setup)


@pytest.mark.parametrize("name", ["TRITON_MLA", "ROCM_AITER_MLA", "ROCM_AITER_MLA_SPARSE"])
def test_what_a_backend_lacks_is_refused(name: str) -> None:
    setup = set_up([1], [1], heads=1)
    out = torch.zeros(1, 1, 64, dtype=F16)
    with pytest.raises(NotImplementedError, match=f"{name} has no window"):
        backend(name).attend(  # type: ignore[union-attr] # paged, all of them
            out, None, None, setup.cache, setup.batch, setup.geometry,
            Scores(1.0, window=(3, 0)), setup.scales, out,
        )  # fmt: skip


@pytest.mark.parametrize(("heads", "tile"), [(1, 1), (16, 16), (17, 9), (20, 10), (128, 16)])
def test_tiles_of_heads_are_filled_alike(heads: int, tile: int) -> None:
    assert heads_per_tile(heads, 16) == tile


def write_everything(tested: Any, setup: Setup) -> None:
    """Writes new rows at every slot of the first sequence but one, and checks the whole cache."""
    geometry, where = setup.geometry, setup.slots[0].clone()
    where[3] = -1
    rows = torch.randn(len(where), 1, geometry.head_size) * 300
    rows[0, 0, :4] = torch.tensor([0.0, -0.0, 1e9, -1e9])
    rows = strided(rows.to(geometry.dtype))
    expected = setup.cache.flatten(0, 1)[setup.slots[0]].view(torch.uint8).clone()
    given = rows[: len(where), 0]
    expected = torch.where(
        (where >= 0)[:, None], stored(given, geometry, setup.scales).view(torch.uint8), expected
    )
    ran = tested.write(
        rows, rows[..., : geometry.v_head_size], setup.cache, where, geometry, setup.scales
    )
    assert ran == ("cache_write",)
    assert torch.equal(setup.cache.flatten(0, 1)[setup.slots[0]].view(torch.uint8), expected)


@pytest.mark.parametrize("cache_dtype", [F16, FN, FNUZ, E5M2])
def test_write(cache_dtype: torch.dtype) -> None:
    quantised = None if cache_dtype == F16 else cache_dtype
    setup = set_up([1], [37], heads=1, cache_dtype=quantised, rank=48, rope=24)
    before = setup.cache.view(torch.uint8).clone().flatten(0, 1)
    write_everything(backend("TRITON_MLA"), setup)
    after = setup.cache.view(torch.uint8).flatten(0, 1)
    others = torch.ones(len(after), dtype=torch.bool)
    others[setup.slots[0]] = False
    assert torch.equal(after[others], before[others])


PREFILLS: dict[str, Any] = {
    "no-context": {"queries": [20, 0, 3], "lens": [20, 9, 3]},
    "extend": {"queries": [4, 1, 18, 2], "lens": [4, 40, 59, 0], "cache_dtype": FNUZ},
    "bfloat16": {"queries": [5, 2], "lens": [12, 9], "dtype": BF16, "block": 1},
}


@pytest.mark.parametrize("case", PREFILLS)
@pytest.mark.parametrize("name", ["TRITON_MLA", "ROCM_AITER_TRITON_MLA"])
def test_prefill(name: str, case: str) -> None:
    """In the multi-head form; the context in chunks of ten tokens."""
    setup = set_up(**PREFILLS[case], heads=2)
    ran = check_prefill(backend(name), setup, workspace=10 * len(setup.slots))
    kernel = "varlen" if name == "TRITON_MLA" else "split_varlen"
    context = ("gather_context", f"{kernel}_context", "merge")
    assert ran == ((kernel,) if case == "no-context" else (kernel, *context))


def check_prefill(tested: Any, setup: Setup, workspace: int) -> tuple[str, ...]:
    geometry, nope, columns, scale = setup.geometry, 24, 32, 0.1
    rope, dtype = geometry.head_size - geometry.v_head_size, geometry.dtype
    query = torch.randn(setup.rows, geometry.num_heads, nope + rope).to(dtype)
    new = torch.randn(setup.rows, 1, geometry.head_size).to(dtype)
    shape = (geometry.num_heads, geometry.v_head_size, nope + columns)
    weight = (torch.randn(shape) / math.sqrt(geometry.v_head_size)).to(dtype)
    results = Results(setup.rows, geometry.num_heads, columns, dtype)
    ran = tested.prefill(
        strided(query), strided(new), weight, setup.cache, setup.batch, geometry, Scores(scale),
        setup.scales, results.out, results.lse, workspace_tokens=workspace,
    )  # fmt: skip
    keys = setup.keys
    starts, lens = setup.batch.query_start_loc.tolist(), setup.batch.seq_lens.tolist()
    for row, s, _ in setup.positions():
        context = max(lens[s] - (starts[s + 1] - starts[s]), 0)
        latent = torch.cat([keys[s][:context], new[starts[s] : row + 1, 0].double()])
        up = torch.einsum("nr,hrc->nhc", latent[:, : geometry.v_head_size], weight.double())
        ropes = latent[:, None, geometry.v_head_size :].expand(-1, geometry.num_heads, -1)
        joined = torch.cat([up[..., :nope], ropes], 2)
        expected = attention(query[row].double(), joined, up[..., nope:], scale)
        # Gathered rows, up-projected keys and values, probabilities and the output are rounded.
        results.check(row, *expected, limit(dtype, up, roundings=4))
    results.check_rest()
    return tuple(ran)


@pytest.mark.parametrize(("most", "kernels"), [(40, ("ragged",)), (96, SHARED[1:])])
def test_sparse_attends_exactly_what_is_selected(most: int, kernels: tuple[str, ...]) -> None:
    """Rows with none, with one, with -1 in between, with a position that does not exist.

    A prefill of more keys than are chosen is attended by lists of any length.
    """
    setup = set_up([1, 3, 2], [70, 33, 2], heads=17, dtype=BF16)
    selected = torch.full((setup.rows + PADDING_ROWS, most), -1, dtype=torch.int32)
    selected[setup.rows :] = GARBAGE
    selected[0, :40:2] = torch.randperm(70)[:20].int()
    selected[1, 39] = 32
    selected[2, :33] = torch.randperm(33).int()
    selected[4, 3:6] = torch.tensor([1, 0, 2])
    ran = check_decode(AiterMLASparse(workers=3), setup, selected=selected)
    assert ran == ("translate", *kernels)


def test_a_missing_selection_shows() -> None:
    setup = set_up([1], [70], heads=2)
    selected = torch.arange(48, dtype=torch.int32)[None]
    truth, setup.slots[0][47] = setup.slots[0][47].item(), setup.slots[0][48].item()
    assert truth != setup.slots[0][47]
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check_decode(AiterMLASparse(workers=2), setup, selected=selected)


@pytest.mark.parametrize("cache_dtype", [BF16, FN, FNUZ])
@pytest.mark.parametrize("heads", [3, 64])
def test_index(cache_dtype: torch.dtype, heads: int) -> None:
    """The selected are the largest of the exact logits, up to the rounding of a float32 sum."""
    tested = AiterMLASparse()
    setup = set_up([1, 4, 0, 2], [90, 33, 7, 2], heads=heads, dtype=BF16)
    geometry = replace(setup.geometry, head_size=128, v_head_size=128, cache_dtype=cache_dtype)
    cache = tested.allocate(len(setup.cache), geometry, CPU)
    assert cache.shape[2] == (128 if cache_dtype == BF16 else 132)
    cache.view(torch.uint8).fill_(0xFF)
    keys = [torch.randn(n, 128) * torch.randn(n, 1).exp() for n in (90, 33, 7, 2)]
    rows = torch.cat([*keys, torch.full((1, 128), NAN)]).to(BF16)
    where = torch.cat([*setup.slots, torch.tensor([-1])])
    assert tested.write_index(rows, cache, where, geometry) == ("index_write",)
    query = torch.randn(setup.rows, heads, 128).to(cache_dtype)
    padded = strided(query.float()).to(cache_dtype)
    weights = torch.randn(setup.rows + PADDING_ROWS, heads)
    found = torch.full((setup.rows + PADDING_ROWS, 16), GARBAGE, dtype=torch.int32)
    ran = tested.select(padded, weights, cache, setup.batch, found, logits_at_once=200)
    assert ran == ("index_logits", "topk")
    assert (found[setup.rows :] == GARBAGE).all()
    exact = [quantised_rows(k.to(BF16).double(), cache_dtype) for k in keys]
    for row, s, position in setup.positions():
        dots = query[row].double() @ exact[s][: position + 1].T
        logits = (dots.clamp_min(0) * weights[row].double()[:, None]).sum(0)
        chosen = found[row][found[row] >= 0].long()
        assert len(chosen) == len(set(chosen.tolist())) == min(16, position + 1)
        least = logits.topk(len(chosen)).values[-1]
        error = (dots.abs() * weights[row].double().abs()[:, None]).sum(0).max() * 1e-5
        assert logits[chosen].min() >= least - error


def quantised_rows(rows: torch.Tensor, cache_dtype: torch.dtype) -> torch.Tensor:
    """What the indexer's cache gives back of float64 rows."""
    if cache_dtype == BF16:
        return rows
    peak = 448.0 if cache_dtype == FN else 224.0
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-4).float() / peak
    return (rows.float() / scale).to(cache_dtype).double() * scale
