"""The space of problems: every axis along which they differ, once, as data.

An axis is a function from a problem to its value, in words; None: the problem has no such thing.
Values are classes where the sizes within one run the same code. What must be reached is what
:mod:`conformance.problems.space` makes of a backend's table of features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.problems.problem import Problem
from conformance.problems.trees import is_chain

ValueOf = Callable[[Problem], str | None]


@dataclass(frozen=True)
class Axis:
    """``meaning`` is a few words for reports."""

    name: str
    meaning: str
    value_of: ValueOf


def is_power_of_2(number: int) -> bool:
    return number & (number - 1) == 0


def batch(problem: Problem) -> str:
    """What the sequences of a batch are together."""
    if problem.key_lens is not None:
        return "cross attention" if problem.has_cache else "keys of their own"
    having = [(q, c) for q, c in zip(problem.query_lens, problem.context_lens, strict=True) if q]
    if all(q == 1 for q, _ in having):
        return "decodes"
    if any(q == 1 and c for q, c in having):
        return "decodes and prefills"
    return "prefills" if not any(c for _, c in having) else "prefills after a context"


def group(problem: Problem) -> str | None:
    if problem.is_latent or problem.kind == "indexer":
        return None
    if problem.group == 1:
        return "1"
    return "a power of 2" if is_power_of_2(problem.group) else "no power of 2"


def latent_heads(problem: Problem) -> str | None:
    """By whether they fit one tile of a decode."""
    if not problem.is_latent or problem.kind == "mla_prefill":
        return None
    return "to 16" if problem.num_heads <= 16 else "over 16"


def head_size(problem: Problem) -> str | None:
    """By whether tiles are padded, and whether a row is too long for the usual ones."""
    if problem.is_latent or problem.kind == "indexer":
        return None
    if problem.head_size > 128:
        return "over 128"
    return "a power of 2" if is_power_of_2(problem.head_size) else "no power of 2"


def value_head_size(problem: Problem) -> str | None:
    """Against that of keys: which of the two decides how much a tile holds."""
    if problem.kind != "paged":
        return None
    if problem.v_head_size == problem.head_size:
        return "that of keys"
    return "smaller" if problem.v_head_size < problem.head_size else "larger"


def rank(problem: Problem) -> str | None:
    return str(problem.latent_rank) if problem.is_latent else None


def block_size(problem: Problem) -> str | None:
    """By whether tiles are made of whole blocks, of parts of one, or cross its edge."""
    if not problem.has_cache:
        return None
    if not is_power_of_2(problem.block_size):
        return "no power of 2"
    return "1" if problem.block_size == 1 else "a power of 2"


def block_stride(problem: Problem) -> str | None:
    if not problem.has_cache:
        return None
    return "padded" if problem.block_pad else "dense"


def longest(problem: Problem) -> str:
    """The longest sequence's keys, by tiles, partitions and segments."""
    keys = max(problem.seq_lens, default=0)
    for edge in (16, 64, 256, 512):
        if keys <= edge:
            return f"to {edge}"
    return "over 512"


def later_keys(problem: Problem) -> str | None:
    """Whether a query sees keys behind its own; of cross attention there are none."""
    if problem.kind != "paged" or problem.key_lens is not None:
        return None
    return "hidden" if problem.causal else "seen"


def window(problem: Problem) -> str | None:
    if problem.kind not in ("paged", "varlen"):
        return None
    left, right = problem.window
    if left < 0 and right < 0:
        return "none"
    if right > 0:
        return "to both sides"
    return "the key itself" if left == 0 else "to the left"


def before_window(problem: Problem) -> str | None:
    if problem.kind != "paged" or problem.window[0] < 0:
        return None
    gone = problem.evicted and any(problem.kept_from(s) for s in range(problem.num_sequences))
    return "given up" if gone else "kept"


def soft_cap(problem: Problem) -> str | None:
    if problem.kind not in ("paged", "varlen"):
        return None
    if not problem.soft_cap:
        return "none"
    return "far below the logits" if problem.large_logits and problem.soft_cap < 2 else "usual"


def prefix(problem: Problem) -> str | None:
    if problem.kind != "paged":
        return None
    if not any(problem.mm_prefix):
        return "none"
    if problem.window[0] >= 0:
        return "with a window"
    across = any(start < 64 <= end for ranges in problem.mm_prefix for start, end in ranges)
    return "across tiles" if across else "without a window"


def prompt(problem: Problem) -> str | None:
    """Whether the first keys are seen beyond a window, which few problems have."""
    return "seen" if any(problem.prompts) else None


def tree(problem: Problem) -> str | None:
    """What the branches of draft tokens are, which few problems have."""
    if not any(problem.verified):
        return None
    if is_chain(problem.tree):
        return "a chain"
    return "a star" if not any(problem.tree) else "branches"


def place_of_values(problem: Problem) -> str | None:
    if problem.kind != "paged":
        return None
    return "interleaved" if problem.interleaved else "the backend's own"


