"""What selection reads of the engine's configuration, asked for like fields of the request."""

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ..errors import WorkerError
from .registry import load

OPTION = "use_prefill_decode_attention"
# A release that reads one of them not at all answers as if it were not there.
FIELDS = (OPTION, "encoder_decoder_model", "run_kv_cache_dtype")
PLAIN = {OPTION: False, "encoder_decoder_model": False, "run_kv_cache_dtype": "auto"}


class Contexts:
    """vLLM's configurations, one for each combination of values that is asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        """``names``: those of ``FIELDS`` that the values will be of, in their order."""
        self._names = tuple(names)
        self._made: dict[tuple[Any, ...], Any] = {}
        self.plain = tuple(PLAIN[name] for name in names)

    @contextlib.contextmanager
    def entered(self, values: tuple[Any, ...]) -> Iterator[None]:
        """Makes the configuration with these values vLLM's current one."""
        if values not in self._made:
            self._made[values] = _configuration(**dict(zip(self._names, values, strict=True)))
        with load("vllm.config").set_current_vllm_config(self._made[values]):
            yield


def _configuration(
    use_prefill_decode_attention: bool = False,
    encoder_decoder_model: bool = False,
    run_kv_cache_dtype: str = "auto",
) -> Any:
    config = load("vllm.config")
    attention = config.AttentionConfig()
    if use_prefill_decode_attention and hasattr(attention, OPTION):
        setattr(attention, OPTION, True)
    try:
        made = config.VllmConfig(attention_config=attention)
    except Exception as error:
        raise WorkerError(
            f"vLLM's configuration cannot be made here: {type(error).__name__}: {error}"
        ) from error
    # Not by assignment: that would validate the whole, which no half-made model passes.
    if encoder_decoder_model:
        object.__setattr__(made, "model_config", SimpleNamespace(attn_type="encoder_decoder"))
    object.__setattr__(made.cache_config, "cache_dtype", run_kv_cache_dtype)
    return made
