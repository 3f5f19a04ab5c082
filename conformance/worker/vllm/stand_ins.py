"""Objects that vLLM reads and that are the harness's, and calls that the harness answers or makes.

Releases read more of them as time goes on. What the harness does not have is reported as its own
inability: it says nothing about vLLM.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

from ..errors import UnknownError, WorkerError

T = TypeVar("T")
OWN = Path(__file__).resolve().parents[1]
# The harness's own code that vLLM calls, with arguments that are vLLM's.
CALLED_BY_VLLM = "replaced_ops.py"
# What a builder raises if the description of a batch lacks something.
OF_A_DESCRIPTION = (AssertionError, AttributeError, ImportError, KeyError, TypeError)


class StandIn(SimpleNamespace):
    """Stands for ``what``; reading of it what the harness does not have is no failure of vLLM's."""

    def __init__(self, what: str, **known: object) -> None:
        super().__init__(**known)
        self._what = what

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        what = self.__dict__.get("_what", "an object")
        raise UnknownError(f"the harness does not know {name!r} of {what}, which this vLLM reads")


def answering(op: Callable[..., T]) -> Callable[..., T]:
    """An op of the harness's that vLLM calls: arguments that it does not take are unknown to it."""
    signature = inspect.signature(op)

    @functools.wraps(op)
    def answer(*arguments: object, **named: object) -> T:
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise UnknownError(
                f"the harness does not know how this vLLM calls {op.__name__}: {error}"
            ) from error
        return op(*arguments, **named)

    return answer


@contextmanager
def describing(what: str) -> Iterator[None]:
    """Around vLLM's code that reads only what the harness made: what it misses is missing there."""
    try:
        yield
    except WorkerError:
        raise
    except OF_A_DESCRIPTION as error:
        raise UnknownError(
            f"the harness does not know how to describe {what} to this vLLM: "
            f"{type(error).__name__}: {error}"
        ) from error


def why_unknown(error: BaseException) -> str:
    """Why an error is the harness's own inability; "" if it is not."""
    frames = traceback.extract_tb(error.__traceback__)
    # A mode of the harness's passes on every call of torch's that vLLM makes.
    while frames and frames[-1].name == "__torch_function__":
        frames.pop()
    if not frames:
        return ""
    file = Path(frames[-1].filename)
    said = f"{type(error).__name__}: {error}"
    if OWN in file.parents and file.name != CALLED_BY_VLLM:
        return f"the harness does not know how to call this vLLM: {said}"
    if file.parent.name == "torch" and file.name == "_ops.py":
        return f"the harness does not know an operator that this vLLM calls: {said}"
    return ""


def why_no_gpu(error: BaseException) -> str:
    """Why an error only says that there is no GPU here; "" if it says something else."""
    frames = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}"
    in_cuda = any(Path(frame.filename).parent.match("torch/cuda") for frame in frames[-2:])
    if in_cuda or any(words in said for words in ("pin_memory", "accelerator device")):
        return f"the harness does not know how to do without a GPU here: {said}"
    return ""
