"""The facts of AMD targets, from the suite's own table, which is loaded by its place."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .wire import WorkerError

_MODULE = "conformance_targets"


def target_facts(name: str) -> Any:
    """A row of ``devices/targets.py``: the suite need not be installed in the subject's Python.

    Raises:
        WorkerError: the table has no such target; says which facts are missing.
    """
    table = _table()
    try:
        return table.target_facts(name)
    except table.UnknownTargetError as error:
        raise WorkerError(str(error)) from None


def _table() -> Any:
    if _MODULE not in sys.modules:
        path = Path(__file__).resolve().parents[1] / "devices" / "targets.py"
        spec = importlib.util.spec_from_file_location(_MODULE, path)
        if spec is None or spec.loader is None:
            raise WorkerError(f"{path} is missing: is the suite's installation complete?")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module
        spec.loader.exec_module(module)
    return sys.modules[_MODULE]
