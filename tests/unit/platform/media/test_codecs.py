"""What of codec, container and quality goes together."""

from itertools import product
from typing import get_args

import pytest

from app.platform.errors import InvalidRequest
from app.platform.media.codecs import CODECS, OutputFormat, Quality
from app.platform.media.containers import MP4, OUTPUT_CONTAINERS, segment_container
from worker.video.encoder import QUALITIES


def test_each_codec_has_settings_for_its_qualities_and_containers_for_its_segments() -> None:
    for codec, its in CODECS.items():
        assert tuple(QUALITIES[codec]) == its.qualities
        assert codec in OUTPUT_CONTAINERS[its.container].video_codecs
        assert segment_container(codec).is_iso
        assert its.quality("lossless") == its.qualities[0]


def test_without_a_request_it_is_mp4() -> None:
    assert OutputFormat().file is MP4
    assert OutputFormat().chosen_codec is None
    assert OutputFormat(container="webm").chosen_codec == "vp9"


def test_what_cannot_go_together_is_refused() -> None:
    for codec, container, quality in product(CODECS, OUTPUT_CONTAINERS, get_args(Quality)):
        form = OutputFormat(codec=codec, container=container, quality=quality)
        fits = codec in OUTPUT_CONTAINERS[container].video_codecs and quality in CODECS[codec].qualities
        if fits:
            form.check()
            continue
        with pytest.raises(InvalidRequest):
            form.check()
