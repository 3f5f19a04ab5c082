"""vLLM's own selector behind the protocol.

Everything is asked of vLLM's public entry points; the candidates come from watching what
``get_valid_backends`` returns during the very call that selects.
"""

import ast
import contextlib
import functools
import importlib
import operator
import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import simulation
from .wire import Message, WorkerError

# Ambient variables that change what vLLM does: a platform starts without them.
CLEARED_PREFIXES = ("VLLM_", "AITER_", "FLASH_ATTENTION_", "HIP_VISIBLE", "ROCR_VISIBLE")
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
OPTION = "use_prefill_decode_attention"


def open_session(start: Message) -> "VllmSession":
    """Imports vLLM on the platform of a ``start`` message."""
    platform = start["platform"]
    simulate = start["simulate"]
    present = {name: bool(platform[name]) for name in simulation.STATED}
    simulated = simulate == "always" or (simulate == "auto" and not _has_amd_gpu())
    _set_environment(platform["env"], simulated)
    before = set(sys.modules)
    if simulated:
        simulation.install(platform["target"], present)
    session = VllmSession(start, simulated, before)
    if not simulated:
        session.check_real_machine(platform["target"], present)
    return session


class VllmSession:
    """vLLM on one platform."""

    def __init__(self, start: Message, simulated: bool, before: set[str]) -> None:
        self._before = before
        self._target = start["platform"]["target"]
        self._simulated = simulated
        vllm = _import("vllm")
        platforms = _import("vllm.platforms")
        self._platform = platforms.current_platform
        if not self._platform.is_rocm():
            raise WorkerError(
                f"vLLM {vllm.__version__} took this machine for "
                f"{type(self._platform).__name__}, not for ROCm. On a machine without an AMD GPU "
                "run with --simulate always."
            )
        self._torch = _import("torch")
        self._rocm = _import("vllm.platforms.rocm")
        self._config = _import("vllm.v1.attention.selector").AttentionSelectorConfig
        self._registry = _import("vllm.v1.attention.backends.registry").AttentionBackendEnum
        self._names = self._name_by_path()
        self._seen: Any = None
        self._watch()
        self._members = dict(self._registry.__members__)
        self._choose = self._platform.get_attn_backend_cls
        self._dtypes: dict[str, Any] = {}
        self._tensor = self._torch.zeros(1)
        missing = self._import_backends(start["backends"])
        self.info: Message = {
            "subject": "vllm",
            "version": vllm.__version__,
            "simulated": simulated,
            "root": str(Path(vllm.__file__).parent),
            "python": sys.version.split()[0],
            "torch": self._torch.__version__,
            "fields": list(self._config._fields),
            "missing_backends": missing,
        }

    def handle(self, op: str, message: Message) -> Message:
        handlers = {
            "attention": self._ask_attention,
            "paged_attention": self._ask_paged_attention,
            "vit": self._ask_vit,
            "variable": self._variable,
            "describe": self._describe,
            "cpu": lambda _message: {"seconds": time.process_time()},
            "bare": self._bare,
            "compile": self._compile,
        }
        if op not in handlers:
            raise WorkerError(f"unknown op {op!r}; known: {', '.join(handlers)}")
        return handlers[op](message)

    def modules_to_share(self) -> list[str]:
        if not self._simulated:
            return []
        own = ("vllm", "conformance_worker", "amdsmi", "pynvml", "__", *simulation.STATED)
        names = [name for name in sys.modules if name not in self._before]
        return [name for name in names if not name.startswith(own)]

    def check_real_machine(self, target: str, present: dict[str, bool]) -> None:
        """A real machine is judged as it is: another platform than its own is refused."""
        real = str(self._torch.cuda.get_device_properties(0).gcnArchName).partition(":")[0]
        if real != target:
            raise WorkerError(f"this machine's GPU is {real}, not {target}")
        for name, wanted in present.items():
            if (find_spec(name) is not None) != wanted:
                state = "is not" if wanted else "is"
                raise WorkerError(f"{name} {state} installed on this machine")

    def _name_by_path(self) -> dict[str, str]:
        names = {}
        for name, member in self._registry.__members__.items():
            with contextlib.suppress(ValueError):
                names[member.get_path()] = name
        return names

    def _watch(self) -> None:
        """Keeps what ``get_valid_backends`` returns; its callers see no difference."""
        cls = type(self._platform)
        if not hasattr(cls, "get_valid_backends"):
            raise WorkerError(
                "this vLLM's RocmPlatform has no get_valid_backends: releases before 0.18 "
                "cannot be asked for their candidates"
            )
        original = cls.get_valid_backends

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._seen = original(*args, **kwargs)
            return self._seen

        cls.get_valid_backends = staticmethod(watched)

    def _import_backends(self, names: list[str]) -> list[str]:
        missing = []
        for name in names:
            if name in self._registry.__members__:
                self._diagnose(name)
            else:
                missing.append(name)
        return missing

    @functools.cache  # noqa: B019 - a session lives as long as its process
    def _diagnose(self, name: str) -> None:
        """vLLM swallows an ImportError as a reason; one that is not aiter's is the harness's."""
        try:
            self._registry[name].get_class()
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            if package not in simulation.STATED:
                raise WorkerError(
                    f"{name} cannot be imported: {type(error).__name__}: {error}. vLLM would count "
                    "this as a rejected backend; install what is missing into the subject's Python."
                ) from error
        except ValueError:
            return

    def _ask_attention(self, message: Message) -> Message:
        fields: list[str] = message["fields"]
        where = {name: i for i, name in enumerate(fields)}
        known = [name for name in self._config._fields if name in where]
        for name in fields:
            if name not in (*known, "backend", OPTION) and any(
                row[where[name]] for row in message["rows"]
            ):
                raise WorkerError(f"this vLLM's selector has no field {name!r}")
        in_order = operator.itemgetter(*(where[name] for name in known))
        whole = len(known) == len(self._config._fields)
        dtype_at, backend_at = known.index("dtype"), where["backend"]
        option_at = where.get(OPTION)
        batch, dtypes, make, select = _Batch(), self._dtypes, self._config, self._select
        for row in message["rows"]:
            values = list(in_order(row))
            values[dtype_at] = dtypes.get(values[dtype_at]) or self._dtype(values[dtype_at])
            config = make(*values) if whole else make(**dict(zip(known, values, strict=True)))
            if option_at is not None and row[option_at]:
                with self._option():
                    batch.add(*select(row[backend_at], config))
            else:
                batch.add(*select(row[backend_at], config))
        return batch.as_json()

    def _bare(self, message: Message) -> Message:
        """CPU seconds of the subject's own calls for these requests, with nothing around them."""
        fields, calls = message["fields"], []
        for row in message["rows"]:
            q = dict(zip(fields, row, strict=True))
            known = {name: q[name] for name in self._config._fields if name in q}
            config = self._config(**{**known, "dtype": self._dtype(q["dtype"])})
            calls.append((q["backend"] and self._registry[q["backend"]], config))
        choose = self._platform.get_attn_backend_cls
        started = time.process_time()
        for member, config in calls:
            with contextlib.suppress(ValueError):
                choose(member, config)
        return {"seconds": time.process_time() - started}

    def _compile(self, message: Message) -> Message:
        """One call of vLLM's own kernels, compiled for the platform's target."""
        codegen = importlib.import_module(f"{__package__}.codegen")
        calls = importlib.import_module(f"{__package__}.kernel_calls")
        given = {**message["call"], "sequences": tuple(map(tuple, message["call"]["sequences"]))}
        call = calls.Call(**given)
        answer: Message = codegen.compile_call(self._target, lambda: calls.run_call(call))
        return answer

    def _select(self, backend: str | None, config: Any) -> tuple[Any, str]:
        """One selection: ``(outcome, message)``; an outcome is hashable and sent once a batch."""
        self._seen = None
        try:
            member = None if backend is None else self._members[backend]
            path = self._choose(member, config)
        except ValueError as error:
            return self._rejection(backend, config, str(error)), str(error)
        except Exception as error:
            return ((None, "crash", self._candidates()), f"{type(error).__name__}: {error}")
        selected = self._names.get(path, path)
        if self._seen is None:
            return ((selected, None, ((selected, ()),)), "")
        return ((selected, None, self._candidates()), "")

    def _rejection(self, backend: str | None, config: Any, text: str) -> Any:
        if backend is None or self._seen is not None:
            return (None, "no_valid_backend", self._candidates())
        if backend not in self._registry.__members__:
            return (None, "crash", ())
        reasons = _reasons_in(text)
        if reasons is None:
            reasons = tuple(self._validate(backend, config))
        if reasons == ("ImportError",):
            self._diagnose(backend)
        return (None, "invalid_selected_backend", ((backend, reasons),))

    def _validate(self, backend: str, config: Any) -> list[str]:
        found: list[str] = (
            self._registry[backend]
            .get_class()
            .validate_configuration(
                device_capability=self._platform.get_device_capability(), **config._asdict()
            )
        )
        return found

    def _candidates(self) -> Any:
        """``get_valid_backends``'s answer as one list in the order the candidates were tried."""
        if self._seen is None:
            return ()
        valid, rejected = self._seen
        slots: list[Any] = [None] * (len(valid) + len(rejected))
        for member, priority in valid:
            slots[priority] = (member._name_, ())
        at = 0
        for member, reasons in rejected.items():
            while slots[at] is not None:
                at += 1
            if reasons == ["ImportError"]:
                self._diagnose(member._name_)
            slots[at] = (member._name_, tuple(reasons))
        return tuple(slots)

    @contextlib.contextmanager
    def _option(self) -> Any:
        """The engine option of 0.18 that put ROCM_ATTN on the list, through vLLM's own config."""
        config = _import("vllm.config")
        attention = config.AttentionConfig()
        if not hasattr(attention, OPTION):
            yield
            return
        setattr(attention, OPTION, True)
        with config.set_current_vllm_config(config.VllmConfig(attention_config=attention)):
            yield

    def _ask_paged_attention(self, message: Message) -> Message:
        batch = _Batch()
        use_custom = self._rocm.use_rocm_custom_paged_attention
        for row in message["rows"]:
            q = dict(zip(message["fields"], row, strict=True))
            applies = use_custom(
                self._dtype(q["dtype"]),
                q["head_size"],
                q["block_size"],
                q["gqa_ratio"],
                q["max_seq_len"],
                q["sliding_window"],
                q["kv_cache_dtype"],
                self._tensor if q["alibi"] else None,
                self._tensor if q["sinks"] else None,
            )
            batch.add(("custom" if applies else "triton", None, ()), "")
        return batch.as_json()

    def _ask_vit(self, message: Message) -> Message:
        batch = _Batch()
        for row in message["rows"]:
            q = dict(zip(message["fields"], row, strict=True))
            backend = q["backend"]
            try:
                member = None if backend is None else self._registry[backend]
                chosen = self._platform.get_vit_attn_backend(
                    q["head_size"], self._dtype(q["dtype"]), backend=member
                )
            except (AssertionError, ValueError) as error:
                batch.add((None, "unsupported_vit_backend", ()), str(error))
            else:
                batch.add((chosen.name, None, ((chosen.name, ()),)), "")
        return batch.as_json()

    def _variable(self, message: Message) -> Message:
        envs = _import("vllm.envs")
        found = {}
        for name in message["names"]:
            try:
                value = repr(getattr(envs, name))
            except AttributeError:
                value = None
            found[name] = {"registered": name in envs.environment_variables, "value": value}
        return {"variables": found}

    def _describe(self, message: Message) -> Message:
        """What each backend class says it supports, by asking its own methods."""
        return {"backends": {n: self._describe_one(n) for n in message["backends"]}}

    def _describe_one(self, name: str) -> Message:
        cls = self._registry[name].get_class()
        kinds = ("decoder", "encoder", "encoder_only", "encoder_decoder")
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
            "attn_types": [kind for kind in kinds if cls.supports_attn_type(kind)],
            "inherited": [
                aspect for aspect, names in _DECLARED_BY.items() if _inherits(cls, names)
            ],
        }

    def _dtype(self, name: str) -> Any:
        dtype = self._dtypes.get(name)
        if dtype is None:
            dtype = self._dtypes[name] = getattr(self._torch, name)
        return dtype


