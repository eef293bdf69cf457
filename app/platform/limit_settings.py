"""The settings of limits on uploads, programs and users."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from app.platform.byte_sizes import GIB
from app.platform.setting_types import MostInAll, NetworkList, RateLimit


class LimitSettings(BaseSettings):
    """The settings that bound uploads, the programs that examine them, and users."""

    # Above one of these the answer is 413
    max_upload_bytes: int = Field(2 * GIB, gt=0, description="Largest upload.")
    max_input_pixels: int = Field(
        4096 * 2304, gt=0, description="Maximum number of pixels in one input frame."
    )
    max_output_pixels: int = Field(
        8192 * 4320, gt=0, description="Maximum number of pixels in one output frame."
    )
    max_duration_seconds: int = Field(4 * 3600, gt=0, description="Longest input.")
    max_output_frames: int = Field(400_000, gt=0, description="Maximum number of frames in one output.")
    max_streams: int = Field(
        32, gt=0, description="Maximum number of streams (video, sound, subtitles, data) in one file."
    )
    upload_lifetime_seconds: int = Field(
        24 * 3600,
        ge=60,
        le=48 * 3600,
        description="How long an upload in parts stays open and the URLs of its parts stay valid.",
    )
    max_open_uploads: int = Field(
        20,
        ge=1,
        description="Maximum number of uploads in parts that one user may have open; for one more the "
        "answer is 429.",
    )
    allow_file_urls: bool = Field(
        False,
        description="Whether `file_url` of `POST /v1/upscale` and `POST /v1/files` may name a video that this server "
        "fetches.",
    )
    fetch_timeout_seconds: float = Field(
        600.0, gt=0, description="How long fetching a `file_url` may take; after that the answer is 400."
    )
    outbound_allowed_networks: NetworkList = Field(
        (),
        description="Networks, as `10.1.0.0/16,fd00::/8`, to which the URLs of users (`file_url`, webhooks) may lead "
        "although they are not public. Unset: none; the server connects only to public addresses.",
    )
    sandbox: Literal["auto", "required", "off"] = Field(
        "auto",
        description="The kernel's barriers around ffmpeg and ffprobe (Linux: Landlock, seccomp, no new privileges). "
        "auto: those that the kernel has; required: the server does not start without all of them; off: none.",
    )
    probe_timeout_seconds: float = Field(60.0, gt=0, description="How long probing an upload may take.")
    probe_cpu_seconds: int = Field(
        5,
        gt=0,
        description="Processor time that ffprobe may use to open a video and describe its streams.",
    )
    ffmpeg_timeout_seconds: float = Field(
        6 * 3600.0, gt=0, description="How long one run of ffmpeg may take."
    )
    debuggable: bool = Field(
        False,
        description="Whether debuggers and profilers of the same user (gdb, py-spy) may read the memory of server "
        "and workers, and crashes leave core dumps. Off: only those of root may (Linux).",
    )
    probe_memory_bytes: int | None = Field(
        None,
        gt=0,
        description="Address space that ffprobe may use for an upload. Unset: a quarter of the memory of the machine "
        "or container, from 1 to 2 GiB.",
    )
    ffmpeg_memory_bytes: int | None = Field(
        None,
        gt=0,
        description="Address space that one ffmpeg may use while it decodes or encodes. Unset: the memory of the "
        "machine or container, from 4 to 16 GiB. One that reads files has at most 2 GiB, 240 bytes for each pixel of "
        "the largest frame and 24 MiB for each core.",
    )

    # For one user
    rate_limit: RateLimit = Field(
        None,
        description="Requests that a user may make, as `100/minute`; a user may have a separate rule. `unlimited`: "
        "any. Unset: `100/second;1200/minute` once other machines can reach the server, otherwise any.",
    )
    max_queued_renders_per_user: MostInAll = Field(
        None,
        description="Maximum number of queued renders of a user without a separate limit. `unlimited`: any. Unset: "
        "100 once other machines can reach the server, otherwise any.",
    )
    max_storage_bytes_per_user: MostInAll = Field(
        None,
        description="Maximum bytes of uploads and results kept for a user without a separate limit. `unlimited`: "
        "any. Unset: half of the data directory's disk, with S3 1 TiB, once other machines can reach the server, "
        "otherwise any.",
    )
    max_cost_per_month_per_user: float | None = Field(
        None,
        ge=0,
        description="Maximum cost of a user's renders in a month (UTC), for users without a separate limit: "
        "gigapixels times the engine's multiplier. Unset: no limit.",
    )
