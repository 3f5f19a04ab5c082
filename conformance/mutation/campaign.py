"""A campaign: seeded mutants of a part, judged in processes side by side, recorded one by one."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from time import monotonic

import conformance
from conformance.errors import InfrastructureError
from conformance.mutation.mutant import Mutant
from conformance.mutation.processor_time import processor_seconds
from conformance.mutation.results import Judged, Record
from conformance.mutation.sampling import Drawn
from conformance.mutation.verdict import Fate, Judge, Part, Verdict

MEMORY = 12 * 1024**3  # bytes of addresses, of each judge and of each process that it starts
Show = Callable[[Mutant, Verdict], None]
CHECKOUT = Path(conformance.__file__).parents[1]
# Rooms that show or make something: no verdict depends on them.
_NOT_JUDGING = (
    *("benchmarks", "commands", "containers", "drafts", "explanations", "mutation"),
    *("release_pages", "reports"),
)


def run(
    part: Part,
    chosen: Sequence[Drawn],
    record: Record,
    *,
    workers: int,
    seconds: float,
    show: Show,
) -> list[Judged]:
    """Judges those mutants that the record does not know; gives the verdicts of all, in order.

    After ``seconds``, the preparation included, no further mutant is begun: the next run goes on
    from there.

    Raises:
        InfrastructureError: a judge died.
    """
    waiting = [one.mutant for one in chosen if not record.knows(one.mutant, one.seeds)]
    seeds = {one.mutant.id: one.seeds for one in chosen}
    until = monotonic() + seconds
    if waiting:
        part.prepare(workers)
        for mutant, verdict in _side_by_side(part, waiting, workers, until):
            record.add(mutant, verdict, seeds[mutant.id])
            show(mutant, verdict)
    known = (record.judged.get(one.mutant.id) for one in chosen)
    return [judged for judged in known if judged is not None]


def _side_by_side(
    part: Part, mutants: Sequence[Mutant], workers: int, until: float
) -> Iterator[tuple[Mutant, Verdict]]:
    """Processes forked from this one, which know what the part found out."""
    fork = multiprocessing.get_context("fork")
    left = list(reversed(mutants))
    asked: dict[Future[Verdict], Mutant] = {}
    with ProcessPoolExecutor(workers, fork, _open, (part,)) as pool:
        try:
            while asked or (left and monotonic() <= until):
                while left and len(asked) < workers and monotonic() <= until:
                    mutant = left.pop()
                    asked[pool.submit(_judge, mutant)] = mutant
                done, _ = wait(asked, return_when=FIRST_COMPLETED)
                for future in done:
                    yield asked.pop(future), future.result()
        except BrokenProcessPool as error:
            raise InfrastructureError(
                "a process that judged mutants died: it may have run out of memory"
            ) from error


_JUDGES: list[Judge] = []


def _open(part: Part) -> None:
    """Begins a process. What a mutant makes without end must not take all memory."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    least = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (least, most))
    _JUDGES.append(part.judge())


def _judge(mutant: Mutant) -> Verdict:
    return _judged_by(_JUDGES[0], mutant)


def _judged_by(judge: Judge, mutant: Mutant) -> Verdict:
    before = processor_seconds()
    try:
        verdict = judge.judge(mutant)
    except (InfrastructureError, OSError) as error:
        verdict = Verdict(Fate.ERRORED, message=str(error)[:200])
    except Exception as error:  # A mistake of the suite must not end a campaign.
        verdict = Verdict(Fate.ERRORED, message=f"{type(error).__name__}: {error}"[:200])
    return replace(verdict, cpu_seconds=round(max(0.0, processor_seconds() - before), 2))


def tree_digest(*folders: Path) -> str:
    """A digest of the files that decide verdicts: the suite's own, and what is edited."""
    digest = hashlib.sha256()
    own = [CHECKOUT / name for name in ("conformance", "kernels", "vllm_editions")]
    for folder in (*own, *folders):
        for path in sorted(_texts(folder)):
            file = path.relative_to(folder)
            if folder != CHECKOUT / "conformance" or file.parts[0] not in _NOT_JUDGING:
                digest.update(os.fsencode(file) + path.read_bytes())
    return digest.hexdigest()[:16]


def _texts(folder: Path) -> Iterator[Path]:
    for suffix in ("*.py", "*.toml"):
        yield from folder.rglob(suffix)
