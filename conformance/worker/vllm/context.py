"""The parts of the engine's configuration that selection reads, as fields of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from ..contract import Value
from ..errors import WorkerError
from .objects import Config
from .registry import load

OPTION = "use_prefill_decode_attention"
# A release that does not read one of them answers as if it were not there.
FIELDS = (OPTION, "encoder_decoder_model", "run_kv_cache_dtype")
PLAIN: dict[str, Value] = {
    OPTION: False,
    "encoder_decoder_model": False,
    "run_kv_cache_dtype": "auto",
}


class Contexts:
    """vLLM's configurations, one for each combination of values that a request has."""

    def __init__(self, names: Sequence[str]) -> None:
        """``names``: the fields that the values will be of, in their order."""
        self._names = tuple(names)
        self._made: dict[tuple[Value, ...], Config] = {}
        self.plain = tuple(PLAIN[name] for name in names)

    @contextlib.contextmanager
    def entered(self, values: tuple[Value, ...]) -> Iterator[None]:
        """Makes the configuration with these values vLLM's current one."""
        if values not in self._made:
            self._made[values] = _configuration(dict(zip(self._names, values, strict=True)))
        with load("vllm.config").set_current_vllm_config(self._made[values]):
            yield


def _configuration(changed: dict[str, Value]) -> Config:
    """vLLM's configuration with some of ``FIELDS`` changed."""
    given = {**PLAIN, **changed}
    config = load("vllm.config")
    attention = config.AttentionConfig()
    if given[OPTION] and hasattr(attention, OPTION):
        setattr(attention, OPTION, True)
    try:
        made: Config = config.VllmConfig(attention_config=attention)
    except Exception as error:
        raise WorkerError(
            f"vLLM's configuration cannot be made here: {type(error).__name__}: {error}"
        ) from error
    # An assignment would validate the whole configuration, and this model would not pass.
    if given["encoder_decoder_model"]:
        object.__setattr__(made, "model_config", SimpleNamespace(attn_type="encoder_decoder"))
    object.__setattr__(made.cache_config, "cache_dtype", given["run_kv_cache_dtype"])
    return made
