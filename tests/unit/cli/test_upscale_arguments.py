from pathlib import Path

import pytest

CLIP = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((CLIP, "out.avi"), ".mp4"),
        ((CLIP, "out.mp4", "--engine", "regen-8x"), "regen-4x-lite"),
        ((CLIP, "out.mp4", "--target-fps", "121"), "1 to 120"),
        ((CLIP, "out.mp4", "--target-fps", "nan"), "1 to 120"),
        ((CLIP, "out.mp4", "--output-quality", "best"), "lossless"),
        ((CLIP, "out.mp4", "--quality", "best"), "lossless"),
        (
            (CLIP, "out.mkv", "--codec", "ffv1", "--quality", "small"),
            "--quality is called --output-quality now",
        ),
        ((CLIP, "out.mp4", "--precision", "int8"), "fp32"),
    ],
)
def test_faulty_arguments_are_usage_errors(regen, monkeypatch, tmp_path, arguments, told):
    monkeypatch.chdir(tmp_path)
    answer = regen("upscale", *arguments)
    assert answer.exit_code == 2
    assert told in " ".join(answer.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_not_replaced_unasked(regen, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_text("precious")
    answer = regen("upscale", CLIP, output)
    assert answer.exit_code == 1
    assert "--overwrite" in answer.stderr
    assert output.read_text() == "precious"


def test_an_input_is_never_its_own_output(regen, tmp_path):
    video = tmp_path / "video.mp4"
    video.write_bytes(CLIP.read_bytes())
    answer = regen("upscale", video, tmp_path / "." / "video.mp4", "--overwrite")
    assert answer.exit_code == 1
    assert "same file" in answer.stderr
    assert video.read_bytes() == CLIP.read_bytes()


@pytest.mark.parametrize(("source", "output"), [("absent.mp4", "out.mp4"), (CLIP, "absent/out.mp4")])
def test_places_that_are_not_there_are_named(regen, monkeypatch, tmp_path, source, output):
    monkeypatch.chdir(tmp_path)
    answer = regen("upscale", source, output)
    assert answer.exit_code == 1
    assert "absent" in answer.stderr