# The members of a backend class that state an aspect.
_DECLARED_BY = {
    "dtypes": ("supported_dtypes",),
    "kv_cache_dtypes": ("supported_kv_cache_dtypes",),
    "block_sizes": ("get_supported_kernel_block_sizes",),
    "head_sizes": ("get_supported_head_sizes", "supports_head_size"),
    "sinks": ("supports_sink",),
    "sparse": ("is_sparse",),
    "mm_prefix": ("supports_mm_prefix",),
    "attn_types": ("supports_attn_type",),
}


def _inherits(cls: type, names: tuple[str, ...]) -> bool:
    """Whether a class between this one and the common base states what these members say."""
    owners = [owner for owner in cls.__mro__ if any(name in vars(owner) for name in names)]
    return bool(owners) and owners[0] is not cls and owners[0].__name__ != "AttentionBackend"


class _Batch:
    """Answers of one batch: each distinct outcome once, then an index a row."""

    def __init__(self) -> None:
        self._outcomes: dict[Any, int] = {}
        self._answers: list[int] = []
        self._messages: dict[int, str] = {}

    def add(self, outcome: Any, text: str) -> None:
        if text:
            self._messages[len(self._answers)] = text
        self._answers.append(self._outcomes.setdefault(outcome, len(self._outcomes)))

    def as_json(self) -> Message:
        return {
            "outcomes": list(self._outcomes),
            "answers": self._answers,
            "messages": self._messages,
        }


