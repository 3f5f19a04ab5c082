"""Holds ``tox.ini`` and the stack table together.

tox itself says what the file means, so that no second reading of its factor language is needed:
this module runs in a checkout with tox installed, not in a run of the suite.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tox.run
from packaging.requirements import InvalidRequirement, Requirement

from conformance.errors import InfrastructureError
from conformance.matrix.stacks import TABLE, Stack, cells_of

CONSTRAINTS = "-c constraints/base.txt"


@dataclass(frozen=True)
class ToxEnv:
    """What one environment installs and runs."""

    name: str
    deps: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def triton_pins(self) -> tuple[str, ...]:
        return tuple(dep for dep in self.deps if _package(dep) == "triton")


@dataclass(frozen=True)
class ToxFile:
    """A tox file as tox reads it.

    ``envs`` are those of ``env_list`` and their names without the last factor; ``stacks`` are the
    stack factors that the file's text names anywhere.
    """

    env_list: tuple[str, ...]
    envs: tuple[ToxEnv, ...]
    stacks: tuple[str, ...]


def read_tox(path: Path, root: Path) -> ToxFile:
    """Asks tox what ``path`` means for a project at ``root``; half a second."""
    core = _tox_config(path, root, "--core", "-k", "env_list")
    env_list = _lines(core, "tox", "env_list")
    names = tuple(dict.fromkeys(name for full in env_list for name in (full, _short(full))))
    if not names:
        raise InfrastructureError(f"{path} has no env_list: expected the cells of {TABLE}")
    config = _tox_config(path, root, "-e", ",".join(names), "-k", "deps", "commands")
    envs = tuple(
        ToxEnv(
            name,
            _lines(config, f"testenv:{name}", "deps"),
            _lines(config, f"testenv:{name}", "commands"),
        )
        for name in names
    )
    stacks = dict.fromkeys(re.findall(r"\brocm\d+\b", path.read_text(encoding="utf-8")))
    return ToxFile(env_list, envs, tuple(stacks))


def disagreements(tox: ToxFile, stacks: Sequence[Stack]) -> list[str]:
    """What tox.ini and the stacks say differently, a sentence each; empty where they agree."""
    return [
        *_env_list(tox.env_list, [cell.name for cell in cells_of(stacks)]),
        *_unknown_stacks(tox.stacks, stacks),
        *(sentence for env in tox.envs for sentence in _env(env, stacks)),
    ]


def _env_list(found: Sequence[str], expected: Sequence[str]) -> Iterator[str]:
    for name in expected:
        if name not in found:
            yield f"the cell {name} has no environment: add its factors to env_list"
    for name in found:
        if name not in expected:
            yield f"env_list has {name}, which is no cell of {TABLE}"
    if sorted(found) == sorted(expected) and list(found) != list(expected):
        yield f"env_list is not in the order of {TABLE}"


def _unknown_stacks(found: Iterable[str], stacks: Sequence[Stack]) -> Iterator[str]:
    known = {stack.name for stack in stacks}
    for name in found:
        if name not in known:
            yield f"the file names the stack {name}, which {TABLE} does not have"


def _env(env: ToxEnv, stacks: Sequence[Stack]) -> Iterator[str]:
    pins = {stack.name: (f"triton=={stack.triton_pypi}",) for stack in stacks}
    expected = pins.get(env.name.split("-")[0])
    if expected is not None and env.triton_pins != expected:
        found = ", ".join(env.triton_pins) or "no Triton"
        yield f"{env.name} installs {found}: {TABLE} says {expected[0]}"
    if CONSTRAINTS not in env.deps:
        yield f"{env.name} installs without `{CONSTRAINTS}`"
    command = f"rocm-conformance run --runner auto --cell {env.name} --results results/{env.name}"
    if env.commands != (command,):
        yield f"{env.name} runs {' && '.join(env.commands) or 'nothing'}: expected `{command}`"


def _short(name: str) -> str:
    return name.rpartition("-")[0] or name


def _package(dep: str) -> str:
    try:
        return Requirement(dep).name.lower()
    except InvalidRequirement:
        return ""


def _lines(config: RawConfigParser, section: str, key: str) -> tuple[str, ...]:
    value = config.get(section, key, fallback="")
    return tuple(line.strip() for line in value.splitlines() if line.strip())


def _tox_config(path: Path, root: Path, *options: str) -> RawConfigParser:
    said, wrong = io.StringIO(), io.StringIO()
    # In this process: starting tox takes longer than what it is asked.
    with TemporaryDirectory() as workdir, _no_settings_of_tox():
        where = ("-c", str(path), "--root", str(root), "--workdir", workdir)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
            try:
                code = tox.run.main(["config", "-q", *where, *options])
            except (Exception, SystemExit) as error:
                raise InfrastructureError(f"tox could not read {path}: {error}") from error
    if code != 0:
        raise InfrastructureError(
            f"tox could not read {path} (exit {code})", wrong.getvalue() + said.getvalue()
        )
    config = RawConfigParser(delimiters=("=",), comment_prefixes=("#",), strict=False)
    config.read_string(said.getvalue())
    return config


@contextlib.contextmanager
def _no_settings_of_tox() -> Iterator[None]:
    """A developer's own TOX_* settings, such as TOX_SKIP_ENV, would change what the file means."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("TOX")}
    try:
        yield
    finally:
        os.environ.update(kept)
