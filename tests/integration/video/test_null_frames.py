"""Empty chunks of an AVI: the frame before them is shown until the next one, the last until the video's end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.film import SOUND_RATE, Film
from tests.media.drawing import read_number
from tests.media.encoding import CLICK_SECONDS, COUNT, RATE
from tests.media.irregular import with_null_frames


@pytest.mark.parametrize("null", [{*range(5), COUNT - 1}, {*range(11, COUNT)}, {*range(6, 11)}])
def test_null_frames(null: set[int], tmp_path: Path, rendered: Callable[..., Any]) -> None:
    result = rendered(with_null_frames(tmp_path / "a.avi", null))
    film = Film(result.output)
    stored = [number for number in range(COUNT) if number not in null]
    assert [read_number(picture) for picture in film.rgb()] == stored
    assert [film.start + at for at in film.times] == [number / RATE for number in stored]
    assert result.finished.properties.duration_seconds == (COUNT - stored[0]) / RATE
    assert result.info.video.duration_seconds == (COUNT - stored[0]) / RATE
    assert not [warning for warning in result.finished.warnings if "Sound was converted" not in warning]
    sound = np.abs(film.sound(0, start=0 * film.start, seconds=COUNT / RATE))
    heard = np.flatnonzero(sound > sound.max() / 2).mean() / SOUND_RATE
    assert abs(heard - float(CLICK_SECONDS) - 0.005) < 0.003
