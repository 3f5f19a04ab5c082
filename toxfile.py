"""tox environments of this checkout see the packages of the environment that tox runs in.

torch is the largest of them, and every cell has the same: where tox is that of ``make install``, an
environment installs its stack's Triton and the checkout, and nothing a second time. pip installs
what it does not find there, or finds in a version that the pins exclude; an environment's own
packages come first. A tox from elsewhere has no torch to share, and everything is installed.

How tox finds this file: https://tox.wiki/en/stable/plugins.html
"""

from __future__ import annotations

import sys
import sysconfig
from importlib.util import find_spec

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.python.runner import PythonRun

SHARED = "shared-with-tox.pth"


@impl
def tox_on_install(tox_env: ToxEnv, arguments: object, section: str, of_type: str) -> None:
    """Links the packages before the first installation."""
    del arguments, section, of_type
    if not isinstance(tox_env, PythonRun) or find_spec("torch") is None:
        return
    if tox_env.base_python.version_info[:2] != sys.version_info[:2]:
        return
    link = tox_env.env_site_package_dir() / SHARED
    if not link.exists():
        link.write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
