"""The keys of a configuration: many names for one thing, and clear errors for wrong values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.errors import UsageError

LARGEST = 10**9

HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "embed_dim")
HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "decoder_attention_heads",
    "attention_heads",
)
KV_HEADS = ("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "depth")
HEAD_SIZE = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")
WINDOW = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size")


@dataclass(frozen=True)
class Keys:
    """One object of a configuration file; ``where`` names it in errors."""

    where: str
    values: Mapping[str, Any]

    def get(self, *names: str) -> Any:
        """The value of the first name that is there and not null."""
        return next((v for name in names if (v := self.values.get(name)) is not None), None)

    def flag(self, *names: str) -> bool:
        return bool(self.get(*names))

    def number(self, *names: str) -> int | None:
        """A positive whole number, or None where no name is there.

        Raises:
            UsageError: the value is something else.
        """
        value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
            name = next(n for n in names if self.values.get(n) is not None)
            raise UsageError(
                f"{self.where}: {name} is {value!r}: expected a whole number from 1 on"
            )
        return value

    def required(self, what: str, *names: str) -> int:
        """A number that attention cannot do without."""
        found = self.number(*names)
        if found is None:
            raise UsageError(f"{self.where}: no {what}: expected one of {', '.join(names)}")
        return found

    def listed(self, *names: str) -> list[Any] | None:
        """A list, or None where the value is none."""
        value = self.get(*names)
        return value if isinstance(value, list) else None

    def nested(self, *names: str) -> Keys | None:
        """An object within, with its own place in errors."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, dict) and value:
                return Keys(f"{self.where}, {name}", value)
        return None

    def text(self, *names: str) -> str:
        value = self.get(*names)
        return value if isinstance(value, str) else ""
