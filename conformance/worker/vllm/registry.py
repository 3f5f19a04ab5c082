"""vLLM's attention backends: their names, their classes, and what the classes claim to support."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from types import ModuleType

from ..contract import BackendDescription
from ..errors import WorkerError
from . import simulated_platform as simulation
from .objects import BackendClass, Member

ATTN_TYPES = ("decoder", "encoder", "encoder_only", "encoder_decoder")
# The members of a backend class that say what it supports, by aspect.
DECLARED_BY = {
    "dtypes": ("supported_dtypes",),
    "kv_cache_dtypes": ("supported_kv_cache_dtypes",),
    "block_sizes": ("get_supported_kernel_block_sizes",),
    "head_sizes": ("get_supported_head_sizes", "supports_head_size"),
    "sinks": ("supports_sink",),
    "sparse": ("is_sparse",),
    "mm_prefix": ("supports_mm_prefix",),
    "attn_types": ("supports_attn_type",),
}


def load(name: str) -> ModuleType:
    """Imports one of the subject's modules.

    Raises:
        WorkerError: it cannot be imported, so no verdict is possible.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WorkerError(
            f"{name} cannot be imported by {sys.executable}: {type(error).__name__}: {error}"
        ) from error


class Registry:
    """The backends that a vLLM knows, by the names of its ``AttentionBackendEnum``."""

    def __init__(self) -> None:
        enum = load("vllm.v1.attention.backends.registry").AttentionBackendEnum
        self.members: dict[str, Member] = dict(enum.__members__)
        self.name_by_path: dict[str, str] = {}
        for name, member in self.members.items():
            with contextlib.suppress(ValueError):  # this member has no class
                self.name_by_path[member.get_path()] = name

    def import_all(self, names: list[str]) -> list[str]:
        """Imports the classes of these backends; returns the names that this vLLM lacks."""
        for name in names:
            if name in self.members:
                self.diagnose(name)
        return [name for name in names if name not in self.members]

    @functools.cache  # noqa: B019 - a registry lives as long as its process
    def diagnose(self, name: str) -> None:
        """Imports a backend's class, so that no missing dependency is taken for a rejection.

        vLLM gives an ImportError as the reason why it rejects a backend.

        Raises:
            WorkerError: a package is missing that the platform does not say is missing.
        """
        try:
            self.members[name].get_class()
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            if package not in simulation.STATED:
                raise WorkerError(
                    f"{name} cannot be imported: {type(error).__name__}: {error}. vLLM would count "
                    "this as a rejected backend; install what is missing into the subject's Python."
                ) from error
        except ValueError:
            return

    def describe(self, name: str) -> BackendDescription:
        """What a backend's class says that it supports, from its own methods."""
        cls = self.members[name].get_class()
        return {
            "dtypes": [str(d).removeprefix("torch.") for d in cls.supported_dtypes],
            "kv_cache_dtypes": list(cls.supported_kv_cache_dtypes),
            "block_sizes": [
                f"%{b.base}" if hasattr(b, "base") else str(b)
                for b in cls.get_supported_kernel_block_sizes()
            ],
            "head_sizes": [str(h) for h in cls.get_supported_head_sizes()],
            "supported_head_sizes": [h for h in range(1, 1025) if cls.supports_head_size(h)],
            "sinks": cls.supports_sink(),
            "sparse": cls.is_sparse(),
            "mm_prefix": cls.supports_mm_prefix(),
            "mla": cls.is_mla(),
            "attn_types": [kind for kind in ATTN_TYPES if cls.supports_attn_type(kind)],
            "inherited": [aspect for aspect, names in DECLARED_BY.items() if _inherits(cls, names)],
        }


def _inherits(cls: BackendClass, names: tuple[str, ...]) -> bool:
    """Whether these members come from a class between this one and the common base."""
    owners = [owner for owner in cls.__mro__ if any(name in vars(owner) for name in names)]
    return (
        bool(owners)
        and owners[0] is not cls.__mro__[0]
        and owners[0].__name__ != "AttentionBackend"
    )
