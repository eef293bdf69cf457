"""A share of `bench.fuzz`: damaged files are accepted or refused with a sentence, in time."""

from pathlib import Path

import pytest

from app.platform.settings import Settings
from bench.fuzz import Prober, Tried, try_all
from bench.mutations import mutants
from tests.media.corpus import missing, write_corpus
from tests.media.kinds import KINDS

pytestmark = pytest.mark.slow

# The smallest of each container, which cost the least.
NAMES = (
    "single-frame",
    "ten-bit-h264",
    "sd-untagged",
    "alpha-webm",
    "variable-mkv",
    "ts-late-start",
    "mpeg4-avi",
)
FILES = 128


def test_damaged_files_are_accepted_or_refused_with_a_sentence(tmp_path: Path) -> None:
    kinds = [KINDS[name] for name in NAMES if missing(KINDS[name]) is None]
    clips = [path for _, path in write_corpus(tmp_path / "corpus", kinds)]
    wrong: list[Tried] = []
    report = try_all(
        Prober(Settings(), tmp_path),
        mutants(clips, files=FILES, seed=20),
        on_tried=lambda tried: wrong.append(tried) if tried.outcome in ("crash", "hang") else None,
    )
    assert [(tried.mutant.name, tried.said) for tried in wrong] == []
    assert report.of("accepted") > FILES // 10
    assert report.of("refused") > FILES // 10
