"""Every kind of file through a server, and what came of it: frames, times, colours, sound.

    .venv/bin/python -m bench.fidelity [--write] [--real-esrgan CHECKOUT] [--framelift UNPACKED_WHEEL] [KIND ...]

The clips are those of `tests/media/kinds.py`, the measuring is that of the tests. `--write` puts the tables into
docs/fidelity.md. With the directories of other upscalers, what they make of the same files stands beside it.
"""

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from bench.peers import Peer, PeerFailed, framelift, real_esrgan
from tests.e2e.conftest import Server, running_server
from tests.e2e.film import Film
from tests.e2e.judging import faults
from tests.e2e.measuring import SCALE, Measured, input_film, measure, milliseconds
from tests.media.corpus import missing, write_corpus
from tests.media.kind import Kind
from tests.media.kinds import KINDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "fidelity.md"
BEGIN, END = "<!-- begin: bench.fidelity -->", "<!-- end: bench.fidelity -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one clip here, and at the peers: measured, or why not."""

    kind: Kind
    measured: Measured
    warnings: Sequence[str]
    faults: Sequence[str]
    peers: Sequence[Measured | str]


def measure_all(kinds: Sequence[Kind], peers: Sequence[Peer]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="fidelity-") as name:
        directory = Path(name)
        with running_server(directory / "server", stand_in_network="true", segment_seconds="0.5") as server:
            clips = [
                (kind, path, server.submit(path, **kind.fields)["id"])
                for kind, path in write_corpus(directory / "corpus", kinds)
            ]
            for kind, path, render_id in clips:
                yield _row(server, kind, path, render_id, peers, directory)


def _row(
    server: Server, kind: Kind, path: Path, render_id: str, peers: Sequence[Peer], directory: Path
) -> Row:
    render = server.wait(render_id, seconds=600)
    if render["status"] != "completed":
        raise SystemExit(f"{kind.name}: {render}")
    output = Film(server.download(render["outputFileURL"], directory / "output.mp4"))
    source = input_film(path, kind)
    measured = measure(kind, source, output)
    return Row(
        kind=kind,
        measured=measured,
        warnings=render.get("warnings", []),
        faults=faults(kind, render, source, output, measured),
        peers=[_peer(peer, kind, source, directory / "peer.mp4") for peer in peers],
    )


def _peer(peer: Peer, kind: Kind, source: Film, destination: Path) -> Measured | str:
    try:
        peer.run(kind, source.path, destination)
        return measure(kind, source, Film(destination))
    except PeerFailed as failure:
        return str(failure)
    except subprocess.CalledProcessError:
        return "the file that it wrote cannot be read"


HEAD = ("kind", "frames", "time, ms", "duration, ms", "colour", "shift", "sound, ms", "tags")


def own_table(rows: Sequence[Row]) -> str:
    lines = [(*_cells(row.kind, row.measured), " ".join(row.warnings)) for row in rows]
    return _markdown([*HEAD, "warnings"], lines)


def peer_table(rows: Sequence[Row], index: int) -> str:
    lines: list[Sequence[str]] = []
    for row in rows:
        measured = row.peers[index]
        if isinstance(measured, str):
            lines.append((row.kind.about, f"no file: `{measured}`", *[""] * (len(HEAD) - 2)))
        else:
            lines.append(_cells(row.kind, measured))
    return _markdown(HEAD, lines)


def _cells(kind: Kind, measured: Measured) -> Sequence[str]:
    # Between different frames, times and colours say nothing.
    is_comparable = measured.has_all_frames
    return (
        kind.about,
        _frames(kind, measured),
        _milliseconds(measured.time_error) if is_comparable else "-",
        _milliseconds(measured.duration_error),
        f"{measured.colour_error:.1f}" if is_comparable else "-",
        f"{measured.colour_shift:+.1f}" if is_comparable else "-",
        ", ".join(milliseconds(shift) for shift in measured.sound_shifts) or "no sound",
        " ".join(tag or "none" for tag in measured.tags) if any(measured.tags) else "none",
    )


def _frames(kind: Kind, measured: Measured) -> str:
    parts = [f"{measured.frames_in} to {measured.frames_out}"]
    if measured.frames_out != len(measured.expected_numbers):
        parts.append(f"not {len(measured.expected_numbers)}")
    elif not measured.has_all_frames:
        parts.append("not the right ones")
    size = (SCALE * kind.size[0], SCALE * kind.size[1])
    if measured.size != size:
        parts.append(f"of {measured.size[0]}x{measured.size[1]}, not {size[0]}x{size[1]}")
    return ", ".join(parts)


def _milliseconds(seconds: Fraction) -> str:
    return f"{float(seconds) * 1000:.2f}"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def report(rows: Sequence[Row], peers: Sequence[Peer], command: str) -> str:
    version = subprocess.run(
        ["ffmpeg", "-version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    wrong = [f"- {row.kind.about}: {fault}" for row in rows for fault in row.faults]
    parts = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, with ffmpeg {version} and Python {platform.python_version()}, by",
        f"`{command}`.",
        "",
        own_table(rows),
        "",
        *(("Not as it should be:", "", *wrong) if wrong else ("Everything was as expected.",)),
    ]
    for index, peer in enumerate(peers):
        parts += ["", f"The same by {peer.name}:", "", peer_table(rows, index)]
    left_out = [f"- {kind.about}: {reason}" for kind in KINDS.values() if (reason := missing(kind))]
    if left_out:
        parts += ["", "Left out:", "", *left_out]
    return "\n".join(parts)


def write(text: str) -> None:
    """Put the text between the marks in docs/fidelity.md."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How true outputs are to their inputs, by kind of file.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--write", action="store_true", help="write docs/fidelity.md")
    parser.add_argument("--real-esrgan", type=Path, help="a checkout of Real-ESRGAN's repository")
    parser.add_argument("--framelift", type=Path, help="the unpacked wheel of framelift-video")
    arguments = parser.parse_args()
    peers = [
        *([real_esrgan(arguments.real_esrgan.resolve())] if arguments.real_esrgan else []),
        *([framelift(arguments.framelift.resolve())] if arguments.framelift else []),
    ]
    rows = []
    for row in measure_all([KINDS[name] for name in arguments.kinds or KINDS], peers):
        rows.append(row)
        print(f"{row.kind.name}: {'; '.join(row.faults) or 'as it should be'}", file=sys.stderr, flush=True)
    options = [option for option in ("--real-esrgan", "--framelift") if option in sys.argv]
    command = shlex.join(
        ["python", "-m", "bench.fidelity", *(word for o in options for word in (o, "DIRECTORY"))]
    )
    text = report(rows, peers, command)
    print(text)
    if arguments.write:
        write(text)


if __name__ == "__main__":
    main()
