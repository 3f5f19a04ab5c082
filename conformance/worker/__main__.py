"""Loads this folder as the package ``conformance_worker``; serves a subject on stdin and stdout."""

import importlib.util
import sys
from pathlib import Path

NAME = "conformance_worker"
FOLDER = Path(__file__).resolve().parent


def load() -> None:
    """Imports this folder as the package."""
    spec = importlib.util.spec_from_file_location(
        NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{FOLDER} is not a package: is the suite's installation complete?")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


def main() -> int:
    # Python put this folder first on sys.path, where its modules would hide the subject's.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != FOLDER]
    load()
    wire = importlib.import_module(f"{NAME}.wire")
    # vllm, reference or aiter: each is a folder here.
    kind = sys.argv[1] if len(sys.argv) > 1 else "vllm"
    subject = importlib.import_module(f"{NAME}.{kind}.subject")
    return int(wire.serve(subject.open_session, getattr(subject, "modules_needed", None)))


if __name__ == "__main__":
    raise SystemExit(main())
