"""Workers."""

from typing import Self

from pydantic import Field

from app.http.body import Body, Number, Timestamp, with_example
from app.work.workers import WorkerStatus, WorkerView


class WorkInHand(Body):
    kind: str = Field(description="`prepare`, `upscale` or `finish`.")
    render_id: str | None = None
    segment_id: str | None = None
    progress_at: Timestamp | None = Field(
        None, description="When it last made progress, as far as its worker reports."
    )
    frames_per_second: Number | None = Field(
        None, description="While it upscales: at the measured speed of such devices, if known."
    )
    precision: str | None = Field(
        None,
        description="While it upscales: the number format in which the render was begun, such as `fp16`.",
    )
    stalled: bool = Field(
        False, description="Whether it has made no progress for three leases although its worker is alive."
    )


class Worker(Body):
    name: str
    host: str
    pid: int
    device: str
    queues: list[str]
    engines: list[str]
    version: str
    started_at: Timestamp
    heartbeat_at: Timestamp = Field(description="When it last reported.")
    alive: bool = Field(description="Whether it reported within three leases.")
    work: WorkInHand | None = Field(None, description="While it has a unit of work in hand.")
    units_done: int = Field(description="Since it was started.")
    machine: str = Field(description="Shared by workers that fail together.")
    status: WorkerStatus = Field(
        description="`active`; `draining` and `drained`: an operator stopped it from claiming; `quarantined`: its "
        "units failed while others' were done, and it claims nothing until it has tested itself."
    )
    status_since: Timestamp
    software: dict[str, str] = Field(description="Versions of `ffmpeg`, `torch` and the GPU's `driver`.")
    precisions: list[str] = Field(
        description="The number formats in which it upscales; the segments of a render are computed in one."
    )
    measures_vmaf: bool = Field(
        description="Whether its ffmpeg has libvmaf, so that it upscales renders whose `output_quality` is a target."
    )
    labels: list[str] = Field(description="An operator's labels for it, from `REGEN_LABELS`.")
    status_reason: str | None = Field(None, description="The last failure before a quarantine.")

    @classmethod
    def of(cls, view: WorkerView, *, lease_seconds: float) -> Self:
        return cls(
            name=view.name,
            host=view.host,
            pid=view.pid,
            device=view.device,
            queues=list(view.queues),
            engines=list(view.engines),
            version=view.version,
            started_at=view.started_at,
            heartbeat_at=view.heartbeat_at,
            alive=view.is_alive(lease_seconds=lease_seconds),
            work=None
            if view.kind is None
            else WorkInHand(
                kind=view.kind.value,
                render_id=view.render_id,
                segment_id=view.segment_id,
                progress_at=view.progress_at,
                frames_per_second=view.frames_per_second,
                precision=view.precision,
                stalled=view.is_stalled(lease_seconds=lease_seconds),
            ),
            units_done=view.units_done,
            machine=view.machine,
            status=view.status,
            status_since=view.status_since,
            software=dict(view.software),
            precisions=list(view.precisions),
            measures_vmaf=view.measures_vmaf,
            labels=list(view.labels),
            status_reason=view.quarantine_reason,
        )


EXAMPLE = {
    "name": "gpu-1.example.com-4711-cuda:0",
    "host": "gpu-1.example.com",
    "pid": 4711,
    "device": "cuda:0",
    "queues": ["gpu"],
    "engines": ["regen-4x", "regen-4x-lite"],
    "version": "0.1.0",
    "startedAt": "2026-11-22T07:00:00.000Z",
    "heartbeatAt": "2026-11-22T07:33:40.000Z",
    "alive": True,
    "work": {
        "kind": "upscale",
        "renderId": "VxIlYTomwGfEp0D3",
        "segmentId": "Yb1n4CmVq0sJ7dKe",
        "progressAt": "2026-11-22T07:33:39.000Z",
        "framesPerSecond": 171.5,
        "precision": "fp16",
        "stalled": False,
    },
    "unitsDone": 41,
    "machine": "gpu-1.example.com",
    "status": "active",
    "statusSince": "2026-11-22T07:00:00.000Z",
    "precisions": ["fp32", "fp16", "bf16", "mixed"],
    "measuresVmaf": True,
    "labels": ["pool=a"],
    "software": {"ffmpeg": "7.1.1", "torch": "2.9.1", "driver": "570.86.15"},
}


class WorkerBody(Body):
    model_config = with_example({"worker": EXAMPLE})

    worker: Worker


class WorkersBody(Body):
    model_config = with_example({"workers": [EXAMPLE]})

    workers: list[Worker]
