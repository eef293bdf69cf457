"""Every kind of file that people have: in over HTTP, and out again frame for frame, colour for colour.

The clips and what must come of them are in `tests/media/kinds.py`; `python -m bench.fidelity` prints the figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.platform.settings import Settings
from models.loader import load_network
from tests.e2e.exact import enlarge_exactly
from tests.e2e.film import Film
from tests.e2e.judging import faults
from tests.e2e.measuring import input_film, measure
from tests.media.corpus import missing, write_corpus
from tests.media.drawing import read_number
from tests.media.encoding import COUNT, RATE, encode
from tests.media.kinds import KINDS

# Each way of storing samples once: 8 and 10 bits, both ranges, three matrices.
LOSSLESS = ("full-range", "bt601-625", "chroma-444", "ten-bit-hevc", "hdr10")
# So many clips are made and rendered while another is measured.
AHEAD = 4
# The whole test run has its time; one clip alone must not have all of it.
WAIT_SECONDS = 280
# Of the whole picture, all three channels: the encoder at its default quality, and 4:2:0.
LEAST_DECIBELS = 35.0


class Submissions:
    """Clips of the kinds that this run asks for, made and submitted a few ahead of the test that waits for one.

    Processes that share the run each meet a part of the tests, so nobody submits them all at once.
    """

    def __init__(self, names: list[str], directory: Path, server: Any) -> None:
        self._names, self._directory, self._server = names, directory, server
        self._made: dict[str, tuple[Path, str]] = {}

    def get(self, name: str) -> tuple[Path, str]:
        """The clip of that kind, and the id of its render."""
        at = self._names.index(name)
        coming = [KINDS[name] for name in self._names[at : at + AHEAD] if name not in self._made]
        for kind, path in write_corpus(self._directory, coming):
            self._made[kind.name] = path, self._server.submit(path, **kind.fields)["id"]
        return self._made[name]


@pytest.fixture(scope="module")
def submissions(
    stand_in_server: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Submissions:
    asked = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_kind
    ]
    return Submissions(asked, tmp_path_factory.mktemp("corpus"), stand_in_server)


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str, stand_in_server: Any, submissions: Submissions, tmp_path: Path) -> None:
    kind = KINDS[name]
    if reason := missing(kind):
        pytest.skip(reason)
    path, render_id = submissions.get(name)
    render = stand_in_server.wait(render_id, seconds=WAIT_SECONDS)
    assert render["status"] == "completed", render
    output = Film(stand_in_server.download(render["outputFileURL"], tmp_path / "output.mp4"))
    source = input_film(path, kind)
    assert faults(kind, render, source, output, measure(kind, source, output)) == []


def test_joined_recordings(stand_in_server: Any, tmp_path: Path) -> None:
    """Their timestamps start again; no other reader that we know corrects that for all tracks at once."""
    part = encode(tmp_path / "part.ts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(3 * part.read_bytes())
    render = stand_in_server.wait(stand_in_server.submit(joined)["id"], seconds=WAIT_SECONDS)
    assert render["status"] == "completed", render
    film = Film(stand_in_server.download(render["outputFileURL"], tmp_path / "output.mp4"))
    assert [read_number(picture) for picture in film.rgb()] == [*range(COUNT)] * 3
    assert film.times == [number / RATE for number in range(3 * COUNT)]
    for told in (render["input"], render["output"]):
        assert (told["frames"], told["frameRate"], told["durationSeconds"]) == (3 * COUNT, 25, 1.92)
    assert len(render["warnings"]) == 2


def test_without_loss_every_sample_is_right_to_one_code(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    """From the input's samples to the output's: decoding, both conversions, chroma and encoding."""
    kinds = [KINDS[name] for name in LOSSLESS if missing(KINDS[name]) is None]
    with start_server(stand_in_network="true", output_quality="lossless") as server:
        clips = [
            (kind, path, server.submit(path)["id"]) for kind, path in write_corpus(tmp_path / "corpus", kinds)
        ]
        for kind, path, render_id in clips:
            render = server.wait(render_id)
            assert render["status"] == "completed", render
            output = Film(server.download(render["outputFileURL"], tmp_path / f"{kind.name}.mp4"))
            expected = [
                enlarge_exactly(
                    picture, kind.tags.matrix, depth=kind.depth, full_range=kind.tags.range == "pc"
                )
                for picture in input_film(path, kind).rgb()
            ]
            assert len(output.planes) == len(expected)
            for shown, wanted in zip(output.planes, expected, strict=True):
                for plane, codes in zip(shown, wanted, strict=True):
                    np.testing.assert_allclose(plane, codes, rtol=0, atol=1, err_msg=kind.name)


def test_the_networks_own_pictures_arrive(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """What comes out is what the network makes of the frames, in float32, but for what the encoder costs."""
    clips = {
        "lite-8-bit": ("regen-4x-lite", {"count": 2, "size": (64, 48)}),
        "lite-10-bit": ("regen-4x-lite", {"count": 2, "size": (64, 48), "pix_fmt": "yuv420p10le"}),
        "regen-4x": ("regen-4x", {"count": 1, "size": (32, 24)}),
    }
    with start_server() as server:
        renders = {
            name: server.submit(encode(tmp_path / f"{name}.mp4", sounds=(), **recipe), engine=engine)["id"]
            for name, (engine, recipe) in clips.items()
        }
        outputs = {}
        for name, render_id in renders.items():
            render = server.wait(render_id, seconds=WAIT_SECONDS)
            assert render["status"] == "completed", render
            outputs[name] = server.download(render["outputFileURL"], tmp_path / f"{name}-4x.mp4")
        weights = Settings(data_dir=server.data_dir).weights_dir
    for name, (engine, recipe) in clips.items():
        network = load_network(engine, weights_directory=weights)
        results = list(Film(outputs[name]).rgb())
        pictures = list(Film(tmp_path / f"{name}.mp4").rgb())
        assert len(results) == len(pictures) == recipe["count"]
        for picture, result in zip(pictures, results, strict=True):
            frame = torch.from_numpy(picture.astype(np.float32).transpose(2, 0, 1)[None].copy())
            with torch.inference_mode():
                expected = network(frame)[0].clamp(0, 1).numpy().transpose(1, 2, 0)
            error = float(np.mean((result - expected) ** 2))
            assert -10 * np.log10(error) > LEAST_DECIBELS, name
