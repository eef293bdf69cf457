"""What is in the images, and that their ffmpeg is as good as this machine's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.conftest import GPU_WANTED, ROOT, TARGETS, Run
from tests.media.corpus import write_corpus
from tests.media.kinds import KINDS

PROBING = Path(__file__).with_name("probing.py")
MEGABYTE = 1_000_000
MOST_MEGABYTES = {"api": 300, "worker": 1500, "gpu": 6000}


@pytest.mark.parametrize("target", TARGETS)
def test_sizes(docker: Run, target: str) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", f"regen-server:{target}"))
    assert size <= MOST_MEGABYTES[target] * MEGABYTE


@pytest.mark.parametrize("target", ["api", "worker"])
def test_there_are_no_build_tools(docker: Run, target: str) -> None:
    looked_for = "command -v gcc make strip; test -e /opt/regen/bin/pip && echo pip; true"
    assert docker("run", "--rm", "--entrypoint", "sh", f"regen-server:{target}", "-c", looked_for) == ""


@pytest.mark.skipif(not GPU_WANTED, reason="REGEN_TEST_GPU_IMAGE=1 builds the third image")
def test_the_image_for_gpus_where_there_is_none(docker: Run) -> None:
    script = (
        "regen doctor; regen db upgrade; regen worker --device cuda; regen worker --queues gpu --all-gpus; "
        "test $? = 78 && python -c 'import torch; print(torch.version.cuda)'"
    )
    told = docker("run", "--rm", "--entrypoint", "sh", "regen-server:gpu", "-c", f"({script}) 2>&1")
    assert "install a driver for CUDA" in told
    assert "There is no device cuda" in told
    assert "There is no GPU that torch can use here." in told
    assert told.split()[-1].startswith("13.")


@pytest.mark.parametrize("target", TARGETS)
def test_the_doctor_finds_the_ffmpeg_whole(docker: Run, target: str) -> None:
    told = docker(
        *("run", "--rm", "--entrypoint", "sh", f"regen-server:{target}"),
        *("-c", "regen doctor --json 2>/dev/null || true"),
    )
    states = {finding["subject"]: finding["state"] for finding in json.loads(told)}
    of_ffmpeg = ("ffmpeg", "ffprobe", "decoding", "decoders", "filters and muxers")
    of_ffmpeg += ("encoder libx264", "encoder libx265", "encoder aac")
    assert {subject: states[subject] for subject in of_ffmpeg} == dict.fromkeys(of_ffmpeg, "ok")


def test_files_are_to_its_ffmpeg_what_they_are_to_this_machines(docker: Run, tmp_path: Path) -> None:
    """Every kind of file of the conformance corpus, and files that are no videos."""
    corpus = tmp_path / "corpus"
    written = list(write_corpus(corpus, KINDS.values()))
    assert len(written) > 40
    video = written[0][1].read_bytes()
    (corpus / "text.mp4").write_text("no video\n" * 100)
    (corpus / "truncated.mp4").write_bytes(video[: len(video) // 3])
    (corpus / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    for path in (tmp_path, *tmp_path.parents[:2], corpus):
        path.chmod(0o755)
    here = subprocess.run(
        [sys.executable, PROBING, corpus],
        env={**os.environ, "PYTHONPATH": str(ROOT), "REGEN_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    there = docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "python"),
        *("--volume", f"{corpus}:/corpus:ro", "--volume", f"{PROBING}:/probing.py:ro"),
        *("regen-server:api", "/probing.py", "/corpus"),
    )
    assert json.loads(there) == json.loads(here)
