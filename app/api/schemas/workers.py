"""Workers."""

from pydantic import Field

from app.api.schemas.body import Body


class WorkInHand(Body):
    kind: str = Field(description="`prepare`, `upscale` or `finish`.")
    render_id: str | None = None
    segment_id: str | None = None


class Worker(Body):
    name: str
    host: str
    pid: int
    device: str
    queues: list[str]
    engines: list[str]
    version: str
    started_at: str
    heartbeat_at: str = Field(description="When it was last heard of.")
    alive: bool = Field(description="Whether it was heard of within three leases.")
    work: WorkInHand | None = Field(None, description="While it has a unit of work in hand.")
    units_done: int


class WorkersBody(Body):
    workers: list[Worker]
