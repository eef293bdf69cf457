"""What a cluster is asked once a soak is over: the rows, the logs, the storage, and every frame of every output."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.cluster import Cluster, leftovers
from tests.e2e.reading import decibels, decode, duration, probe, stream, timestamps

SCALE = 4
READERS = 2
# An enlargement by nearest neighbour, encoded at the default quality and reduced again, is this near its input.
LEAST_DECIBELS = 30.0
SAMPLED_EVERY = 10


@dataclass(kw_only=True)
class Inspection:
    """`failed` and `wrong` have a sentence by render id."""

    completed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    unknown_renders: int = 0
    completed_twice: int = 0
    backwards: int = 0
    segments: int = 0
    segments_again: int = 0
    most_attempts: int = 0
    right_timestamps: int = 0
    frames: int = 0
    worst_decibels: float = 99.0
    orphans: Counter[str] = field(default_factory=Counter)
    orphans_after_clean_up: Counter[str] = field(default_factory=Counter)
    processes_left: int = 0
    exit_statuses: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output beside its input. `worst_decibels` is that of the sampled frames."""

    render_id: str
    has_right_times: bool
    has_right_size: bool
    frames: int
    expected_frames: int
    worst_decibels: float


def inspect(cluster: Cluster, accepted: dict[str, Path], downloads: Path) -> Inspection:
    """Look at everything. Ends the workers, and runs the clean-up as if days had passed."""
    seen = Inspection()
    seen.exit_statuses = cluster.stop_workers()
    _look_at_rows(cluster, accepted, seen)
    seen.completed_twice = _completed_twice(cluster)
    with ThreadPoolExecutor(READERS) as pool:
        for output in pool.map(lambda item: _read_output(cluster, downloads, *item), accepted.items()):
            if output is not None:
                _judge(output, seen)
    seen.orphans = _orphans(cluster)
    seen.processes_left = len(leftovers(cluster.root)) - _processes_of_servers(cluster)
    _clean_up(cluster)
    seen.orphans_after_clean_up = _orphans(cluster)
    return seen


def _processes_of_servers(cluster: Cluster) -> int:
    """The API names the directory too."""
    return sum(1 for pid in leftovers(cluster.root) if pid == cluster.api.pid)


def _look_at_rows(cluster: Cluster, accepted: dict[str, Path], seen: Inspection) -> None:
    for render_id, status, error in cluster.query("SELECT id, status, error FROM renders"):
        if render_id not in accepted:
            seen.unknown_renders += 1
        elif status == "completed":
            seen.completed += 1
        elif status == "failed":
            seen.failed[render_id] = error
    ((seen.segments, again, most),) = cluster.query(
        "SELECT count(*), sum(attempt - 1), max(attempt) FROM segments WHERE attempt > 0"
    )
    ((seen.backwards,),) = cluster.query(
        "SELECT count(*) FROM renders WHERE completed_at < created_at OR ended_at < created_at"
    )
    seen.segments_again, seen.most_attempts = int(again or 0), int(most or 0)


def _completed_twice(cluster: Cluster) -> int:
    """Renders whose completion more than one worker says it has made."""
    completions = Counter(
        line["render_id"]
        for worker in cluster.past_workers
        for line in worker.lines("work_done")
        if line["kind"] == "finish"
    )
    return sum(1 for number in completions.values() if number > 1)


def _read_output(cluster: Cluster, downloads: Path, render_id: str, clip: Path) -> Output | None:
    """None when there is none: the render was not completed."""
    render = cluster.user.get(render_id)
    if render["status"] != "completed":
        return None
    file = cluster.user.download(render["outputFileURL"], downloads / f"{render_id}.mp4")
    before, after = probe(clip), probe(file)
    width, height = stream(before, "video")["width"], stream(before, "video")["height"]
    frames, original = (decode(path, width=width, height=height) for path in (file, clip))
    file.unlink()
    sampled = range(0, min(len(frames), len(original)), SAMPLED_EVERY)
    return Output(
        render_id=render_id,
        has_right_times=timestamps(before, "video") == timestamps(after, "video")
        and duration(before, "video") == duration(after, "video"),
        has_right_size=(stream(after, "video")["width"], stream(after, "video")["height"])
        == (SCALE * width, SCALE * height),
        frames=len(frames),
        expected_frames=len(original),
        worst_decibels=min((decibels(frames[at], original[at]) for at in sampled), default=0.0),
    )


def _judge(output: Output, seen: Inspection) -> None:
    seen.right_timestamps += output.has_right_times
    seen.frames += output.frames
    seen.worst_decibels = min(seen.worst_decibels, output.worst_decibels)
    if not output.has_right_times:
        seen.wrong[output.render_id] = "its timestamps differ"
    elif not output.has_right_size:
        seen.wrong[output.render_id] = "its size is wrong"
    elif output.frames != output.expected_frames:
        seen.wrong[output.render_id] = f"{output.frames} frames, not {output.expected_frames}"
    elif output.worst_decibels < LEAST_DECIBELS:
        seen.wrong[output.render_id] = f"a frame is {output.worst_decibels:.1f} dB from its input"


def _orphans(cluster: Cluster) -> Counter[str]:
    """Objects that no row names, by what they are."""
    named = {key for (key,) in cluster.query("SELECT storage_key FROM files")}
    for keys in cluster.query("SELECT output_key, thumbnail_key FROM renders WHERE status = 'completed'"):
        named.update(keys)
    kinds: Counter[str] = Counter()
    for stored in cluster.storage.list(""):
        if stored.key not in named:
            found = re.search(r"/(segments|output|thumbnail|input)", stored.key)
            kinds[found.group(1) if found else stored.key] += 1
    return kinds


def _clean_up(cluster: Cluster) -> None:
    """As if every render had ended two days ago."""
    cluster.query("UPDATE renders SET ended_at = ended_at - interval '2 days'")
    cluster.command("cleanup")
