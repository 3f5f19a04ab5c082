"""Every backend's kernels against the float64 oracle, to within the derived bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from packaging.version import Version

from conformance.config import RunConfig
from conformance.problems.admission import refusals
from conformance.problems.families import problems_for
from conformance.problems.features import features
from conformance.problems.named import problem_named
from conformance.problems.problem import Problem
from conformance.problems.tiers import tier_named
from conformance.requirements import parity_backends
from conformance.subjects.spellings import SubjectKind, kind_of
from conformance.suites.case import Context, Measured, Unsupported
from conformance.suites.parity import SUITE
from conformance.suites.parity.aiter_backends import from_aiter
from conformance.suites.parity.case import ParityCase
from conformance.suites.parity.harness import KernelWorkers, run_problem
from conformance.suites.parity.options import (
    asked_ids,
    asks_backend,
    is_restricted,
    own_problems,
)
from conformance.suites.parity.shown_gpu import as_shown, shown_gpu, shows_one_gpu
from conformance.worker.other_kernels import BACKEND_NEEDS, needs_amd_gpu


def cases(context: Context) -> Iterator[ParityCase]:
    """A case for each problem of each backend; a single one for a backend that cannot run here."""
    config = context.config
    platform = next(iter(context.platforms))
    for subject in config.subjects:
        for requirement, backend in parity_backends(context.edition(subject)).items():
            if not asks_backend(config, backend):
                continue
            case = ParityCase(
                *(SUITE.name, "parity", subject, requirement, platform, context.cells, platform),
                backend=backend,
                device=config.device,
            )
            kind = kind_of(subject)
            of_hip = kind is SubjectKind.REFERENCE and features()[backend].hip
            if kind is SubjectKind.PROGRAM or of_hip:
                yield case
            elif kind is SubjectKind.REFERENCE:
                for file, problem in _problems(context, subject, backend):
                    yield replace(case, problem=problem, file=file)
            elif _needs_amd_gpu(context, subject, backend):
                yield replace(case, target=shown_gpu(config))
            else:
                for file, problem in _problems(context, subject, backend):
                    if is_restricted(config) or not too_long(config, problem):
                        shown = shown_gpu(config, problem)
                        yield replace(case, problem=problem, file=file, target=shown)


def _problems(context: Context, subject: str, backend: str) -> Iterator[tuple[str, Problem]]:
    """The problems that the subject's edition makes for a backend, or those that were named.

    Each with the user's file that it is from, or "". A vLLM that is shown one GPU for all has them
    in the fp8 that it stores there.
    """
    config, edition = context.config, context.edition(subject)
    if is_restricted(config):
        named = (problem_named(n, edition, config.tier, config.seed) for n in asked_ids(config))
        made = [each for each in named if each is not None and each.backend == backend]
    else:
        made = problems_for(backend, config.tier, config.seed, edition)
    if kind_of(subject) is SubjectKind.VLLM and shows_one_gpu(config):
        made = [as_shown(config, each) for each in made]
    yield from (("", each) for each in dict.fromkeys(made))
    for own in own_problems(config):
        if own.problem.backend == backend:
            yield own.file, own.problem


def _needs_amd_gpu(context: Context, subject: str, backend: str) -> bool:
    """Whether a vLLM's backend cannot run on the device of the run.

    A problem that the user named is given to it nevertheless, so that the refusal shows.
    """
    config = context.config
    if config.device == "gpu" or is_restricted(config) or backend not in BACKEND_NEEDS:
        return False
    since = features()[backend].triton_from
    if since and Version(context.edition(subject)) >= Version(since):
        return False
    return not from_aiter(context, subject, backend)


def too_long(config: RunConfig, problem: Problem) -> bool:
    """Whether a problem takes too long for a vLLM in the interpreter, in this tier."""
    most = tier_named(config.tier).most_interpreted_keys
    if most is None or config.device != "interpreter":
        return False
    # The harness writes a latent cache that keys are chosen from.
    stored = problem.has_cache and problem.kind != "mla_sparse"
    return stored and sum(problem.seq_lens) > most


@pytest.fixture(scope="session")
def workers(context: Context) -> Iterator[KernelWorkers]:
    # Most of the oracle's tensors are small, and threads would wait for one another.
    torch.set_num_threads(1)
    pool = KernelWorkers(context)
    yield pool
    pool.close()


def test_parity(case: ParityCase, context: Context, workers: KernelWorkers) -> Measured:
    if case.problem is not None:
        if case.file and (why := refusals(case.problem, context.edition(case.subject))):
            raise Unsupported("; ".join(why))
        return run_problem(case, case.problem, context, workers)
    if kind_of(case.subject) is SubjectKind.PROGRAM:
        raise Unsupported("kernels are those of the reference and of vLLMs: this is neither")
    if kind_of(case.subject) is SubjectKind.REFERENCE:
        raise Unsupported("its kernels are HIP: the reference, whose are Triton's, has none")
    raise Unsupported(needs_amd_gpu(*BACKEND_NEEDS[case.backend]))
