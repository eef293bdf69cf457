"""`regen engines`."""

from app.cli.reporting import print_rows
from models.catalog import ENGINES


def engines() -> None:
    """List the engines for renders."""
    rows = [
        (
            f"{engine.id} (default)" if engine.default else engine.id,
            engine.name,
            f"{engine.scale}x",
            f"x{engine.cost_multiplier}",
            engine.licence,
            engine.description,
        )
        for engine in ENGINES.values()
    ]
    print_rows(("engine", "network", "scale", "cost", "licence", "description"), rows)
