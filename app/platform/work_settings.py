"""The settings of workers: segments, leases, devices, previews, and the clean-up."""

from fractions import Fraction
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from app.platform.byte_sizes import GIB
from app.platform.setting_types import NameList, PositiveFraction, QueueList
from app.platform.work_kinds import WorkQueue


class WorkSettings(BaseSettings):
    """The settings of workers, which the API also reads for what it says about work."""

    segment_seconds: PositiveFraction = Field(
        Fraction(4),
        description="Length of a segment in seconds of video; fractions such as 0.5 or 1/3 are allowed. Unless this "
        "setting or the next is set, segments are longer if the workers are known to be fast (docs/cluster.md).",
    )
    segment_max_output_pixels: int = Field(
        500_000_000,
        gt=0,
        description="Maximum output pixels in one segment (at least one frame): keeps segments of large videos short.",
    )
    lease_seconds: float = Field(
        30.0, ge=2, description="How long a worker without a heartbeat keeps its work."
    )
    stall_seconds: float = Field(
        300.0,
        gt=0,
        description="How long a worker waits for the next frame before it gives the work back, in addition to the "
        "network's time for it on a slow device.",
    )
    max_attempts: int = Field(
        3, ge=1, description="How often a unit of work may fail before its render fails."
    )
    outage_patience_seconds: float = Field(
        120.0,
        ge=0,
        description="How long a worker keeps a result while storage or database are unavailable, before it gives the "
        "work back.",
    )
    drain_seconds: float = Field(
        25.0,
        ge=0,
        description="How long a worker that is asked to stop may continue the work in hand before it gives it back. "
        "The worker of `regen serve` gives it back at once.",
    )
    max_running_segments_per_user: int | None = Field(
        None,
        ge=1,
        description="Maximum number of one user's segments that run at the same time; a user may have a separate "
        "cap. Unset: no cap.",
    )
    max_running_renders_per_user: int | None = Field(
        None,
        ge=1,
        description="Maximum number of one user's renders that run at the same time; a user may have a separate cap. "
        "Unset: no cap.",
    )
    device: str = Field(
        "auto",
        description="`auto` (CUDA, else MPS, else CPU), `cpu`, `mps`, `cuda`, `cuda:1`, ..., or the UUID of a GPU or "
        "a MIG instance as in `nvidia-smi -L`: `GPU-...`, `MIG-...`.",
    )
    machine: str | None = Field(
        None,
        max_length=255,
        description="Name of the machine, whose workers may fail together: a failure on one machine is final only "
        "after a try on another. Unset: the host's name. In Kubernetes, set the node's name.",
    )
    queues: QueueList = Field(
        (WorkQueue.CPU, WorkQueue.GPU),
        description="What a worker does: `gpu` upscales segments, `cpu` reads videos and joins results; `cpu,gpu` "
        "both.",
    )
    engines: NameList = Field(
        (),
        description="The engines with which a worker upscales, such as `regen-4x`, for pools that serve a single "
        "engine. Unset: all.",
    )
    labels: NameList = Field(
        (),
        description="An operator's labels for a worker, such as `pool=a,rack=7`, which `regen workers` shows.",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16", "mixed", "bf16-direct"] = Field(
        "auto",
        description="Arithmetic of the networks. `auto`: the fastest that agrees with fp32 to 50 dB or better; where "
        "several may be the fastest (on a CPU with bfloat16), a worker's first use of an engine measures them. Renders "
        "that others began it computes in theirs, if that is fp32, the named one, or with `auto` one of its hardware.",
    )
    fused_kernels: Literal["off", "winograd"] = Field(
        "off",
        description="Experimental. On CUDA devices in fp16: networks run in a Triton kernel of our own, by Winograd's "
        "F(4x4, 3x3), if it agrees with torch's on a first picture. Not measured on a GPU yet.",
    )
    quality: Literal["lossless", "high", "medium", "small"] | None = Field(
        None, description="The former name of `REGEN_OUTPUT_QUALITY`."
    )
    output_quality: Literal["lossless", "high", "medium", "small"] = Field(
        default_factory=lambda data: data.get("quality") or "high",
        description="Encoder quality of outputs; `high`, the default, is visually lossless.",
    )
    stand_in_network: bool = Field(
        False,
        description="Enlarge by nearest neighbour instead of a network: for tests and load measurements.",
    )
    stand_in_seconds_per_frame: float = Field(
        0.0, ge=0, description="How long the stand-in sleeps for each frame."
    )
    input_cache_bytes: int = Field(
        20 * GIB,
        ge=0,
        description="Total bytes of fetched inputs that the workers of one machine keep for further segments.",
    )
    max_open_previews_per_user: int = Field(
        4,
        ge=1,
        description="Maximum number of one user's previews that have not ended; for one more the answer is 429.",
    )
    preview_interval_seconds: float = Field(
        1.0,
        gt=0,
        description="How often a worker that upscales looks for previews, even while it has work in hand.",
    )
    preview_cpu_pixels: int = Field(
        57_600,
        ge=256,
        description="Pixels of the default crop of a preview on a CPU; a quarter of them "
        "with any engine but the default. A "
        "requested crop may have four times as many.",
    )

    # Clean-up
    keep_files_days: float | None = Field(
        None,
        gt=0,
        description="Days after which an upload is removed, counted from its last use. Unset: never.",
    )
    keep_outputs_days: float | None = Field(
        None, gt=0, description="Days after which a render's results are removed. Unset: never."
    )
    cleanup_interval_seconds: float = Field(
        600.0, gt=0, description="How often one of the workers removes files that are no longer needed."
    )
