"""Metrics that the API and the workers share, in prometheus_client's default registry."""

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Counter, disable_created_metrics

DISTRIBUTION = "regen-server"

# The creation times of counters are of no use, and would be half of all samples.
disable_created_metrics()  # type: ignore[no-untyped-call]

ffmpeg_failures = Counter(
    "regen_ffmpeg_failures",
    "Runs of ffmpeg and ffprobe that failed. Uploads that are no videos make ffprobe fail.",
    ("program", "reason"),
)
# Each starts at zero, because Prometheus does not see the first increase of a new series.
for _program in ("ffmpeg", "ffprobe"):
    for _reason in ("failed", "timeout", "killed", "missing"):
        ffmpeg_failures.labels(program=_program, reason=_reason)


def server_version() -> str:
    """The version of the installed server; `unknown` in a source tree that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
