"""How a case of a subject's own tests ended, told by the error that ended it.

``passed``, ``skipped`` (by the test itself), ``too-slow``, ``failed`` (the test's own assertion, or
an error out of the subject's code), ``violated`` (the device proved that a kernel did what it must
not) and ``unsupported`` (the harness, the emulator or this machine cannot: nothing is held against
the subject).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Refused, WorkerError

HERE = Path(__file__).resolve().parents[2]  # worker/ and devices/ are below it
ENDINGS = ("passed", "failed", "violated", "too-slow", "unsupported", "skipped", "errored")
# By name: the classes are the emulator's, which this process may not have loaded.
VIOLATIONS = ("Violation", "OutOfBoundsError", "DeviceViolation")
INABILITIES = (
    *("UnknownInstructionError", "UnknownError", "ClangMissingError", "CompileError"),
    *("NoSourceError", "NativeError", "UntraceableError", "AssemblyError", "AccessError"),
    "DifferenceError",
)
# The harness's code that vLLM calls, with arguments that are vLLM's.
CALLED_BY_VLLM = "replaced_ops.py"
NO_MEMORY = ("can't allocate memory", "Unable to allocate", "not enough memory")
NOT_HERE = (
    *("no kernel image", "Torch not compiled with CUDA", "No HIP GPUs", "Found no NVIDIA driver"),
    *("is simulated: it cannot compute", "couldn't connect to", "outgoing traffic has been"),
    *("Invalid repository ID or local directory", "Can't load the configuration of"),
    *("offline mode", "We couldn't connect", "has no attribute '_cuda", "NCCL"),
)


class DeviceViolation(Exception):  # noqa: N818 - a finding about a kernel
    """What the device saw a kernel do that the test itself did not notice."""


@dataclass(frozen=True)
class Ending:
    """One of ``ENDINGS``, a sentence on why, and the test's own report of it.

    ``violations`` are all that the device proved, a sentence each.
    """

    ended: str
    message: str = ""
    detail: str = ""
    violations: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """What a record has of it."""
        return {**vars(self), "violations": list(self.violations)}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def ending_of_error(error: BaseException | None, violations: Sequence[str]) -> Ending:
    """How a case ended that raised ``error``; ``violations`` are what the device saw meanwhile."""
    errors = list(chain(error))
    raised = [str(e) for e in errors if type(e).__name__ in VIOLATIONS]
    if proven := tuple(dict.fromkeys(violations or raised)):
        return Ending("violated", "; ".join(proven), violations=proven)
    if why := next(filter(None, map(why_unsupported, errors)), ""):
        return Ending("unsupported", why)
    said = f"{type(error).__name__}: {error}" if error is not None else "it ended without a reason"
    return Ending("failed", said)


def why_unsupported(error: BaseException) -> str:
    """Why an error says that the test cannot run here; "" if it does not say so."""
    said = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "FixtureLookupError":
        return f"the harness has no fixture {getattr(error, 'argname', '')}, which vLLM's has"
    return next((f"{why}: {said}" for why, applies in _REASONS if applies(error)), "")


def _is_inability(error: BaseException) -> bool:
    return isinstance(error, (Refused, WorkerError)) or type(error).__name__ in INABILITIES


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def _lacks_a_package(error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("vllm")


def _is_out_of_the_harness(error: BaseException) -> bool:
    """Whether it was raised by the suite's own code, or by torch for an operator it lacks."""
    frames = traceback.extract_tb(error.__traceback__)
    file = Path(frames[-1].filename) if frames else Path()
    own = HERE in file.resolve().parents and file.name != CALLED_BY_VLLM
    return own or file.match("torch/_ops.py")


_REASONS: tuple[tuple[str, Callable[[BaseException], bool]], ...] = (
    ("the device or the harness cannot", _is_inability),
    ("needs more memory than it may have", _lacks_memory),
    ("needs what is not here", lambda error: any(words in str(error) for words in NOT_HERE)),
    ("needs a package that is not here", _lacks_a_package),
    ("the harness cannot do what this asks", _is_out_of_the_harness),
)
