"""What AMD targets execute for 64 keys: instructions of the attention kernels, by kind.

Counted by the emulator, in a process for each target: the same batch over two lengths of context,
whose difference is whole tiles. Counts are of all the programs and waves that one KV head of one
sequence has, so that kernels with other tiles, or that divide keys among programs, can be compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.devices.targets import target_facts
from conformance.errors import InfrastructureError

if TYPE_CHECKING:
    from conformance.benchmarks.setup import Setup
    from conformance.devices.kernel import Launch

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")
KEYS = 64
# Kinds by the beginning of a mnemonic; the first that fits counts.
KINDS = {
    "matrix": ("v_mfma", "v_smfmac", "v_wmma", "v_swmmac"),
    "LDS": ("ds_",),
    "global": ("global_", "buffer_", "flat_"),
    "scratch": ("scratch_",),
    "exp": ("v_exp",),
    "waits": ("s_wait", "s_barrier", "s_delay", "s_nop"),
    "scalar": ("s_",),
    "vector": ("v_",),
}
# How many tokens lie before the new ones, and how many KV heads the sequences have together: so
# many programs that no kernel divides the keys of one.
NEAR, FAR = 256, 512
KV_HEADS = 32


@dataclass(frozen=True)
class PerTile:
    """One kernel on one target: ``counts`` for ``KEYS`` keys of one KV head of one sequence.

    ``launch``: a program's query rows, keys at a time and waves, as far as its constants tell them.
    """

    target: str
    workload: str
    kernel: str
    launch: str
    counts: dict[str, float]


def kind_of(mnemonic: str) -> str:
    """Which of ``KINDS`` an instruction is of."""
    return next((kind for kind, starts in KINDS.items() if mnemonic.startswith(starts)), "other")


def measure(targets: Sequence[str], releases: Mapping[str, Path]) -> Iterator[PerTile]:
    """Counts on every target; ``releases``: package folders of vLLM releases by their names.

    Raises:
        InfrastructureError: a target's process failed.
    """
    folders = json.dumps({name: str(folder) for name, folder in releases.items()})
    for target in targets:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "conformance.benchmarks.tiles", target, folders],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InfrastructureError(f"counting on {target} failed", done.stderr)
        for line in done.stdout.splitlines():
            yield PerTile(**json.loads(line))


class _Counted:
    """The instructions of every launch since the last question, by kernel."""

    def __init__(self, target: str) -> None:
        from conformance.devices import activate  # noqa: PLC0415 - in the target's process

        self._driver = activate(f"isa:{target}")
        self._target = target
        self._original = self._driver.recorder.run
        self._driver.recorder.run = self._run  # type: ignore[method-assign] # it is listened to
        self._found: dict[tuple[str, str], Counter[str]] = {}

    def of(self, call: Callable[[], object]) -> dict[tuple[str, str], Counter[str]]:
        """Of every kernel that a call launches, by its name and its launch."""
        self._found = {}
        call()
        return self._found

    def _run(self, launch: Launch) -> Any:
        from conformance.devices.isa.launch import load  # noqa: PLC0415 - likewise

        run, kernel = self._original(launch), launch.kernel
        instructions = load(kernel.text, self._target, kernel.wave_size).program.instructions
        counts: Counter[str] = Counter()
        for (start, end), times in run.blocks.items():
            for number in range(start, end):
                counts[kind_of(instructions[number].mnemonic)] += times
        constants = {name: value for name, value in kernel.constants.items() if name in _SHOWN}
        shown = [f"{_SHOWN[name]} {constants[name]}" for name in _SHOWN if name in constants]
        self._found[kernel.name, ", ".join((*shown, f"{kernel.num_warps} waves"))] = counts
        return run


_SHOWN = {"BLOCK_M": "rows", "TILE": "keys", "TILE_SIZE": "keys", "BLOCK_N": "keys"}


def _counted(target: str, releases: Mapping[str, Path]) -> Iterator[PerTile]:
    counted = _Counted(target)
    tiles = KV_HEADS * (FAR - NEAR) / KEYS
    for workload, calls in _calls(target, releases):
        for name, call in calls.items():
            near, far = (counted.of(call(context)) for context in (NEAR, FAR))
            for (kernel, launch), after in far.items():
                before = near.get((kernel, launch))
                if before is None or after.total() == before.total():
                    continue  # what combines segments has no keys
                counts = {kind: (n - before[kind]) / tiles for kind, n in after.items()}
                yield PerTile(target, workload, f"{name}: {kernel}", launch, counts)


def _with_spare_row(setup: Setup) -> Setup:
    """With a row of the block table behind its last: some of vLLM's kernels read past its end."""
    table = setup.batch.block_table
    batch = replace(setup.batch, block_table=table.new_zeros(len(table) + 1, table.shape[1]))
    batch.block_table[:-1] = table
    return replace(setup, batch=batch)


Calls = dict[str, Callable[[int], Callable[[], object]]]


def _calls(target: str, releases: Mapping[str, Path]) -> Iterator[tuple[str, Calls]]:
    """Workloads, and the calls that do them."""
    import torch  # noqa: PLC0415 - in the target's process

    from conformance.benchmarks.released import load_released, vllm_call  # noqa: PLC0415 - torch
    from conformance.benchmarks.setup import reference_call, set_up  # noqa: PLC0415
    from conformance.benchmarks.workloads import Workload  # noqa: PLC0415

    fnuz = target_facts(target).family.fp8 == "fnuz"
    own_fp8 = torch.float8_e4m3fnuz if fnuz else torch.float8_e4m3fn
    released = {name: load_released(folder) for name, folder in releases.items()}

    def layer(new: int, fp8: bool, latent: bool) -> Callable[[int], Setup]:
        def at(context: int) -> Setup:
            lengths = (new, context)
            if latent:
                workload = Workload("", (lengths,) * KV_HEADS, 16, 1, 512, 64, rope=64)
            else:
                workload = Workload("", (lengths,) * (KV_HEADS // 2), 8, 2, 128, 16, fp8=fp8)
            made = _with_spare_row(set_up(workload, "cpu"))
            if fp8:
                made = replace(made, geometry=replace(made.geometry, cache_dtype=own_fp8))
            return made

        return at

    for text, new, fp8, latent in (
        ("decode, 8/2 x 128", 1, False, False),
        ("decode, 8/2 x 128, fp8", 1, True, False),
        ("extend 16, 8/2 x 128", 16, False, False),
        ("MLA decode, 16 heads", 1, False, True),
    ):
        made = layer(new, fp8, latent)
        names = ("TRITON_MLA",) if latent else ("ROCM_ATTN", "ROCM_AITER_FA", "TRITON_ATTN")
        calls: Calls = {
            name: lambda n, name=name, made=made: reference_call(made(n), name)  # type: ignore[misc]
            for name in names
        }
        for name, their in released.items():
            calls[f"vLLM {name}"] = lambda n, their=their, made=made: vllm_call(made(n), their)  # type: ignore[misc]
        yield text, calls


def main(target: str, releases: str) -> None:
    folders = {name: Path(folder) for name, folder in json.loads(releases).items()}
    for found in _counted(target, folders):
        sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
