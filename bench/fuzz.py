"""Damaged files against what must take any: is each accepted, or refused with a sentence, in time and memory?

    python -m bench.fuzz --files 10000 --seed 1 [--http 1000] [--pipeline 300] [--clips DIRECTORY]

Damaged clips of the conformance corpus are probed as uploads are. With `--http` so many of the files are sent to a
server of its own; with `--pipeline` so many of those accepted are rendered, with the stand-in network. Prints a table
for each, and what went wrong. Memory is that of the largest child so far: ffprobe and ffmpeg, the server with its own,
and what made the corpus unless `--clips` names one that is there.

The worst outcome is a crash: an error that is not one for users. A hang took longer than its time limit.
"""

import argparse
import contextlib
import logging
import math
import resource
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Literal, TypeAlias

import httpx
import structlog

from app.platform.errors import Canceled, FfmpegTimeout, RegenError, RequestError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.settings import Settings
from bench.mutations import MUTATIONS, Mutant, mutants
from tests.media.corpus import write_corpus
from tests.media.kinds import KINDS

Outcome: TypeAlias = Literal["accepted", "refused", "crash", "hang"]
OUTCOMES: tuple[Outcome, ...] = ("accepted", "refused", "crash", "hang")
LARGEST_CLIP_BYTES = 48 * 1024
AT_ONCE = 2
RENDER_SECONDS = 120.0
MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of a file. `said`: the sentence of a refusal, or what went wrong."""

    mutant: Mutant
    outcome: Outcome
    said: str
    seconds: float


@dataclass(kw_only=True)
class Report:
    """`wrong` names the files that crashed or hung, with what was said."""

    tried: int = 0
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    wrong: list[Tried] = field(default_factory=list)
    slowest_refusal_seconds: float = 0.0
    slowest_seconds: float = 0.0

    def add(self, tried: Tried) -> None:
        self.tried += 1
        self.outcomes[tried.mutant.mutation, tried.outcome] += 1
        self.slowest_seconds = max(self.slowest_seconds, tried.seconds)
        if tried.outcome == "refused":
            self.sentences[tried.said] += 1
            self.slowest_refusal_seconds = max(self.slowest_refusal_seconds, tried.seconds)
        elif tried.outcome in ("crash", "hang"):
            self.wrong.append(tried)

    def of(self, outcome: Outcome) -> int:
        return sum(number for (_, found), number in self.outcomes.items() if found == outcome)


class Prober:
    """Probes files with the settings of uploads."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._runner = FfmpegRunner.for_uploads(settings)
        self._limits = MediaLimits.from_settings(settings)
        self._most_seconds = settings.probe_timeout_seconds
        self._directory = directory

    def __call__(self, mutant: Mutant) -> Tried:
        path = self._directory / mutant.name.replace(" ", "-")
        path.write_bytes(mutant.content)
        try:
            return _tried(
                mutant,
                lambda: probe_video(self._runner, path, limits=self._limits),
                refusals=RequestError,
                most_seconds=self._most_seconds,
            )
        finally:
            path.unlink()


