"""What the parity suite knows of the kernels behind a choice: judged or not, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from conformance.models.layers import Layers
from conformance.problems.features import features
from conformance.requirements import EVERY, parity_backends, requirements_of
from conformance.requirements.waivers import Waiver, load_waivers, matches
from conformance.worker.other_kernels import BACKEND_NEEDS


@dataclass(frozen=True)
class Judged:
    """``status``: whether and how a backend's kernels are judged. ``findings``: what is on record
    against them that concerns the layer, each a sentence with its page. ``off_gpu``: they are
    judged without a GPU too."""

    status: str
    off_gpu: bool = False
    findings: tuple[tuple[str, str], ...] = ()


@cache
def _waivers() -> tuple[Waiver, ...]:
    return load_waivers().waivers


def judged(
    backend: str, release: str, edition: str, layer: Layers, dtype: str, cache_dtype: str, mm: bool
) -> Judged:
    """What is known of a backend's kernels in a release, for layers like this one."""
    own = [name for name, of in parity_backends(edition).items() if of == backend]
    if not own or backend not in features():
        return Judged("the suite has no problems for this backend: its kernels are not judged")
    if backend in BACKEND_NEEDS:
        names = ", ".join(BACKEND_NEEDS[backend])
        status = (
            f"the suite judges these kernels on an AMD GPU only ({names}); off one, it judges its "
            "own reference of the same algorithm"
        )
    else:
        status = (
            "the suite judges these kernels without a GPU (rocm-conformance run --suite parity "
            f"--subject vllm=={release})"
        )
    every = [name for name, r in requirements_of(edition).items() if r.backend == EVERY]
    names_of_case = [
        f"{requirement} {backend} [{_problem_like(backend, layer, dtype, cache_dtype, mm, kind)}]"
        for requirement in (*own, *every)
        for kind in _kinds(layer)
    ]
    findings = tuple(
        (waiver.reason, waiver.url)
        for waiver in _waivers()
        if waiver.requirement in (*own, *every)
        and matches(waiver.subject, f"vllm=={release}")
        and waiver.of_release(release)
        and any(matches(waiver.case, name) for name in names_of_case)
    )
    return Judged(status, backend not in BACKEND_NEEDS, findings)


def _kinds(layer: Layers) -> tuple[str, ...]:
    if "MLA" in layer.kind or layer.kind == "mla":
        return (
            ("mla", "mla-prefill", "mla-sparse")
            if "sparse" in layer.kind
            else ("mla", "mla-prefill")
        )
    if layer.kind in ("encoder", "vision", "audio"):
        return ("varlen",)
    return ("paged",)


def _problem_like(
    backend: str, layer: Layers, dtype: str, cache_dtype: str, mm: bool, kind: str
) -> str:
    """A name as the parity suite names its problems, so that its waivers' patterns apply."""
    labels = {"cross": "cross-attention"}
    cache = {"fp8": "e4m3fn", "fp8_e4m3": "e4m3fn", "fp8_e5m2": "e5m2"}.get(cache_dtype)
    parts = [
        backend.lower().replace("_", "-"),
        kind,
        labels.get(layer.kind, "many-kv-heads" if layer.num_kv_heads > 32 else "layer"),
        f"h{layer.num_heads}x{layer.num_kv_heads}",
        f"d{layer.head_size}",
        {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}.get(dtype, dtype),
        *([cache] if cache else []),
        *([f"win{layer.window - 1}"] if layer.window else []),
        *(["cap"] if layer.soft_cap else []),
        *(["alibi-linear"] if layer.alibi else []),
        *(["sinks"] if layer.sinks else []),
        *(["prefix"] if mm else []),
        "0",
    ]
    return "-".join(parts)
