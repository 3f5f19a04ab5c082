"""What vLLM releases import, and how pip is asked for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from conformance.errors import InfrastructureError
from conformance.subjects.vllm.dependencies import Needs, needs_of, pip_install, table
from conformance.subjects.vllm.package_index import PipSettings, pip_settings, redacted

RELEASES = [Version(f"0.{minor}.0") for minor in range(18, 34)]


def test_other_pins_are_another_folder() -> None:
    row = Needs("a", ">=1", ">=3.10", ("numpy==1.0", "attrs==2.0"))
    assert row.key == Needs("b", ">=2", ">=3.11", ("attrs==2.0", "numpy==1.0")).key
    assert row.key != Needs("a", ">=1", ">=3.10", ("numpy==1.1", "attrs==2.0")).key


def test_redaction_keeps_what_is_no_secret() -> None:
    text = "GET https://me:pa@ss@host/x/y.whl?X-Sig=abc failed (http://u@h:1/p)"
    assert redacted(text) == "GET https://host/x/y.whl?… failed (http://h:1/p)"


def test_pip_configuration_in_pips_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = http://global/simple\ncert = /global.pem\n"
        "[install]\nindex-url = http://install/simple\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert pip_settings() == PipSettings("http://install/simple", "/global.pem")
    monkeypatch.setenv("PIP_INDEX_URL", "http://environment/simple")
    monkeypatch.setenv("PIP_CERT", "/environment.pem")
    assert pip_settings() == PipSettings("http://environment/simple", "/environment.pem")


def test_pips_own_words_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InfrastructureError, match="No matching distribution") as failed:
        pip_install(("no-such-package-here==1.0",), tmp_path / "folder")
    assert "pip could not install" in str(failed.value)


@pytest.mark.parametrize("version", RELEASES, ids=str)
def test_one_row_for_each_covered_release(version: Version) -> None:
    covering = [row for row in table().values() if row.cover(version)]
    assert len(covering) == 1
    assert needs_of(version) == covering[0]


def test_pins_are_exact_and_without_torch() -> None:
    for row in table().values():
        pins = [Requirement(pin) for pin in row.pins]
        assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
        names = {pin.name.lower() for pin in pins}
        assert len(names) == len(pins)
        assert not [name for name in names if name.startswith(("torch", "triton", "nvidia"))]
