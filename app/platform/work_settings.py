"""The settings of workers: segments, leases, devices, previews, and the clean-up."""

from fractions import Fraction
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from app.platform.byte_sizes import GIB
from app.platform.setting_types import NameList, PositiveFraction, QueueList
from app.platform.work_kinds import WorkQueue


class WorkSettings(BaseSettings):
    """The part of the settings that workers follow, and the API where it speaks of work."""

    segment_seconds: PositiveFraction = Field(
        Fraction(4),
        description="Length of a segment in seconds of video; fractions such as 0.5 or 1/3 are allowed. Unless this or "
        "the next is set, segments are longer where the workers are known to be fast (docs/cluster.md).",
    )
    segment_max_output_pixels: int = Field(
        500_000_000,
        gt=0,
        description="Most output pixels in one segment (at least one frame): keeps segments of large videos short.",
    )
    lease_seconds: float = Field(
        30.0, ge=2, description="How long a worker without a heartbeat keeps its work."
    )
    stall_seconds: float = Field(
        300.0,
        gt=0,
        description="How long a worker waits for the next frame before it gives the work back, beyond what the network "
        "may take for it on a slow device.",
    )
    max_attempts: int = Field(
        3, ge=1, description="How often a piece of work may fail before its render fails."
    )
    outage_patience_seconds: float = Field(
        120.0,
        ge=0,
        description="How long a worker keeps what it has made while storage or database are away, before it gives the "
        "work back.",
    )
    drain_seconds: float = Field(
        25.0,
        ge=0,
        description="How long a worker that is asked to stop may go on with the work in hand, before it gives it back. "
        "The worker of `regen serve` gives it back at once.",
    )
    max_running_segments_per_user: int | None = Field(
        None,
        ge=1,
        description="Most segments of one user that run at the same time; a user may have a cap of their own. "
        "Unset: no cap.",
    )
    max_running_renders_per_user: int | None = Field(
        None,
        ge=1,
        description="Most renders of one user that are worked on at the same time; a user may have a cap of their own. "
        "Unset: no cap.",
    )
    device: str = Field(
        "auto",
        description="`auto` (CUDA, else MPS, else CPU), `cpu`, `mps`, `cuda`, `cuda:1`, ..., or what `nvidia-smi -L` "
        "calls a GPU or an instance of MIG: `GPU-...`, `MIG-...`.",
    )
    machine: str | None = Field(
        None,
        max_length=255,
        description="What a worker runs on, as far as things break together: what fails on one machine is tried on "
        "another before it is final. Unset: the host's name. In Kubernetes, the node's name.",
    )
    queues: QueueList = Field(
        (WorkQueue.CPU, WorkQueue.GPU),
        description="What a worker does: `gpu` upscales segments, `cpu` reads videos and puts results together; "
        "`cpu,gpu` both.",
    )
    engines: NameList = Field(
        (),
        description="The engines that a worker upscales with, such as `regen-4x`, so that a pool can be for one alone. "
        "Unset: all.",
    )
    labels: NameList = Field(
        (),
        description="An operator's words for a worker, such as `pool=a,rack=7`, which `regen workers` shows.",
    )
    precision: Literal["auto", "fp32", "fp16", "bf16", "mixed"] = Field(
        "auto",
        description="Arithmetic of the networks. `auto`: the fastest that stays 50 dB or more from fp32.",
    )
    fused_kernels: bool = Field(
        False,
        description="On CUDA devices in fp16: networks run in Triton kernels of our own, if these agree with torch's "
        "on a first picture. Not measured on a GPU yet.",
    )
    quality: Literal["lossless", "high", "medium", "small"] = Field(
        "high", description="Encoder quality of outputs; `high` is visually lossless."
    )
    stand_in_network: bool = Field(
        False,
        description="Enlarge by nearest neighbour instead of a network: for tests and load measurements.",
    )
    stand_in_seconds_per_frame: float = Field(
        0.0, ge=0, description="What a frame costs the stand-in: it sleeps that long."
    )
    input_cache_bytes: int = Field(
        20 * GIB,
        ge=0,
        description="Room for fetched inputs that the workers of one machine keep for further segments, in all.",
    )
    max_open_previews_per_user: int = Field(
        4,
        ge=1,
        description="Most previews of one user that wait or are being made; past it the answer is 429.",
    )
    preview_interval_seconds: float = Field(
        1.0,
        gt=0,
        description="How often a worker that upscales looks for previews, also while it has work in hand.",
    )
    preview_cpu_pixels: int = Field(
        57_600,
        ge=256,
        description="Pixels of the crop that a preview on a CPU shows when none was asked for; "
        "a quarter of it with `regen-4x`. A crop that was asked for may have four times as many.",
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