class Renderer:
    """Renders files as `regen upscale` does, without a network."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        # torch is loaded with them, and would count as memory of children that are started afterwards.
        from app.cli.local_render import render_locally
        from app.platform.media.work_options import WorkOptions

        self._render, self._options = render_locally, WorkOptions(engine="regen-4x-lite")
        self._settings, self._directory = settings, directory

    def __call__(self, mutant: Mutant) -> Tried:
        path = self._directory / mutant.name.replace(" ", "-")
        path.write_bytes(mutant.content)
        output = path.with_name(f"{path.name}.output.mp4")
        ends_at = time.monotonic() + RENDER_SECONDS
        try:
            return _tried(
                mutant,
                lambda: self._render(
                    self._settings,
                    source=path,
                    destination=output,
                    options=self._options,
                    work_directory=self._directory,
                    on_progress=lambda _progress: None,
                    cancelled=lambda: time.monotonic() > ends_at,
                ),
                refusals=RegenError,
                most_seconds=RENDER_SECONDS,
            )
        finally:
            path.unlink()
            output.unlink(missing_ok=True)


class Sender:
    """Sends files to a server as uploads."""

    def __init__(self, *, url: str, key: str, most_seconds: float) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=2 * most_seconds)
        self._most_seconds = most_seconds

    def __call__(self, mutant: Mutant) -> Tried:
        def send() -> None:
            answer = self._client.post("/v1/files", files={"file": (mutant.name, mutant.content)})
            if 400 <= answer.status_code < 500:
                raise RequestError(answer.json()["errors"][0]["message"])
            answer.raise_for_status()

        return _tried(mutant, send, refusals=RequestError, most_seconds=self._most_seconds)


def _tried(
    mutant: Mutant, action: Callable[[], object], *, refusals: type[RegenError], most_seconds: float
) -> Tried:
    started_at = time.monotonic()
    outcome: Outcome = "accepted"
    said = ""
    try:
        action()
    except (Canceled, FfmpegTimeout) as error:
        outcome, said = "hang", repr(error)
    except refusals as error:
        outcome, said = ("refused", error.message) if error.message.strip() else ("crash", repr(error))
    except Exception as error:
        outcome, said = "crash", repr(error)
    seconds = time.monotonic() - started_at
    if seconds > most_seconds and outcome != "crash":
        outcome, said = "hang", said or "accepted"
    return Tried(mutant=mutant, outcome=outcome, said=said, seconds=seconds)


def try_all(
    attempt: Callable[[Mutant], Tried], files: Iterable[Mutant], *, on_tried: Callable[[Tried], None]
) -> Report:
    """Try each file, two at once; each is made when its turn comes."""
    report, lock, waiting = Report(), threading.Lock(), iter(files)

    def try_next() -> bool:
        with lock:
            mutant = next(waiting, None)
        if mutant is None:
            return False
        tried = attempt(mutant)
        with lock:
            report.add(tried)
            on_tried(tried)
        return True

    def lane() -> None:
        while try_next():
            pass

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(lane) for _ in range(AT_ONCE)]:
            future.result()
    return report


def small_clips(directory: Path, *, most_bytes: int = LARGEST_CLIP_BYTES) -> list[Path]:
    """The clips of the conformance corpus that are not larger, written to that directory."""
    return [path for _, path in write_corpus(directory, KINDS.values()) if path.stat().st_size <= most_bytes]


def _largest_child_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _lines(report: Report) -> Iterator[list[str]]:
    for mutation in MUTATIONS:
        yield [mutation, *(str(report.outcomes[mutation, outcome]) for outcome in OUTCOMES)]
    yield ["all", *(str(report.of(outcome)) for outcome in OUTCOMES)]


def _print(title: str, report: Report, *, seconds: float, largest_child_bytes: int) -> None:
    from bench.machine import table

    print(f"\n{title}: {report.tried} files in {seconds:.0f} s\n")
    print(table(["mutation", "accepted", "refused", "crashes", "hangs"], list(_lines(report))))
    print(
        f"\nSlowest refusal {report.slowest_refusal_seconds:.1f} s, slowest of all {report.slowest_seconds:.1f} s, "
        f"largest child {largest_child_bytes / MIB:.0f} MiB, {len(report.sentences)} different sentences."
    )
    for sentence, number in report.sentences.most_common(8):
        print(f"- {number} times: {sentence}")
    for tried in report.wrong:
        print(f"- {tried.outcome} after {tried.seconds:.1f} s, {tried.mutant.name}: {tried.said}")


@contextlib.contextmanager
def _serving(settings: Settings) -> Iterator[Sender]:
    from bench.laptop import Laptop

    with Laptop() as laptop:
        yield Sender(url=laptop.url, key=laptop.key, most_seconds=settings.probe_timeout_seconds)


def _run(
    title: str,
    opening: contextlib.AbstractContextManager[Callable[[Mutant], Tried]],
    files: Iterable[Mutant],
    keep: Path | None,
) -> set[str]:
    """Print what becomes of the files, keep the faulty ones, and return the names of those accepted."""
    accepted = set()

    def note(tried: Tried) -> None:
        if tried.outcome == "accepted":
            accepted.add(tried.mutant.name)
        elif tried.outcome != "refused" and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / tried.mutant.name.replace(" ", "-")).write_bytes(tried.mutant.content)

    started_at = time.monotonic()
    with opening as attempt:
        report = try_all(attempt, files, on_tried=note)
        seconds = time.monotonic() - started_at
    _print(title, report, seconds=seconds, largest_child_bytes=_largest_child_bytes())
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(description="What damaged files do.")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http", type=int, default=0, metavar="FILES", help="so many are sent to a server")
    parser.add_argument(
        "--pipeline", type=int, default=0, metavar="FILES", help="so many of those accepted are rendered"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="where to keep files that crash or hang"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="the most that each table may take")
    parser.add_argument("--clips", type=Path, metavar="DIRECTORY", help="a corpus that is there already")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    settings = Settings(stand_in_network=True)
    with tempfile.TemporaryDirectory(prefix="regen-fuzz-") as name:
        directory = Path(name)
        if options.clips is None:
            clips = small_clips(directory / "corpus")
        else:
            clips = [path for path in options.clips.iterdir() if path.stat().st_size <= LARGEST_CLIP_BYTES]

        def files() -> Iterator[Mutant]:
            ends_at = time.monotonic() + options.seconds
            made = mutants(clips, files=options.files, seed=options.seed)
            return takewhile(lambda _file: time.monotonic() < ends_at, made)

        print(f"{len(clips)} clips; largest child at the start {_largest_child_bytes() / MIB:.0f} MiB")
        prober = Prober(settings, directory)
        accepted = _run("Probed", contextlib.nullcontext(prober), files(), options.keep)
        if options.http:
            _run("Uploaded", _serving(settings), islice(files(), options.http), options.keep)
        if options.pipeline:
            renderer = Renderer(settings, directory)
            chosen = islice((file for file in files() if file.name in accepted), options.pipeline)
            _run("Rendered", contextlib.nullcontext(renderer), chosen, options.keep)
        from bench.machine import heading

        print(f"\n{heading()}")


if __name__ == "__main__":
    main()
