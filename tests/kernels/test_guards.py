"""Writes where a backend must not write are reported: one planted for each guard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from conformance.errors import InfrastructureError
from conformance.mutation.edit import Edit
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from tests.kernels.kernel_faults.edited_kernels import EditedKernels
from tests.kernels.kernel_faults.problems import TRITON, decode, mixed, sparse

CACHE, ROWS, UNIFIED = "ops/cache.py", "ops/rows.py", "backends/triton_attn.py"


def before_attend(statements: str) -> Edit:
    """These statements before what TRITON_ATTN does to attend."""
    views = "views = key_and_value_views(cache, self._halves)"
    return Edit(UNIFIED, "TritonAttention.attend", views, f"{statements}\n{views}")


PADDED = replace(mixed(TRITON), head_size=80, v_head_size=80, head_pad=48, row_pad=1)
SKIPPED = replace(decode(TRITON), context_lens=(9, 20), dominant=(), skipped_writes=5)
GUARDS = {
    "a slot too many is written": (
        SKIPPED,
        Edit(
            CACHE,
            "write_kernel",
            "tl.store(pointers, row.to(cache_ptr.dtype.element_ty), mask=mask)",
            "tl.store(pointers, row.to(cache_ptr.dtype.element_ty), mask=mask)\n"
            "tl.store(pointers - into[:, None], row.to(tl.float16), mask=mask)",
        ),
        "cache write stored",
    ),
    "rows with slot -1 are written": (
        SKIPPED,
        Edit(
            CACHE,
            "write_kernel",
            "mask = (slot >= 0)[:, None] & (dims < D)[None, :]",
            "slot = tl.maximum(slot, 0)\nmask = (dims < D)[None, :]",
        ),
        "cache write stored",
    ),
    "a column of the cache is left out": (
        SKIPPED,
        Edit(
            CACHE,
            "write_kernel",
            "mask = (slot >= 0)[:, None] & (dims < D)[None, :]",
            "mask = (slot >= 0)[:, None] & (dims < D - 1)[None, :]",
        ),
        "cache write stored",
    ),
    "columns past the head size are written": (
        PADDED,
        Edit(
            ROWS,
            "store_output",
            "(columns < V)[None, :]",
            "(columns < V + 8)[None, :]",
        ),
        "the output was written outside its rows",
    ),
    "a head past the last is written": (
        PADDED,
        Edit(
            UNIFIED,
            "unified_kernel",
            "store_output(..., head, exists, ...)",
            "store_output(..., head + 1, exists, ...)",
        ),
        "the output was written outside its rows",
    ),
    "a log-sum-exp past the last head is written": (
        PADDED,
        Edit(
            UNIFIED,
            "unified_kernel",
            "head * lse_head",
            "(head + 1) * lse_head",
        ),
        "the log-sum-exp was written outside its rows",
    ),
    "rows of padding are written": (
        PADDED,
        before_attend("out[-1] = 0"),
        "the output was written outside its rows",
    ),
    "selections of padding are written": (
        replace(sparse("indexer"), extra_rows=2),
        Edit(
            "ops/mla/index.py",
            "select",
            "rows.copy_(torch.where(used, found, rows))",
            "rows.copy_(found)",
        ),
        "the selection was written outside its rows",
    ),
}


@pytest.fixture(scope="module")
def kernels() -> Iterator[EditedKernels]:
    found = EditedKernels()
    yield found
    found.close()


@pytest.mark.parametrize(
    "problem", [PADDED, SKIPPED, GUARDS["selections of padding are written"][0]]
)
def test_right_kernels_touch_nothing_else(problem: Problem, kernels: EditedKernels) -> None:
    kernels.use(())
    assert kernels.findings(problem) == []


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_bites(guard: str, kernels: EditedKernels) -> None:
    problem, edit, expected = GUARDS[guard]
    kernels.use((edit,))
    violations = kernels.attend(problem, materialise(problem), wants_lse=True).violations
    assert [v for v in violations if v.startswith((expected, f"the {expected}"))], violations


def test_an_error_of_the_backend_is_told(kernels: EditedKernels) -> None:
    kernels.use((before_attend('raise ValueError("no")'),))
    attended = kernels.attend(SKIPPED, materialise(SKIPPED), wants_lse=True)
    assert (attended.raised, attended.results) == ("ValueError: no", {})
    assert "backends/triton_attn.py" in attended.trace
    kernels.use(())
    assert not kernels.attend(SKIPPED, materialise(SKIPPED), wants_lse=True).raised


def test_a_worker_that_hangs_is_an_infrastructure_error() -> None:
    kernels = EditedKernels()
    kernels.use((before_attend("import time\ntime.sleep(600)"),))
    kernels.set_timeout(3)
    with pytest.raises(InfrastructureError, match="gave no answer within 3 s"):
        kernels.attend(SKIPPED, materialise(SKIPPED), wants_lse=True)
    assert not kernels.alive
    kernels.close()
