"""The drift page and its picture, as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from conformance.comparison.causes import Cause
from conformance.comparison.sides import LABELS, NOT_KNOWN
from conformance.matrix.targets import TARGETS
from conformance.release_pages.drift_data import SETTINGS, Moved, Release, asked, standard_requests
from conformance.reports.templates import COLOURS, template
from conformance.results import markdown
from conformance.suites.case import show_ask

PAGE, PICTURE = "drift.md", "drift.svg"
NO_BACKEND_FILL, NOT_KNOWN_FILL = "#bbbbbb", "#eeeeee"
_LEFT, _TOP, _RIGHT = 100, 40, 15
_COLUMN, _BAND, _GAP = 44, 58, 6
_LEGEND_ROW, _LEGEND_COLUMN = 22, 205


def files(releases: Sequence[Release]) -> dict[str, str]:
    """Both files by name."""
    return {PAGE: page(releases), PICTURE: picture(releases)}


def page(releases: Sequence[Release]) -> str:
    """The page in Markdown."""
    return template(PAGE).render(
        asked=asked(),
        targets=", ".join(TARGETS),
        settings=list(SETTINGS),
        releases=[_release(r, before) for before, r in pairwise(releases)],
        requests=[
            {"title": r.title, "fields": markdown.cell(show_ask(r.ask).removeprefix("request: "))}
            for r in standard_requests()
        ],
    )


def _release(release: Release, before: Release) -> dict[str, Any]:
    top = release.moved[0] if release.moved else None
    heading = f"{before.edition} to {release.edition}"
    return {
        "edition": release.edition,
        "heading": heading,
        "anchor": heading.replace(".", "").replace(" ", "-"),
        "moves": release.moves,
        "most": f"{top.old} → {top.new}: {len(top.examples)}" if top else "",
        "moved": [_moved(moved) for moved in release.moved],
        "changes": [_change(cause) for cause in sorted(release.changes)],
    }


def _moved(moved: Moved) -> dict[str, str]:
    first = min(moved.examples, key=lambda example: example.size)
    titles = {request.ask: request.title for request in standard_requests()}
    example = f"{titles[first.ask]}, on {first.platform}"
    return {
        "old": moved.old,
        "new": moved.new,
        "count": f"{len(moved.examples):,}",
        "why": "; ".join(markdown.cell(cause.text) for cause in moved.causes),
        "example": markdown.cell(example),
    }


def _change(cause: Cause) -> dict[str, str]:
    links = ", ".join(f"[{_place(source)}]({source})" for source in cause.sources)
    text = markdown.cell(f"{cause.kind}: {cause.text}").replace("*", "\\*")
    return {"text": text, "links": f" ({links})" if links else ""}


def _place(source: str) -> str:
    """``.../rocm_attn.py#L212`` -> ``rocm_attn.py:212``."""
    return source.rpartition("/")[2].replace("#L", ":")


def picture(releases: Sequence[Release]) -> str:
    """The picture, as SVG: a band a target, a column a release, a part for each selection."""
    names = _names(releases)
    fills = {name: _fill(name, names) for name in names}
    bottom = _TOP + len(TARGETS) * (_BAND + _GAP)
    width = _LEFT + len(releases) * _COLUMN + _RIGHT
    in_row = max(1, (width - _LEFT) // _LEGEND_COLUMN)
    rows = -(-len(names) // in_row)
    return template(PICTURE).render(
        width=width,
        height=bottom + 20 + rows * _LEGEND_ROW,
        left=_LEFT,
        top=_TOP,
        columns=[
            {"edition": r.edition, "middle": _LEFT + at * _COLUMN + _COLUMN // 2}
            for at, r in enumerate(releases)
        ],
        bands=[_band(number, target, releases, fills) for number, target in enumerate(TARGETS)],
        legend=[
            {
                "name": name,
                "fill": fills[name],
                "x": _LEFT + at % in_row * _LEGEND_COLUMN,
                "y": bottom + 12 + at // in_row * _LEGEND_ROW,
            }
            for at, name in enumerate(names)
        ],
    )


def _band(
    number: int, target: str, releases: Sequence[Release], fills: dict[str, str]
) -> dict[str, Any]:
    top = _TOP + number * (_BAND + _GAP)
    parts = []
    for at, release in enumerate(releases):
        counts = release.selected[target]
        below = 0
        for name, fill in fills.items():
            if count := counts[name]:
                start, end = (_BAND * n / counts.total() for n in (below, below + count))
                parts.append(
                    {
                        "x": _LEFT + at * _COLUMN + 1,
                        "y": f"{top + start:.1f}",
                        "width": _COLUMN - 2,
                        "height": f"{end - start:.1f}",
                        "fill": fill,
                    }
                )
                below += count
    family = TARGETS[target].family
    return {
        "target": target,
        "family": family,
        "parts": parts,
        "middle": top + _BAND // 2,
        "bottom": top + _BAND,
    }


def _names(releases: Sequence[Release]) -> list[str]:
    """Every selection in the order of its first release; none at all comes last."""
    found = dict.fromkeys(
        name for r in releases for target in TARGETS for name in sorted(r.selected[target])
    )
    return sorted(found, key=lambda name: (name in LABELS.values(), name == NOT_KNOWN))


def _fill(name: str, names: list[str]) -> str:
    if name == NOT_KNOWN:
        return NOT_KNOWN_FILL
    return NO_BACKEND_FILL if name in LABELS.values() else COLOURS[names.index(name) % len(COLOURS)]
