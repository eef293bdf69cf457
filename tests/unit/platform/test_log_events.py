"""Events have constant names, so that a log can be searched for them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


def logged() -> Iterator[tuple[str, ast.expr | None]]:
    """Where something is logged, and what names the event."""
    for folder in ("app", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)) if (
                        level in LEVELS
                    ):
                        place = f"{path.relative_to(ROOT)}:{node.lineno}"
                        yield place, node.args[0] if len(node.args) == 1 else None


def test_every_event_is_a_constant_in_snake_case():
    places = list(logged())
    others = [
        place
        for place, event in places
        if not (isinstance(event, ast.Constant) and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(event.value)))
    ]

    assert len(places) > 50
    assert others == []
