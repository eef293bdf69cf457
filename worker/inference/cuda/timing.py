"""Time on a GPU."""

import statistics
from collections.abc import Callable

import torch


def seconds_on_cuda(run: Callable[[], None], *, times: int = 5) -> float:
    """Returns the median time of `times` runs on the current device, after one that is not timed."""
    run()
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    for _ in range(times):
        start, end = _timed_event(), _timed_event()
        start.record()
        run()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(float(start.elapsed_time(end)) for start, end in spans) / 1000


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
