"""The interpreter's programs: their order, and that they keep to the tensors of their launch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from conformance.mutation.edit import Edit
from conformance.problems.problem import Problem
from conformance.problems.tensors import materialise
from tests.kernels.kernel_faults import rare_kinds
from tests.kernels.kernel_faults.edited_kernels import EditedKernels
from tests.kernels.kernel_faults.problems import ROCM, TRITON, decode, mixed

CACHE, TILES = "ops/cache.py", "ops/tiles.py"
WRITTEN = replace(decode(TRITON), context_lens=(9, 2), dominant=())


@pytest.fixture(scope="module")
def kernels() -> Iterator[EditedKernels]:
    found = EditedKernels()
    yield found
    found.close()


ORDER = Edit(
    "backends/triton_attn.py",
    "TritonAttention.attend",
    "views = key_and_value_views(cache, self._halves)",
    "import torch\n"
    "import triton\n"
    "import triton.language as tl\n"
    "from rocm_reference.ops.probe import probe\n"
    "seen = torch.zeros(25, dtype=torch.int32)\n"
    "probe[(2, 3, 4)](seen)\n"
    "raise ValueError(str(seen[1:].tolist()))",
)
PROBE = '''
import triton
import triton.language as tl


@triton.jit
def probe(seen_ptr):
    """Writes each program's number at the next place; the first element counts."""
    count = tl.load(seen_ptr) + 1
    tl.store(seen_ptr, count)
    number = (tl.program_id(0) * 3 + tl.program_id(1)) * 4 + tl.program_id(2)
    tl.store(seen_ptr + count, number)
'''


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_programs_run_in_the_problems_order(order: str, kernels: EditedKernels) -> None:
    kernels.use((ORDER,))
    assert kernels.folder is not None
    (kernels.folder / "rocm_reference" / "ops" / "probe.py").write_text(PROBE, encoding="utf-8")

    def ran(seed: int) -> list[int]:
        problem = Problem.from_json({**WRITTEN.to_json(), "order": order, "seed": seed})
        raised = kernels.attend(problem, materialise(problem), wants_lse=True).raised
        return [int(word) for word in raised.partition("[")[2].rstrip("]").split(", ")]

    every = [*range(24)]
    if order == "shuffled":
        assert sorted(ran(1)) == every != ran(1)
        assert ran(1) == ran(1) != ran(2)
    else:
        assert ran(1) == (every if order == "forwards" else every[::-1])


def violations(problem: Problem, kernels: EditedKernels) -> list[str]:
    return [*kernels.attend(problem, materialise(problem), wants_lse=True).violations]


OVER_READS = {
    "a table, past its end": (
        mixed(TRITON),
        Edit(
            TILES,
            "load_entries",
            "return tl.load(table_ptr + number, mask=stored, other=0).to(tl.int64)",
            "return tl.where(stored, tl.load(table_ptr + number * 100), 0).to(tl.int64)",
        ),
        "past the end of table_ptr",
    ),
    "a row before the first": (
        WRITTEN,
        Edit(
            CACHE,
            "write_kernel",
            "tl.load(rows_ptr + at, mask=mask, other=0)",
            "tl.load(rows_ptr + at - row_token, mask=mask, other=0)",
        ),
        "before rows_ptr",
    ),
    "a wild pointer": (
        WRITTEN,
        Edit(
            CACHE,
            "write_kernel",
            "tl.load(rows_ptr + at, mask=mask, other=0)",
            "tl.load(rows_ptr + at * 2 ** 40, mask=mask, other=0)",
        ),
        "write_kernel reads outside of its tensors",
    ),
}


@pytest.mark.parametrize("name", OVER_READS)
def test_an_access_outside_of_the_tensors_is_told(name: str, kernels: EditedKernels) -> None:
    problem, edit, said = OVER_READS[name]
    kernels.use((edit,))
    found = violations(problem, kernels)
    assert [text for text in found if said in text], found


def test_kernels_that_keep_to_their_tensors_are_not_blamed(kernels: EditedKernels) -> None:
    kernels.use(())
    for problem in (mixed(TRITON), mixed(ROCM), WRITTEN):
        assert violations(problem, kernels) == []


def test_a_program_that_writes_its_neighbours_row_shows_unless_that_one_runs_later(
    kernels: EditedKernels,
) -> None:
    (fault,) = rare_kinds.ORDERS
    kernels.use(fault.edits)
    decoded = replace(
        decode(ROCM), block_size=64, query_lens=(1,) * 4, context_lens=(9, 3, 4, 5), dominant=()
    )
    shown = {
        order: bool(kernels.findings(Problem.from_json({**decoded.to_json(), "order": order})))
        for order in ("forwards", "backwards", "shuffled")
    }
    assert shown == {"forwards": False, "backwards": True, "shuffled": True}
