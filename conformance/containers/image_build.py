"""Builds images with the docker client, because only BuildKit has secrets and bind mounts.

The docker SDK has the classic builder only. So this looks for a client that has BuildKit: one with
the buildx plugin, or an old one with BuildKit built in.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.containers.build_context import DOCKERFILE, checkout_root, sources_hash
from conformance.containers.engine import Engine
from conformance.containers.image_plan import ImagePlan, pinned_torch, tag_of
from conformance.errors import InfrastructureError, UsageError

Say = Callable[[str], None]
WHEELS_REPOSITORY = "rocm-conformance-wheels"
BUILTIN_BUILDKIT = 23  # from this version on, BuildKit needs the buildx plugin
TAIL_LINES = 40


@dataclass(frozen=True)
class BuildOptions:
    """How images are built.

    ``base`` replaces the base image; ``wheels`` is a folder of wheels that pip prefers; ``ca`` and
    ``pip_conf`` are files passed as build secrets; ``network`` is the build's network mode.
    """

    base: str = ""
    wheels: Path | None = None
    ca: Path | None = None
    pip_conf: Path | None = None
    network: str = "default"
    force: bool = False

    def __post_init__(self) -> None:
        given = {"--wheels": self.wheels, "--ca": self.ca, "--pip-conf": self.pip_conf}
        for option, path in given.items():
            if path is not None and not path.exists():
                raise UsageError(f"{option} {path}: there is no such file or folder")


@dataclass(frozen=True)
class Built:
    """An image that exists now; ``cached`` if it already did."""

    plan: ImagePlan
    tag: str
    digest: str
    cached: bool
    seconds: float


def build(
    plans: Sequence[ImagePlan], options: BuildOptions, engine: Engine, say: Say
) -> Iterator[Built]:
    """Builds the images that do not exist yet, in order, and reports each step's time.

    Raises:
        InfrastructureError: no client can build, or a build failed.
    """
    root = checkout_root()
    sources = sources_hash(root)
    wheels = _wheels_image(options.wheels, engine, say) if options.wheels else ""
    for number, plan in enumerate(plans, 1):
        started = time.monotonic()
        args = plan.build_args(options.base, pinned_torch(root / "constraints/base.txt"))
        base = args["BASE_IMAGE"]
        parts = (engine.image_id(base) or base, engine.image_id(wheels) or wheels)
        tag = tag_of(plan, args, sources, parts)
        here = f"[{number}/{len(plans)}] {plan.name}"
        cached = engine.image_id(tag) is not None and not options.force
        if cached:
            say(f"{here}: {tag} exists already, nothing to build")
        else:
            say(f"{here}: building {tag} from {base}")
            extra = {"SOURCES": sources, **({"WHEELS_IMAGE": wheels} if wheels else {})}
            digest = engine.image_id(base)
            extra |= {"BASE_DIGEST": digest} if digest else {}
            command = [*_builder(), *_flags(root, {**args, **extra}, tag, options)]
            _stream(command, plan.name, engine, say)
        seconds = time.monotonic() - started
        if not cached:
            say(f"{here}: built in {seconds:.0f} s")
        yield Built(plan, tag, engine.image_id(tag) or "", cached, seconds)


def _flags(root: Path, args: Mapping[str, str], tag: str, options: BuildOptions) -> list[str]:
    flags = ["--file", str(root / DOCKERFILE), "--tag", tag, "--target", "final"]
    flags += ["--progress", "plain", "--network", options.network]
    for name, value in args.items():
        flags += ["--build-arg", f"{name}={value}"]
    for name, path in (("ca_bundle", options.ca), ("pip_conf", options.pip_conf)):
        if path is not None:
            flags += ["--secret", f"id={name},src={path.absolute()}"]
    return [*flags, str(root)]


def _stream(command: Sequence[str], name: str, engine: Engine, say: Say) -> None:
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": engine.url}
    tail: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            tail = [*tail, line][-TAIL_LINES:]
            if _is_step(line):
                say(f"{name}: {line.rstrip()}")
    if process.returncode != 0:
        raise InfrastructureError(
            f"the image {name} could not be built (docker ended with {process.returncode}); the "
            "last lines of its log follow. Build again to continue after the last finished step",
            "".join(tail),
        )


def _is_step(line: str) -> bool:
    """Whether a line of BuildKit's plain progress begins or ends a step."""
    return bool(re.match(r"#\d+ (\[|DONE|CACHED|ERROR)", line))


def _builder() -> list[str]:
    """The command of a client with BuildKit: ``docker buildx build --load`` or ``docker build``."""
    found = []
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        client = Path(folder, "docker")
        if not os.access(client, os.X_OK):
            continue
        if _says([str(client), "buildx", "version"]):
            return [str(client), "buildx", "build", "--load"]
        version = _says([str(client), "version", "--format", "{{.Client.Version}}"], any_exit=True)
        major = re.match(r"(\d+)\.", version)
        if major and int(major[1]) < BUILTIN_BUILDKIT:
            return [str(client), "build"]
        found.append(f"{client} {version}")
    what = "; ".join(found) if found else "none on PATH"
    raise InfrastructureError(
        f"no docker client that can build with BuildKit ({what}): install docker's buildx plugin, "
        "or Debian's docker.io"
    )


def _says(command: Sequence[str], *, any_exit: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if any_exit or done.returncode == 0 else ""


def _wheels_image(folder: Path, engine: Engine, say: Say) -> str:
    """An image whose root is ``folder``, named after its contents."""
    files = sorted(file for file in folder.iterdir() if file.suffix == ".whl")
    if not files:
        raise UsageError(f"--wheels {folder}: there are no wheels in it")
    tag = f"{WHEELS_REPOSITORY}:{_names_hash(files)}"
    if engine.image_id(tag) is None:
        say(f"wheels: {len(files)} from {folder}")
        with tempfile.TemporaryDirectory() as scratch:
            dockerfile = Path(scratch, "Dockerfile")
            dockerfile.write_text("FROM scratch\nCOPY *.whl /\n", encoding="utf-8")
            flags = ["--file", str(dockerfile), "--tag", tag, "--progress", "plain", str(folder)]
            _stream([*_builder(), *flags], "wheels", engine, say)
    return tag


def _names_hash(files: Sequence[Path]) -> str:
    listed = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()[:12]
