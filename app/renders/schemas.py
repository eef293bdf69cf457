"""Renders, and the events of a render."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from app.files.accept_video import FILE_URL_FIELD, source_faults
from app.files.schemas import NewVideo
from app.http.body import Body, Number, Timestamp, Url, with_example
from app.http.forms import exactly_one_of, form_description, parse_form
from app.http.multipart import FILE_FIELD, ReceivedForm
from app.http.resources import Resources
from app.platform.playlist_links import signed_query
from app.platform.settings import Settings
from app.renders.options import ENGINES_CONTEXT, EXACT_RATE, RATE_PATTERN, RenderOptions
from app.renders.progress import RenderView
from app.renders.representation import has_playlist, links, shown_fields
from app.renders.statuses import DestinationStatus, RenderStatus
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine

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
    "fileName": "clip.mp4",
    "cost": 0.026112,
    "progress": 1,
    "input": {"width": 240, "height": 136, "frameRate": 25, "durationSeconds": 2, "frames": 50},
    "output": {"width": 960, "height": 544, "frameRate": 25, "durationSeconds": 2, "frames": 50},
    "outputSizeBytes": 1022330,
}


class VideoSource(NewVideo):
    """The video of a request: exactly one of these."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of(FILE_FIELD, "file_id", FILE_URL_FIELD))

    file_id: str | SkipJsonSchema[None] = Field(
        None, description="The id of a file that was uploaded before."
    )


class UpscaleForm(RenderOptions, VideoSource):
    """The fields of a request for a render, or for an estimate of one."""

    @classmethod
    def read(cls, form: ReceivedForm, settings: Settings, engines: Mapping[str, Engine] = ENGINES) -> Self:
        """Check every field, cheaply, `engine` by `engines`. Raises InvalidRequest with one message per fault."""
        faults = source_faults(form, (FILE_FIELD, "file_id", FILE_URL_FIELD), settings)
        return parse_form(cls, form, faults=faults, context={ENGINES_CONTEXT: engines})


UPSCALE_REQUEST: dict[str, Any] = form_description(
    UpscaleForm,
    example={FILE_FIELD: "the bytes of clip.mp4", "engine": DEFAULT_ENGINE, "target_fps": 59.94},
    example_without_file={"file_id": "QkjXasuzs2TKugHH", "engine": DEFAULT_ENGINE, "target_fps": 59.94},
)


StatusQuery = Annotated[RenderStatus | None, Query(description="Only renders with this status.")]
EngineQuery = Annotated[
    str | None,
    Query(description="Only renders with this engine.", json_schema_extra={"examples": list(ENGINES)}),
]


class VideoFactsBody(Body):
    """A video's size in pixels as displayed, its frames per second, and its duration."""

    width: int
    height: int
    frame_rate: Number
    duration_seconds: Number
    frames: int


class FilterEffectBody(Body):
    """What `stabilise` did to the network's pictures, in luma, on a sample of pairs of frames."""

    warping_error_before: Number | None = Field(
        None, description="Flicker before it, as `warpingError`. Left out where no motion is known."
    )
    warping_error_after: Number | None = Field(None, description="Flicker after it.")
    sharpness_lost: Number | None = Field(
        None,
        description="The share of sharpness (the mean absolute Laplacian) that it took away, flicker's part included; "
        "below 0 if it added some.",
    )
    psnr_to_unfiltered: Number = Field(
        description="In dB, between the pictures before it and after it; 100 at most, which means equal."
    )
    pairs: int = Field(description="Number of pairs of consecutive frames.")


class QualityBody(Body):
    """How close the output, reduced to the input's size, is to the input: in luma, on a sample of frames."""

    psnr: Number = Field(description="Peak signal-to-noise ratio in dB; 100 at most, which means equal.")
    ssim: Number = Field(description="Structural similarity, up to 1.")
    vmaf: Number | None = Field(None, description="0 to 100; if the server's ffmpeg can measure it.")
    temporal_stability: Number | None = Field(
        None,
        description="How little the output changes between frames other than by motion, where motion explains the "
        "input, in dB; 100 at most. Left out for a single frame, and where it does so nowhere.",
    )
    warping_error: Number | None = Field(
        None,
        description="Flicker: the mean squared difference of a frame and the one before, moved along the input's "
        "motion, in luma, where white squared is 1. Left out where no motion is known.",
    )
    warping_error_input: Number | None = Field(None, description="The same of the input.")
    frames: int = Field(description="Number of compared frames.")
    stabilise_effect: FilterEffectBody | None = Field(
        None,
        description="Of a render with `stabilise`, unless the video is shorter than an eighth of a second.",
    )


