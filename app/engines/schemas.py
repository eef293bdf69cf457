"""Engines."""

from pydantic import Field

from app.http.body import Body, Number, with_example


class Engine(Body):
    id: str = Field(description="What `engine` of a request names.")
    scale: int = Field(description="What width and height are multiplied by.")
    cost_multiplier: Number = Field(description="What a gigapixel of the output costs.")
    description: str
    default: bool = Field(description="Whether it is the one that is taken when none is named.")


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
