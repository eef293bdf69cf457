"""What is under way: bars on a terminal, a line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rich.markup import escape

from app.cli.reporting import stderr

if TYPE_CHECKING:
    from regen_client import Progress
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 10.0
OnProgress = "Callable[[Progress], None]"
STAGES = {"upload": "uploading", "download": "downloading"}


class Display:
    """`silent` leaves out lines, for programs that read JSON; a terminal has its bars all the same."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        console = stderr()
        if console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.fields[label]}"),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def track(self, label: str) -> Callable[[Progress], None]:
        """What a transfer or a wait under this label reports to."""
        if self._bars:
            self._tasks[label] = self._bars.add_task("", total=None, label=escape(label), amount="")
        return lambda progress: self._show(label, progress)

    def end(self, label: str) -> None:
        """Take its bar away."""
        if self._bars and label in self._tasks:
            self._bars.remove_task(self._tasks.pop(label))

    def _show(self, label: str, progress: Progress) -> None:
        stage = STAGES.get(progress.stage) or progress.status or "waiting"
        if self._bars:
            if label in self._tasks:
                task, before = self._tasks[label], self._told.get(label, ("", 0.0))[0]
                self._told[label] = (stage, 0.0)
                change = self._bars.update if stage == before else self._bars.reset
                total = progress.total or None
                change(
                    task,
                    total=total,
                    completed=progress.done,
                    description=stage,
                    label=escape(label),
                    amount=_amount(progress),
                )
            return
        before, told_at = self._told.get(label, ("", 0.0))
        now = time.monotonic()
        if not self._silent and (stage != before or now - told_at >= LINE_SECONDS):
            self._told[label] = (stage, now)
            amount = _amount(progress)
            stderr().print(
                escape(f"{label}: {stage}{f', {amount}' if amount else ''}"), soft_wrap=True, highlight=False
            )


def one_line(text: str) -> str:
    """A file's name as a terminal shows it: control characters and bytes that are no text as question marks."""
    return "".join("?" if unicodedata.category(one) in ("Cc", "Cs") else one for one in text)


def _amount(progress: Progress) -> str:
    if not progress.total:
        return ""
    if progress.stage == "render":
        return f"{progress.done} of {progress.total} frames"
    return f"{progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB"
