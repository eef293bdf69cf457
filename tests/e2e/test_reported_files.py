"""Files after public bug reports: in over HTTP, and what comes out is what a viewer may ask for."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.film import Film
from tests.media.reported import FAMILIES, Reported

WAIT_SECONDS = 240
# In codes of luma: what the encoder costs.
MOST_GRAY_ERROR = 2


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, stand_in_server: Any, tmp_path: Path) -> None:
    faults, made = [], []
    for number, file in enumerate(FAMILIES[family]):
        path = tmp_path / str(number) / file.file_name
        path.parent.mkdir()
        file.make(path)
        address = "/v1/upscale" if file.examined is None else "/v1/files"
        with path.open("rb") as body:
            answer = stand_in_server.client.post(address, files={"file": body}, data=file.fields)
        if file.examined is not None and answer.status_code == 200:
            found = answer.json()["file"]
            assert found["durationSeconds"] == pytest.approx(file.examined[1]), file.file_name
            assert round(found["durationSeconds"] * found["frameRate"]) == file.examined[0], file.file_name
        elif not file.refusal and answer.status_code == 200:
            made.append((file, answer.json()["render"]["id"]))
        elif answer.status_code != 415 or not re.search(file.refusal or "$^", answer.text):
            faults.append(f"{file.file_name}: {answer.status_code}, {answer.text}")
    for file, render_id in made:
        render = stand_in_server.wait(render_id, seconds=WAIT_SECONDS)
        if render["status"] != "completed":
            faults.append(f"{file.file_name}: {render['error']}")
            continue
        output = stand_in_server.download(render["outputFileURL"], tmp_path / f"{file.file_name}.mp4")
        faults += [f"{file.file_name}: {fault}" for fault in _faults(file, render, Film(output))]
    assert faults == []


def _faults(file: Reported, render: dict[str, Any], film: Film) -> Iterator[str]:
    if file.times and film.times != list(file.times):
        yield f"the frames are at {[*map(float, film.times)]}"
    size = (film.video["width"], film.video["height"])
    if size != file.size:
        yield f"the pictures are {size}"
    sounds = [(track["codec_name"], track["channels"]) for track in film.streams("audio")]
    if sounds != list(file.sounds):
        yield f"the sound is {sounds}"
    tags = {name: film.video.get(name) for name in file.tags}
    if tags != file.tags:
        yield f"the tags are {tags}"
    given = list(render.get("warnings", []))
    if [one for one in file.warnings if not any(re.search(one, warning) for warning in given)] or len(
        given
    ) != len(file.warnings):
        yield f"the warnings are {given}"
    if file.gray and (grays := _grays(film)) and len(grays) == len(file.gray):
        far = [
            at
            for at, (one, wanted) in enumerate(zip(grays, file.gray, strict=True))
            if abs(one - wanted) > MOST_GRAY_ERROR
        ]
        if far:
            yield f"the frames {far} are {[grays[at] for at in far]}"
    if file.texts:
        yield from _texts(file, film)


def _grays(film: Film) -> list[float]:
    """The mean of each frame's luma as it is stored."""
    return [float(planes[0].mean()) for planes in film.planes]


def _texts(file: Reported, film: Film) -> Iterator[str]:
    for track, begins in zip(film.streams("subtitle"), file.texts, strict=True):
        if track["disposition"]["default"]:
            yield f"the subtitles {track['index']} are on"
        entries = ("-select_streams", str(track["index"]), "-show_entries", "packet=pts_time,size")
        listed = subprocess.run(
            ["ffprobe", "-v", "error", *entries, "-of", "csv=p=0", film.path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        # A packet of two bytes holds no text.
        shown = [float(line.split(",")[0]) for line in listed if int(line.split(",")[1]) > 2]
        if not np.allclose(shown, begins, atol=0.001):
            yield f"texts are at {shown}"
