"""A target of VMAF over HTTP: what the render says was found, and what the file has."""

import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.platform.errors import FfmpegError
from app.platform.media.programs import find_programs


@pytest.fixture
def programs() -> dict[str, str]:
    """Settings for an ffmpeg with libvmaf: the one of the path, or the wheel's."""
    candidates = [find_programs()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        with contextlib.suppress(FfmpegError):
            candidates.append(find_programs())
    for found in candidates:
        listed = subprocess.run([found.ffmpeg, "-filters"], capture_output=True, check=True).stdout
        if b" libvmaf " in listed:
            return {"ffmpeg": str(found.ffmpeg), "ffprobe": str(found.ffprobe)}
    pytest.skip("no ffmpeg here has libvmaf (that of the ffmpeg-wheels extra does on Linux x86-64)")


@pytest.mark.slow
def test_a_render_with_a_target(
    start_server: Callable[..., Any], programs: dict[str, str], tmp_path: Path
) -> None:
    source = tmp_path / "in.mp4"
    pictures = "testsrc2=s=64x48:r=25:d=1.2,noise=alls=30:allf=t:all_seed=7"
    command = [
        programs["ffmpeg"],
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        pictures,
        "-pix_fmt",
        "yuv420p",
        source,
    ]
    subprocess.run(command, check=True)
    with start_server(stand_in_network="true", segment_seconds="0.6", **programs) as server:
        renders = []
        for fields in ({"output_quality": "vmaf=93"}, {"codec": "ffv1"}):
            render = server.wait(server.submit(source, **fields)["id"], seconds=120)
            assert render["status"] == "completed", render
            renders.append(render)
        files = [
            server.download(render["outputFileURL"], tmp_path / f"{number}.mkv")
            for number, render in enumerate(renders)
        ]
    searched, exact = renders
    assert searched["outputQuality"] == "vmaf=93" and "encodedQuality" not in exact
    found = searched["encodedQuality"]
    assert (found["target"], found["model"]) == (93, "vmaf_v0.6.1")
    assert 93 <= found["vmaf"]["min"] <= found["vmaf"]["mean"] < 97
    assert 8 < found["crf"]["min"] <= found["crf"]["max"] < 45
    assert "warnings" not in searched
    in_order = "settb=1/25,setpts=N,setparams=range=tv:colorspace=bt709"
    graph = f"[0:v]{in_order}[a];[1:v]{in_order}[b];[a][b]libvmaf=log_fmt=json:log_path=/dev/stdout"
    inputs = [word for file in files for word in ("-i", file)]
    told = subprocess.run(
        [programs["ffmpeg"], "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"],
        capture_output=True,
        check=True,
    ).stdout
    # All frames of these short segments are in the samples.
    assert abs(json.loads(told)["pooled_metrics"]["vmaf"]["mean"] - found["vmaf"]["mean"]) < 0.5
