"""The installed `regen` command, under a name that no project has: `app`, `worker` and the like are common ones, and
Python would take those of the current directory or of PYTHONPATH for the server's."""

import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "worker", "models", "migrations")


def main() -> None:
    """Run `regen`; neither it nor its child processes import packages of the same names from elsewhere."""
    find_own_packages()
    from app.cli import main as run

    run()


def find_own_packages() -> None:
    """Drop the folders of PYTHONPATH that hide the server's packages, for this process and its children."""
    given = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    hiding = {folder for folder in given if _hides_packages(folder)}
    os.environ["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in given if folder not in hiding)
    # `python -m` would find them in the current directory.
    os.environ["PYTHONSAFEPATH"] = "1"
    own = [entry for entry in sys.path if entry and Path(entry).resolve() not in hiding]
    sys.path[:] = own if str(HOME) in own else [*own, str(HOME)]


def _hides_packages(folder: Path) -> bool:
    try:
        return folder != HOME and any(
            (folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in PACKAGES
        )
    except OSError:  # nothing is imported from a folder that cannot be read
        return True
