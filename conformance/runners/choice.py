"""Which runner runs a cell, in which image, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.containers.build_context import checkout_root, sources_hash
from conformance.containers.container_options import HostDevices, host_devices
from conformance.containers.engine import Engine, connect
from conformance.containers.image_plan import IMAGE_LABEL, SOURCES_LABEL, names_for
from conformance.errors import InfrastructureError, SuiteError
from conformance.matrix.stacks import Cell

RUNNERS = ("local", "docker", "auto")


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how cells run; everything but ``runner`` is for containers only.

    ``image`` is a tag or digest to use instead of the stack's own image. ``memory`` is a size as
    docker spells it. ``cell_timeout`` is in seconds per cell. ``devices`` are the GPUs that a
    container gets; if empty, all of the host's.
    """

    runner: str = "local"
    image: str = ""
    memory: str = ""
    cell_timeout: float = 3600.0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageChoice:
    """A cell and the image that runs it; ``tag`` is for users, ``image_id`` for the engine."""

    cell: Cell
    image_id: str
    tag: str
    devices: HostDevices
    reason: str


@dataclass(frozen=True)
class LocalChoice:
    """Cells run on this machine itself."""

    reason: str


def choose(
    cells: Sequence[Cell], options: RunnerOptions
) -> LocalChoice | tuple[Engine, list[ImageChoice]]:
    """This machine, or an engine and an image for every cell.

    Raises:
        InfrastructureError: with ``--runner docker``, if there is no engine or an image is missing.
    """
    if options.runner == "local":
        return LocalChoice("as asked")
    try:
        engine = connect()
        return engine, [choose_image(cell, options, engine) for cell in cells]
    except SuiteError as error:
        if options.runner == "docker":
            raise
        return LocalChoice(str(error.args[0]))


def choose_image(cell: Cell, options: RunnerOptions, engine: Engine) -> ImageChoice:
    """The image of a cell: the one asked for, or this checkout's newest for its stack.

    Raises:
        InfrastructureError: it is missing; the message has the command that builds it.
    """
    devices = host_devices(cell.stack.container.devices, options.devices)
    how = f"GPU: {', '.join(devices.nodes)}" if devices.nodes else "no GPU, simulated"
    if options.image:
        image = engine.image_id(options.image)
        if image is None:
            raise InfrastructureError(
                f"the image {options.image} is not here: `docker pull {options.image}`, or leave "
                "--image out"
            )
        return ImageChoice(cell, image, options.image, devices, f"as asked; {how}")
    names = names_for(cell, gpu=devices.gpu)
    sources = sources_hash(checkout_root())
    other = ""
    for name in names:
        for image in engine.images(f"{IMAGE_LABEL}={name}"):
            tag = (image.tags or [image.short_id])[0]
            if image.labels.get(SOURCES_LABEL) == sources:
                return ImageChoice(cell, str(image.id), tag, devices, how)
            other = other or tag
    stale = f"; {other} is of other sources" if other else ""
    cpu = "" if devices.gpu else "--cpu "
    raise InfrastructureError(
        f"there is no image of {cell.stack.name} from this checkout{stale}: "
        f"`rocm-conformance images build {cpu}{cell.stack.name}`"
    )
