"""What a fault is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from conformance.matrix.requests import Platform
from rocm_reference.selector import Selector
from vllm_editions import Edition, load_edition

EDITION = "0.19"
RELEASE = "0.19.0"

# The fields that say where a fault shows, and of which build it is.
SHOWN = ("cells", "suites", "series", "release")

Table = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, and the requirements that each must fail because of it.

    ``edit`` changes the edition's table in place, ``selector`` is the selector that reads it, and
    ``variables`` are those that the build still has, with the value it gives them (``None``:
    registered, but not readable). ``files`` lie in the build's source tree, by path; its installed
    package is the folder ``vllm`` there. ``cells`` and ``suites`` are the least that show it.
    ``series`` and ``release`` are the edition that it is a fault of, and the version that the build
    says it has.
    """

    name: str
    caught_by: tuple[str, ...]
    edit: Callable[[Table], None] | None = None
    selector: Callable[..., Selector] = Selector
    variables: Mapping[str, str | None] = field(default_factory=dict)
    unregistered: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[str, ...] = ("rocm62-aiter-mha",)
    suites: tuple[str, ...] = ("selection",)
    series: str = EDITION
    release: str = RELEASE

    @cached_property
    def edition(self) -> Edition:
        """The edition's table with the fault in it."""
        right = load_edition(self.series)
        if self.edit is None:
            return right
        table = right.model_dump()
        self.edit(table)
        return Edition.model_validate(table)

    def selector_on(self, platform: Platform) -> Selector:
        """The wrong selector as it stands on a platform."""
        return self.selector(
            self.edition,
            platform.target,
            aiter=platform.aiter,
            flash_attn=platform.flash_attn,
            env=platform.variables,
        )


def changes_something(fault: Fault) -> bool:
    """Whether a fault is one: it differs from a conforming build in some part."""
    parts = [f.name for f in fields(Fault) if f.name not in ("name", "caught_by", *SHOWN)]
    right = Fault("", ())
    return any(getattr(fault, part) != getattr(right, part) for part in parts)
