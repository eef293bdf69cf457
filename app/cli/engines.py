"""`regen engines`."""

from app.cli.reporting import AsJson, DataDirectory, load_settings, print_body, print_rows
from models.added import added_engines
from models.catalog import ENGINES


def engines(as_json: AsJson = False, data_dir: DataDirectory = None) -> None:
    """List the engines for renders: those that are built in, and those that were added on this machine."""
    found = [*ENGINES.values(), *added_engines(load_settings(data_dir).weights_dir).values()]
    if as_json:
        from app.engines.schemas import EnginesBody

        print_body(EnginesBody.model_validate({"engines": found}))
        return
    rows = [
        (
            f"{engine.id} (default)" if engine.default else engine.id,
            engine.name,
            f"{engine.scale}x",
            f"x{engine.cost_multiplier}",
            engine.licence,
            engine.description,
        )
        for engine in found
    ]
    print_rows(("engine", "network", "scale", "cost", "licence", "description"), rows)
