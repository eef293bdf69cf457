"""A playlist that ffmpeg plays while it grows, and again once it is whole, against the result."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

MICROSECONDS = 1_000_000


def read_frames(source: str | Path, *options: str, track: str = "v:0") -> list[tuple[int, str]]:
    """The time in microseconds and the hash of each frame, as ffmpeg decodes it from a file or an address."""
    command = ["ffmpeg", "-v", "error", *options, "-i", str(source), "-map", f"0:{track}", "-fps_mode"]
    command += ["passthrough", "-enc_time_base", f"1/{MICROSECONDS}", "-f", "framehash", "-hash", "md5", "-"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    rows = [line.replace(" ", "").split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [(int(row[2]), row[-1]) for row in rows]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a varying rate, with a pause, B-frames, and sound that begins before the picture and ends before it."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    times = "setpts='PTS+gt(N,30)*0.21/TB+gt(N,60)*0.013/TB+0.5/TB'"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x54:r=25:d=6"]
    command += ["-f", "lavfi", "-i", "sine=d=4.6:r=44100", "-vf", times, "-fps_mode", "vfr"]
    subprocess.run([*command, "-c:v", "libx264", "-bf", "3", "-c:a", "libopus", str(path)], check=True)
    return path


@pytest.mark.parametrize(
    "options",
    [{}, {"codec": "hevc", "container": "mov", "start": "0.9", "end": "4.2"}, {"container": "webm"}],
    ids=["whole", "part", "webm"],
)
def test_it_is_the_result_while_it_grows_and_afterwards(
    stand_in_server: Server, film: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    server = stand_in_server
    render = server.submit(film, **options)
    deadline = time.monotonic() + 120
    while (found := server.get(render["id"])).get("streamURL") is None:
        assert time.monotonic() < deadline and found["status"] != "failed", found
        time.sleep(0.05)
    assert found["status"] == "processing", "it is there before the end"
    growing = read_frames(found["streamURL"], "-live_start_index", "0")
    completed = server.wait(render["id"])
    result = server.download(completed["outputFileURL"], tmp_path / "result")
    expected = read_frames(result)

    assert [hash_ for _, hash_ in growing] == [hash_ for _, hash_ in expected]
    # Matroska's times are rounded to milliseconds.
    tolerance = 1001 if options.get("container") == "webm" else 1
    first = expected[0][0]
    assert (
        max(abs(ours - (theirs - first)) for (ours, _), (theirs, _) in zip(growing, expected, strict=True))
        <= tolerance
    )

    playlist = f"{found['streamURL']}"
    assert read_frames(playlist) == growing
    sound = read_frames(playlist, track="a:0")
    assert sound[0][0] == 0
    length = completed["output"]["durationSeconds"]
    assert sound[-1][0] / MICROSECONDS == pytest.approx(length, abs=0.03), "silence to the end"
    assert ("streamURL" in completed) is (options.get("container") != "webm")