@functools.lru_cache(maxsize=4096)
def _reasons_in(text: str) -> tuple[str, ...] | None:
    """The list of reasons that an error about an explicit backend ends with."""
    match = re.search(r"Reasons?: (\[.*\])\W*$", text, re.DOTALL)
    if match is None:
        return None
    try:
        listed = ast.literal_eval(match.group(1))
    except (SyntaxError, ValueError):
        return None
    return tuple(str(reason) for reason in listed)


def _has_amd_gpu() -> bool:
    """Whether the real amdsmi sees a GPU."""
    try:
        amdsmi = importlib.import_module("amdsmi")
        amdsmi.amdsmi_init()
        try:
            return len(amdsmi.amdsmi_get_processor_handles()) > 0
        finally:
            amdsmi.amdsmi_shut_down()
    except Exception:
        return False


def _set_environment(env: dict[str, str], simulated: bool) -> None:
    for name in list(os.environ):
        cleared = CLEARED_PREFIXES if simulated else CLEARED_PREFIXES[:3]
        if name.startswith(cleared):
            del os.environ[name]
    os.environ.update(QUIET)
    if simulated:
        # With no visible device vLLM keeps Triton on although no Triton driver is active.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(env)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WorkerError(
            f"{name} cannot be imported by {sys.executable}: {type(error).__name__}: {error}"
        ) from error
