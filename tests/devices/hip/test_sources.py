"""Which files of a release's sources an operator is compiled from."""

from __future__ import annotations

from pathlib import Path

from conformance.devices.hip.sources import host_source, unit_of


def test_host_code_in_several_files_is_compiled_together(tmp_path: Path) -> None:
    """From 0.33 on each set of template arguments has a file of its own, called by one more."""
    folder = tmp_path / "csrc" / "rocm"
    folder.mkdir(parents=True)
    for name in ("attention_dispatch", "attention_paged_attn_b", "attention_paged_attn_a", "other"):
        (folder / f"{name}.cu").touch()
    unit = unit_of(tmp_path, "paged_attention")
    included = [
        line.removeprefix('#include "csrc/rocm/').removesuffix('.cu"')
        for line in host_source(unit, ("paged_attention",)).splitlines()
        if "csrc" in line
    ]
    assert included == ["attention_paged_attn_a", "attention_paged_attn_b", "attention_dispatch"]
    (folder / "attention.cu").touch()
    assert unit_of(tmp_path, "paged_attention").file == "csrc/rocm/attention.cu"
    assert "attn_a" not in host_source(unit_of(tmp_path, "paged_attention"), ())
