"""What the events of a render carry."""

from pydantic import Field

from app.http.body import Body, Number
from app.renders.schemas import Render
from app.renders.statuses import RenderStatus


class RenderProgress(Body):
    """How far a render is: the data of the events `status` and `progress`."""

    id: str
    status: RenderStatus
    progress: Number = Field(description="From 0 to 1; within a stream it never goes back.")
    frames_done: int | None = Field(
        None, description="Frames of the input that are upscaled, once it is prepared."
    )
    frames: int | None = Field(None, description="Of how many.")
    eta_seconds: Number | None = Field(None, description="Until it is done, when that is known.")
    queue_position: int | None = Field(None, description="While queued; 1 is next.")


class RenderEnd(Body):
    """The data of the event `end`: the render as `GET` answers it, or that it was deleted."""

    render: Render | None = None
    deleted: bool | None = Field(None, description="True when the render was deleted while it was watched.")
