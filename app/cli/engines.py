"""`regen engines`."""

from app.cli.reporting import DataDirectory, load_settings, print_rows
from models.added import added_engines
from models.catalog import ENGINES


def engines(data_dir: DataDirectory = None) -> None:
    """List the engines for renders: those that are built in, and those that were added on this machine."""
    added = added_engines(load_settings(data_dir).weights_dir)
    rows = [
        (
            f"{engine.id} (default)" if engine.default else engine.id,
            engine.name,
            f"{engine.scale}x",
            f"x{engine.cost_multiplier}",
            engine.licence,
            engine.description,
        )
        for engine in (*ENGINES.values(), *added.values())
    ]
    print_rows(("engine", "network", "scale", "cost", "licence", "description"), rows)
