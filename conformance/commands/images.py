"""``rocm-conformance images``: build, list and bake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from conformance.containers.build_context import checkout_root, sources_hash
from conformance.containers.engine import connect
from conformance.containers.image_bake import BAKE_FILE, bake_text
from conformance.containers.image_build import BuildOptions, build
from conformance.containers.image_plan import IMAGE_LABEL, SOURCES_LABEL, chosen_plans
from conformance.errors import ExitCode

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def images() -> None:
    """Build, list or export (for docker bake) the images of the matrix. Needs a checkout."""


@images.command("build")
@click.argument("stacks", nargs=-1)
@click.option("--cpu", is_flag=True, help="Images without ROCm, for machines without a GPU.")
@click.option("--base", default="", metavar="IMAGE", help="Use this base image instead.")
@click.option(
    "--wheels",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder of wheels for pip to prefer; it does not stay in the image.",
)
@click.option("--ca", type=FILE, help="A CA bundle for pip and git, passed as a build secret.")
@click.option("--pip-conf", type=FILE, help="A pip configuration, passed as a build secret.")
@click.option(
    "--network",
    type=click.Choice(["default", "host", "none"]),
    default="default",
    show_default=True,
    help="The network of the build; use host if the engine has no bridge.",
)
@click.option("--force", is_flag=True, help="Rebuild images that already exist.")
@click.option("--format", "style", type=click.Choice(["pretty", "json"]), default="pretty")
def build_command(
    stacks: Sequence[str],
    cpu: bool,
    base: str,
    wheels: Path | None,
    ca: Path | None,
    pip_conf: Path | None,
    network: str,
    force: bool,
    style: str,
) -> int:
    """Build the images of STACKS, or of every stack.

    A tag is derived from everything the image is built from, so existing images are skipped.

    \b
    rocm-conformance images build rocm72
    rocm-conformance images build --cpu --base python:3.12-slim rocm62 rocm72
    """
    options = BuildOptions(base, wheels, ca, pip_conf, network, force)
    plans = chosen_plans(stacks, cpu=cpu)
    built = list(build(plans, options, connect(), lambda text: click.echo(text, err=True)))
    if style == "json":
        rows = [
            {
                "image": image.plan.name,
                "tag": image.tag,
                "id": image.digest,
                "cached": image.cached,
                "seconds": round(image.seconds, 1),
            }
            for image in built
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        for image in built:
            click.echo(f"{image.tag}  {image.digest}")
    return ExitCode.CONFORMANT


@images.command("list")
@click.option("--format", "style", type=click.Choice(["pretty", "json"]), default="pretty")
def list_command(style: str) -> int:
    """List the suite's images in the engine, and whether they match this checkout."""
    here = sources_hash(checkout_root())
    found = [
        {
            "image": image.labels.get(IMAGE_LABEL, ""),
            "tag": tag,
            "id": image.id,
            "current": image.labels.get(SOURCES_LABEL) == here,
        }
        for image in connect().images(IMAGE_LABEL)
        for tag in image.tags or ["<none>"]
    ]
    if style == "json":
        click.echo(json.dumps(found, indent=2))
        return ExitCode.CONFORMANT
    for row in found:
        state = "of this checkout" if row["current"] else "of other sources"
        click.echo(f"{row['image']:18} {row['tag']}  {state}")
    if not found:
        click.echo("no images yet: rocm-conformance images build")
    return ExitCode.CONFORMANT


@images.command("bake")
@click.option(
    "--check", is_flag=True, help="Only check that the file is current; exit 1 if it is not."
)
def bake_command(check: bool) -> int:
    """Write images/docker-bake.json from the stack table."""
    path = checkout_root() / BAKE_FILE
    text = bake_text()
    if check:
        current = path.is_file() and path.read_text(encoding="utf-8") == text
        state = "is current" if current else "is not: run `rocm-conformance images bake`"
        click.echo(f"{BAKE_FILE} {state}")
        return ExitCode.CONFORMANT if current else ExitCode.NOT_CONFORMANT
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {BAKE_FILE}")
    return ExitCode.CONFORMANT
