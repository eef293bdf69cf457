"""Media types of uploads, by what ffmpeg calls the format and by the file's name."""

import pytest

from app.platform.media.containers import content_type_of_format, content_type_of_name


@pytest.mark.parametrize(
    ("format_name", "name", "content_type"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "clip.mp4", "video/mp4"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "clip.MOV", "video/quicktime"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "clip.webm", "video/mp4"),
        ("matroska,webm", "clip", "video/x-matroska"),
        ("matroska,webm", "clip.webm", "video/webm"),
        ("avi", "clip.mp4", "video/x-msvideo"),
        ("ivf", "clip.mp4", "application/octet-stream"),
    ],
)
def test_of_an_examined_file_the_format_decides_before_the_name(format_name, name, content_type):
    assert content_type_of_format(format_name, name=name) == content_type


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.film.m4v", "video/mp4"),
        ("film.Mov", "video/quicktime"),
        ("film.mpg", "video/mpeg"),
        ("film", "application/octet-stream"),
        ("film.exe", "application/octet-stream"),
    ],
)
def test_of_a_file_that_was_not_examined_the_name_decides(name, content_type):
    assert content_type_of_name(name) == content_type
