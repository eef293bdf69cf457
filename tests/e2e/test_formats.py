"""Kinds of file in other codecs and containers: a pairwise choice, judged frame for frame."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.film import SOUND_RATE, Film
from tests.e2e.judging import MOST_COLOUR_ERROR
from tests.e2e.measuring import input_film, measure
from tests.media.corpus import write_corpus
from tests.media.kinds import KINDS

# Matroska rounds the times of pictures and sound to thousandths of a second.
MOST_TIME = Fraction(1, 2000)
# Both roundings together.
MOST_SAMPLES = int(SOUND_RATE * 2 * MOST_TIME)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("variable-mp4", "ffv1", "mkv"),
        ("hdr10", "av1", "webm"),
        ("full-range", "vp9", "mkv"),
        ("rotated-anamorphic", "prores", "mov"),
        ("to-film", "av1", "mp4"),
        ("bt601-525", "vp9", "webm"),
        ("video-late", "hevc", "mkv"),
    ],
)
def test_kind_in_another_format(
    name: str, codec: str, container: str, stand_in_server: Any, tmp_path: Path
) -> None:
    kind = KINDS[name]
    ((_, path),) = write_corpus(tmp_path, [kind])
    asked = stand_in_server.submit(path, **kind.fields, codec=codec, container=container)
    render = stand_in_server.wait(asked["id"], seconds=240)
    assert render["status"] == "completed", render
    output = Film(stand_in_server.download(render["outputFileURL"], tmp_path / f"output.{container}"))
    measured = measure(kind, input_film(path, kind), output)

    assert output.video["codec_name"] == codec
    assert measured.has_all_frames
    assert measured.time_error <= (0 if container in ("mp4", "mov") else MOST_TIME)
    assert measured.colour_error <= MOST_COLOUR_ERROR
    expected = kind.tags
    *colours, in_range = measured.tags
    assert colours == [expected.primaries, expected.transfer, expected.matrix]
    # ProRes has no range but this one, which newer versions of ffmpeg do not show.
    assert in_range in (("tv", None) if codec == "prores" else (expected.range,))
    assert all(shift is not None and abs(shift) <= MOST_SAMPLES for shift in measured.sound_shifts)
