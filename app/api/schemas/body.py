"""What all bodies have in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

# Whole rates go out as 25, others as 29.97002997002997.
Number = int | float


class Body(BaseModel):
    """Properties are camelCase on the wire; those that are None are left out by the routes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)