class VmafRange(Body):
    """0 to 100."""

    min: Number = Field(description="Of the segment that has the least.")
    mean: Number = Field(description="Of all segments, by their frames.")


class CrfRange(Body):
    """On the scale of the output's encoder; higher is smaller and worse."""

    min: Number
    max: Number


class EncodedQualityBody(Body):
    """What the encoder was set to so that the output has the VMAF that `output_quality` asked for."""

    target: Number = Field(description="Of `output_quality`.")
    vmaf: VmafRange = Field(
        description="Mean VMAF of a sample of frames of each segment, encoded so, compared with the same frames before."
    )
    crf: CrfRange = Field(description="The quality that was found for each segment.")
    model: str = Field(description="Of libvmaf: `vmaf_v0.6.1`, or `vmaf_4k_v0.6.1` beyond 2560x1440.")


class OptionFacts(Body):
    """The options of a render or an estimate that are not as by default."""

    engine: str
    target_fps: Number | None = Field(None, description="As sent, if it was.")
    target_fps_exact: str | None = Field(None, description=EXACT_RATE, pattern=RATE_PATTERN)
    start: Number | None = Field(None, description="In seconds, if only a part is rendered.")
    end: Number | None = Field(None, description="In seconds, if it was given.")
    scale: int | None = Field(None, description="If it was given.")
    max_width: int | None = Field(None, description="If it was given.")
    max_height: int | None = Field(None, description="If it was given.")
    strength: Number | None = Field(None, description="If it is not 1.")
    grain: Number | None = Field(None, description="If it is not 0.")
    stabilise: int | None = Field(None, description="If it is not 0.")
    deinterlace: str | None = Field(None, description="If it is not `auto`.")
    codec: str | None = Field(None, description="If it was given, or follows from `container`.")
    container: str | None = Field(None, description="If it was given.")
    output_quality: str | None = Field(None, description="If it was given.")


class RenderState(Body):
    """What has become of a render, and where its files are."""

    id: str
    user_id: str
    status: RenderStatus = Field(description="It only moves forward, and ends as `completed` or `failed`.")
    created_at: Timestamp = Field(description="ISO 8601, UTC, milliseconds.")
    queue_position: int | None = Field(None, description="While queued; 1 is next.")
    input_file_url: Url | None = Field(None, alias="inputFileURL", description="While the file is kept.")
    output_file_url: Url | None = Field(None, alias="outputFileURL", description="When completed.")
    thumbnail_url: Url | None = Field(None, alias="thumbnailURL", description="When completed.")
    stream_url: Url | None = Field(
        None,
        alias="streamURL",
        description="A playlist (HLS) of the segments that are finished, for players, as soon as the first one is; "
        "once completed, of the result. Left out where there is nothing to watch before the end.",
    )
    completed_at: Timestamp | None = Field(None, description="When completed.")


class DestinationBody(Body):
    """The way of the output to the `destination` of the request."""

    url: str = Field(description="Without its query.")
    status: DestinationStatus = Field(
        description="`pending` waits for the render or the next attempt; `failed` was given up."
    )
    attempts: int
    message: str | None = Field(None, description="Why the last attempt failed.")
    delivered_at: Timestamp | None = Field(None, description="When delivered.")


