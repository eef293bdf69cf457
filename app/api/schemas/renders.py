"""Renders."""

from pydantic import Field

from app.api.schemas.body import Body, Number


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
    status: str = Field(description="`queued`, `pending`, `processing`, `completed` or `failed`.")
    created_at: str = Field(description="ISO 8601, UTC, milliseconds.")
    queue_position: int | None = Field(None, description="While queued; 1 is next.")
    input_file_url: str | None = Field(None, alias="inputFileURL")
    output_file_url: str | None = Field(None, alias="outputFileURL", description="When completed.")
    thumbnail_url: str | None = Field(None, alias="thumbnailURL", description="When completed.")
    completed_at: str | None = Field(None, description="When completed.")
    engine: str
    target_fps: Number | None = Field(None, description="When it was given.")
    retime: str | None = Field(None, description="When it is not `nearest`.")
    file_id: str
    cost: Number = Field(description="Gigapixels of the output times the engine's multiplier.")
    progress: Number = Field(description="From 0 to 1.")
    error: str | None = Field(None, description="A sentence; when failed.")
    warnings: list[str] | None = Field(None, description="When there are any.")
    priority: int | None = Field(None, description="When it is not 0.")
    retry_of: str | None = Field(None, description="The failed render that it was made to stand in for.")
    quality: QualityBody | None = Field(None, description="When it was measured.")
    files_removed_at: str | None = Field(
        None, description="Since when files are gone by age: those whose URL is left out."
    )
    input: VideoFactsBody
    output: VideoFactsBody


class RenderBody(Body):
    render: Render


class RendersBody(Body):
    """A page, the newest first."""

    renders: list[Render]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
