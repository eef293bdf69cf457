"""Engines."""

from pydantic import Field

from app.http.body import Body, Number, with_example


class Engine(Body):
    id: str = Field(description="The value for `engine` in a request.")
    scale: int = Field(description="The factor for width and height.")
    cost_multiplier: Number = Field(description="The cost of a gigapixel of the output.")
    description: str
    default: bool = Field(description="Whether this engine is used when a request names none.")


class EnginesBody(Body):
    model_config = with_example(
        {
            "engines": [
                {
                    "id": "regen-4x-lite",
                    "scale": 4,
                    "costMultiplier": 1,
                    "description": "Fast; animation above all.",
                    "default": True,
                }
            ]
        }
    )

    engines: list[Engine]