class Render(OptionFacts, RenderState):
    retime: str | None = Field(None, description="If it is not `nearest`.")
    metadata: dict[str, str] | None = Field(None, description="As sent, if it was.")
    cancel_after: int | None = Field(None, description="In seconds after `createdAt`, if it was given.")
    file_id: str
    file_name: str | None = Field(None, description="What the file was called when it was sent.")
    cost: Number = Field(description="Gigapixels of the output times the engine's multiplier.")
    progress: Number = Field(description="From 0 to 1.")
    eta_seconds: Number | None = Field(
        None,
        description="Until it is done, at the measured speed of the workers, if known.",
    )
    error: str | None = Field(None, description="A sentence; when failed.")
    request_id: str | None = Field(
        None,
        description="When failed: the `X-Request-ID` of the request for it, by which the server's operator finds the "
        "render's lines in all logs.",
    )
    warnings: list[str] | None = Field(None, description="When there are any.")
    priority: int | None = Field(None, description="If it is not 0.")
    webhook_url: Url | None = Field(None, description="Receives the events of this render, if it was given.")
    destination: DestinationBody | None = Field(None, description="If one was given.")
    retry_of: str | None = Field(None, description="The failed render that this one retries.")
    quality: QualityBody | None = Field(None, description="When it was measured.")
    encoded_quality: EncodedQualityBody | None = Field(
        None, description="When completed, if `output_quality` was a target."
    )
    files_removed_at: Timestamp | None = Field(
        None, description="When files were removed because of their age: those whose URL is left out."
    )
    input: VideoFactsBody = Field(
        description="What is rendered: the file, or its part from `start` to `end`."
    )
    output: VideoFactsBody
    output_size_bytes: int | None = Field(None, description="Of the output file; when completed.")

    @classmethod
    def of(cls, view: RenderView, *, resources: Resources, base_url: str) -> Self:
        """The render with URLs signed now."""
        render = view.render
        removed_at = [moment for moment in (render.files_removed_at, render.file.removed_at) if moment]
        urls = {
            name: resources.signed_url(link.storage_key, base_url=base_url, file_name=link.file_name)
            for name, link in links(render).items()
        }
        if has_playlist(render, has_start=view.frames is not None and view.frames.has_start):
            query = signed_query(
                render.id,
                key=resources.secrets.playlist_key,
                lifetime_seconds=resources.settings.url_lifetime_seconds,
            )
            urls["streamURL"] = f"{base_url}/v1/renders/{render.id}/stream.m3u8?{query}"
        shown = shown_fields(render, progress=view.progress, queue_position=view.queue_position)
        if (warning := resources.forecast.warning(view)) is not None:
            shown["warnings"] = [*(shown["warnings"] or ()), warning]
        return cls(
            **shown,
            **urls,
            eta_seconds=resources.forecast.eta_seconds(view),
            files_removed_at=min(removed_at, default=None),
        )


class RenderBody(Body):
    model_config = with_example({"render": RENDER_EXAMPLE})

    render: Render

    @classmethod
    def of(cls, view: RenderView, *, resources: Resources, base_url: str) -> Self:
        return cls(render=Render.of(view, resources=resources, base_url=base_url))


class RendersBody(Body):
    """A page, the newest first."""

    model_config = with_example({"renders": [RENDER_EXAMPLE], "nextCursor": "VxIlYTomwGfEp0D3"})

    renders: list[Render]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")

    @classmethod
    def of(
        cls, views: Sequence[RenderView], next_cursor: str | None, *, resources: Resources, base_url: str
    ) -> Self:
        renders = [Render.of(view, resources=resources, base_url=base_url) for view in views]
        return cls(renders=renders, next_cursor=next_cursor)


class RenderProgress(Body):
    """A render's progress: the data of the events `status` and `progress`."""

    id: str
    status: RenderStatus
    progress: Number = Field(description="From 0 to 1; within a stream it never goes back.")
    frames_done: int | None = Field(
        None, description="Upscaled frames of the input, once the render is prepared."
    )
    frames: int | None = Field(None, description="Of how many.")
    eta_seconds: Number | None = Field(None, description="Until it is done, if known.")
    queue_position: int | None = Field(None, description="While queued; 1 is next.")

    @classmethod
    def of(cls, view: RenderView, *, eta_seconds: float | None) -> Self:
        return cls(
            id=view.render.id,
            status=view.render.status,
            progress=view.progress,
            frames_done=view.frames.done if view.frames else None,
            frames=view.frames.total if view.frames else None,
            eta_seconds=eta_seconds,
            queue_position=view.queue_position,
        )


class RenderEnd(Body):
    """The data of the event `end`: the render as `GET` answers it, or that it was deleted."""

    render: Render | None = None
    deleted: bool | None = Field(None, description="True when the render was deleted while it was watched.")
