"""The first pytest-xdist worker of the container takes memory until the kernel stops it."""

import os
import sys
import threading
import time
from pathlib import Path

MARK = Path("/tmp/eaten")


def _eat() -> None:
    time.sleep(12)
    hoard: list[bytes] = []
    while True:
        hoard.append(os.urandom(1024) * (20 * 1024))


if "exec(eval(sys.stdin.readline()))" in " ".join(sys.orig_argv) and not MARK.exists():
    MARK.touch()
    threading.Thread(target=_eat, daemon=True).start()
