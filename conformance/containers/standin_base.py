"""A stand-in base image: this machine's Python with its libraries, and a shell.

    python -m conformance.containers.standin_base TAG

Lets the real Dockerfile be tried where no image registry can be reached. It is made in seconds and
has no package manager, no compiler and no ROCm.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from conformance.containers.engine import connect, in_words

TOOLS = (
    *("sh", "cat", "chmod", "cp", "dirname", "env", "false", "find", "grep", "id", "ln", "ls"),
    *("mkdir", "mv", "rm", "sed", "sleep", "touch", "true", "uname", "ldconfig"),
)
SKIPPED = {"__pycache__", "site-packages", "test", "idlelib", "tkinter", "turtledemo"}
# Python does not link these; packages that pip installs later load them by name.
ALSO_LOADED = (
    *("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1", "libgomp.so.1", "libm.so.6"),
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
)
PASSWD = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def standin(stream: io.BufferedIOBase) -> None:
    """Writes the root file system as a tar archive."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_path("stdlib"))
    python = Path(sys.executable).resolve()
    tools = [Path(found).resolve() for tool in TOOLS if (found := shutil.which(tool))]
    extensions = list((standard / "lib-dynload").glob("*.so"))
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as tar:
        tar.add(standard, f"usr/local/lib/python{version}", filter=_wanted)
        tar.add(python, f"usr/local/bin/python{version}")
        _link(tar, "usr/local/bin/python3", f"python{version}")
        for tool in TOOLS:
            if found := shutil.which(tool):
                tar.add(Path(found).resolve(), f"bin/{tool}")
        for library in sorted(set(_libraries([python, *tools, *extensions]))):
            tar.add(library.resolve(), str(library).lstrip("/"))
        _text(tar, "etc/passwd", PASSWD)
        for folder, mode in (("tmp", 0o1777), ("proc", 0o755), ("dev", 0o755), ("sys", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _link(tar, "usr/bin/env", "../../bin/env")


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts[4:]
    return None if any(part in SKIPPED for part in parts) else entry


def _libraries(files: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that programs and extensions need, and the loader."""
    for file in files:
        done = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        yield from (Path(found) for found in re.findall(r"(/\S+) \(0x", done.stdout))
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in ALSO_LOADED:
        if found := re.search(rf"^\s*{re.escape(name)} \(.*x86-64.*=> (\S+)", known, re.MULTILINE):
            yield Path(found[1])


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    tar.addfile(entry, io.BytesIO(text.encode()))


def main(tag: str) -> None:
    """Makes the image and imports it into the engine as ``tag``."""
    engine = connect()
    archive = io.BytesIO()
    standin(archive)
    repository, _, version = tag.partition(":")
    with in_words(f"import the stand-in base {tag}"):
        engine.client.api.import_image_from_data(
            archive.getvalue(),
            repository=repository,
            tag=version or "latest",
            changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin:/sbin"],
        )


if __name__ == "__main__":
    main(sys.argv[1])
