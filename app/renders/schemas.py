"""Renders."""

from pydantic import Field

from app.http.body import Body, Number, Timestamp, Url, with_example
from app.renders.statuses import RenderStatus

_STORAGE = "https://regen.example.com/storage"
_SIGNED = "expires=1795505662&signature=5f0c"
RENDER_EXAMPLE = {
    "id": "VxIlYTomwGfEp0D3",
    "userId": "KY0U9paFGEwMiSN6",
    "status": "completed",
    "createdAt": "2026-11-22T07:33:38.047Z",
    "inputFileURL": f"{_STORAGE}/files/QkjXasuzs2TKugHH/input?{_SIGNED}",
    "outputFileURL": f"{_STORAGE}/renders/VxIlYTomwGfEp0D3/output-2.mp4?{_SIGNED}",
    "thumbnailURL": f"{_STORAGE}/renders/VxIlYTomwGfEp0D3/thumbnail-2.jpg?{_SIGNED}",
    "completedAt": "2026-11-22T07:34:22.516Z",
    "engine": "regen-4x-lite",
    "fileId": "QkjXasuzs2TKugHH",
    "cost": 0.026112,
    "progress": 1,
    "input": {"width": 240, "height": 136, "frameRate": 25, "durationSeconds": 2, "frames": 50},
    "output": {"width": 960, "height": 544, "frameRate": 25, "durationSeconds": 2, "frames": 50},
}


class VideoFactsBody(Body):
    """A video's size in pixels as displayed, its frames per second, and its length."""

    width: int
    height: int
    frame_rate: Number
    duration_seconds: Number
    frames: int


class QualityBody(Body):
    """How near the output, brought back to the input's size, is to the input: in luma, on a sample of frames."""

    psnr: Number = Field(description="Peak signal to noise ratio in dB; 100 at most, which is equal.")
    ssim: Number = Field(description="Structural similarity, up to 1.")
    vmaf: Number | None = Field(None, description="0 to 100; where the server's ffmpeg can measure it.")
    temporal_stability: Number | None = Field(
        None,
        description="How little the difference from the input changes from frame to frame, in dB; "
        "100 at most. Left out for a single frame.",
    )
    frames: int = Field(description="How many frames were compared.")


class Render(Body):
    id: str
    user_id: str
    status: RenderStatus = Field(description="It only moves on, and ends as `completed` or `failed`.")
    created_at: Timestamp = Field(description="ISO 8601, UTC, milliseconds.")
    queue_position: int | None = Field(None, description="While queued; 1 is next.")
    input_file_url: Url | None = Field(None, alias="inputFileURL", description="While the file is kept.")
    output_file_url: Url | None = Field(None, alias="outputFileURL", description="When completed.")
    thumbnail_url: Url | None = Field(None, alias="thumbnailURL", description="When completed.")
    completed_at: Timestamp | None = Field(None, description="When completed.")
    engine: str
    target_fps: Number | None = Field(None, description="When it was given.")
    retime: str | None = Field(None, description="When it is not `nearest`.")
    file_id: str
    cost: Number = Field(description="Gigapixels of the output times the engine's multiplier.")
    progress: Number = Field(description="From 0 to 1.")
    eta_seconds: Number | None = Field(
        None,
        description="Until it is done, by the speed that workers were found to have; when that is known.",
    )
    error: str | None = Field(None, description="A sentence; when failed.")
    warnings: list[str] | None = Field(None, description="When there are any.")
    priority: int | None = Field(None, description="When it is not 0.")
    webhook_url: Url | None = Field(None, description="What is told of this render, when it was given.")
    retry_of: str | None = Field(None, description="The failed render that it was made to stand in for.")
    quality: QualityBody | None = Field(None, description="When it was measured.")
    files_removed_at: Timestamp | None = Field(
        None, description="Since when files are gone by age: those whose URL is left out."
    )
    input: VideoFactsBody
    output: VideoFactsBody


class RenderBody(Body):
    model_config = with_example({"render": RENDER_EXAMPLE})

    render: Render


class RendersBody(Body):
    """A page, the newest first."""

    model_config = with_example({"renders": [RENDER_EXAMPLE], "nextCursor": "VxIlYTomwGfEp0D3"})

    renders: list[Render]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