def scale_of_cache(problem: Problem) -> str | None:
    own = problem.is_packed or problem.is_head_scaled or problem.is_ds_mla
    if problem.kv_cache_dtype == "auto" or own or problem.kind == "indexer":
        return None
    halved = problem.k_scale
    while halved < 1:
        halved *= 2
    return "a power of 2" if is_power_of_2(int(halved)) and halved == int(halved) else "any"


def values(problem: Problem) -> str | None:
    own = problem.is_packed or problem.is_head_scaled
    if problem.kind != "paged" or problem.kv_cache_dtype == "auto" or own:
        return None
    return "fp8's edges" if problem.fp8_edges else "usual"


def rows(problem: Problem) -> str:
    """How the rows of queries, keys and values lie; K's strides differ from V's if padded."""
    return "padded" if problem.row_pad or problem.head_pad else "dense"


def padding(problem: Problem) -> str | None:
    """Tokens after the last sequence's, and whether the slot mapping ends before theirs."""
    if not problem.has_cache:
        return None
    names = {0: "none", 1: "without slots"}
    return names.get(problem.extra_rows, "some without slots")


def chosen(problem: Problem) -> str | None:
    """Chosen keys against those there are, and against 256 that are translated at a time."""
    if not problem.is_sparse:
        return None
    if problem.topk > 256:
        return "over 256"
    tokens = problem.tokens_of_a_chosen_key if problem.is_ds_mla else 1
    return "all" if problem.topk >= max(problem.seq_lens, default=0) // tokens else "some"


def chunks(problem: Problem) -> str | None:
    if problem.kind in ("mla_prefill", "indexer"):
        return "several" if problem.at_once else "one"
    computed = problem.kind == "paged" and problem.backend == "ROCM_AITER_FA"
    return ("several" if problem.at_once else "one") if computed else None


def pieces(problem: Problem) -> str | None:
    if problem.kind not in ("paged", "mla"):
        return None
    return "over 16" if problem.pieces > 16 else "the backend's own"


def alibi(problem: Problem) -> str | None:
    return problem.alibi if problem.kind == "paged" else None


def sinks(problem: Problem) -> str | None:
    has = problem.kind in ("paged", "mla_sparse")
    return ("yes" if problem.sinks else "no") if has else None


def logits(problem: Problem) -> str | None:
    if problem.kind == "indexer":
        return None
    return "beyond exp" if problem.large_logits else "usual"


def skipped(problem: Problem) -> str | None:
    return ("some" if problem.skipped_writes else "none") if problem.has_cache else None


def cache(problem: Problem) -> str | None:
    return problem.kv_cache_dtype if problem.has_cache else None


AXES: tuple[Axis, ...] = (
    Axis("kind", "what is computed", lambda p: p.kind),
    Axis("batch", "what the sequences are together", batch),
    Axis("longest", "keys of the longest sequence", longest),
    Axis("group", "query heads per KV head", group),
    Axis("latent heads", "query heads of MLA", latent_heads),
    Axis("head size", "elements of a head", head_size),
    Axis("value head size", "elements of a value's head", value_head_size),
    Axis("latent rank", "elements of MLA's latent vector", rank),
    Axis("dtype", "of queries, keys, values and outputs", lambda p: p.dtype),
    Axis("cache", "dtype of the cache", cache),
    Axis("cache scale", "what fp8 values are multiplied by", scale_of_cache),
    Axis("values", "magnitudes that are stored", values),
    Axis("logits", "magnitudes of logits", logits),
    Axis("block size", "tokens of a block", block_size),
    Axis("block stride", "what is between blocks", block_stride),
    Axis("place of values", "in a cache", place_of_values),
    Axis("rows", "strides of queries, keys and values", rows),
    Axis("padding", "tokens after the last sequence", padding),
    Axis("skipped writes", "slots of -1 among the others", skipped),
    Axis("later keys", "than a query's own", later_keys),
    Axis("window", "which keys a query sees by distance", window),
    Axis("before the window", "blocks that no query sees", before_window),
    Axis("soft cap", "against the logits", soft_cap),
    Axis("alibi", "bias by distance", alibi),
    Axis("sinks", "a logit without a key for each head", sinks),
    Axis("prefix", "ranges that see each other", prefix),
    Axis("prompt", "keys that a window does not hide", prompt),
    Axis("tree", "branches of draft tokens", tree),
    Axis("chosen keys", "top-k against the keys there are", chosen),
    Axis("chunks", "of context or logits at a time", chunks),
    Axis("pieces", "of a sequence in a decode", pieces),
    Axis("poison", "where nothing may be read", lambda p: p.poison),
    Axis("order", "of a grid's programs", lambda p: p.order),
)


# What does nothing to a query that has one key to see, or two.
MASKS = ("window", "before the window", "soft cap", "alibi", "prefix", "prompt", "tree")


def values_of(problem: Problem) -> dict[str, str]:
    """The problem's value on every axis that it has; of masks only if there is much to mask."""
    found = {axis.name: axis.value_of(problem) for axis in AXES}
    if max(problem.seq_lens, default=0) <= 2:
        found |= dict.fromkeys(MASKS)
    return {name: value for name, value in found.items() if value is not None}
