"""The table of the resources that a run's kernels take, and how it differs from the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from conformance.results import CaseResult, codegen_table

SHOWN = 20


def artefacts(cases: Sequence[CaseResult], folder: Path) -> Iterator[str]:
    """Writes ``codegen.json`` and ``codegen.md``; reports the first differences, a line each."""
    table = codegen_table.table_of(cases)
    if not table:
        return
    rows = list(codegen_table.rows_of(table, codegen_table.load_baseline()))
    path = folder / "codegen.json"
    path.write_text(codegen_table.dump(table, version("triton")), encoding="utf-8")
    (folder / "codegen.md").write_text(codegen_table.as_markdown(rows), encoding="utf-8")
    changed = codegen_table.differences(rows)
    for line in changed[:SHOWN]:
        yield f"differs from the baseline: {line}"
    more = f", the first {SHOWN} above" if len(changed) > SHOWN else ""
    yield f"wrote {len(rows)} rows of resources to {path} and .md: {len(changed)} differ{more}"
