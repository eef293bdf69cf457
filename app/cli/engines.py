"""`regen engines`."""

from rich.table import Table

from app.cli.reporting import stdout
from models.catalog import ENGINES


def engines() -> None:
    """List the engines that a render may ask for."""
    table = Table("engine", "network", "scale", "cost", "licence", "description")
    for engine in ENGINES.values():
        name = f"{engine.id} (default)" if engine.default else engine.id
        table.add_row(
            name,
            engine.name,
            f"{engine.scale}x",
            f"x{engine.cost_multiplier}",
            engine.licence,
            engine.description,
        )
    stdout().print(table)
