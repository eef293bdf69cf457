"""Engines."""

from app.api.schemas.body import Body, Number


class Engine(Body):
    id: str
    scale: int
    cost_multiplier: Number
    description: str
    default: bool


class EnginesBody(Body):
    engines: list[Engine]
