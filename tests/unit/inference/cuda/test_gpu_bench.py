"""`bench.gpu` on a CPU with tiny networks: that its first run on a GPU is not its first run."""

import stat

import pytest

from bench import gpu, gpu_frames, gpu_networks
from bench.gpu_setting import Measured, Setting
from bench.processes import Took
from models.catalog import ENGINES
from worker.inference.devices import choose_device

TINY = ["--device", "cpu", "--tiny"]


@pytest.fixture(autouse=True)
def without_triton(monkeypatch):
    """Its interpreter takes minutes."""
    monkeypatch.setattr(gpu_networks.kernels, "AVAILABLE", False)


def measured(engine_id, *, way="off", seconds=0.01, share=0.7, decibels=60.0):
    return Measured(
        engine=engine_id, size=(16, 8), images=1, way=way, seconds=seconds, share=share, decibels=decibels
    )


def setting_with(*networks, **options):
    setting = Setting(device=choose_device("cpu"), tiny=True, **options)
    setting.found.networks.extend(networks)
    return setting


def test_every_section_gives_its_figures_and_every_goal_a_verdict(capsys):
    gpu.main(TINY)
    said = capsys.readouterr().out
    assert "FAILED" not in said and "skipped" not in said
    for title, _ in gpu.SECTIONS.values():
        assert f"### {title}" in said
    for row in ("matrix product, 256", "regen-4x | 2 x 16x8 | off", "regen-4x-lite | off, ", "TB/s"):
        assert row in said
    goals = said.partition("### Goals")[2].strip().splitlines()
    assert [line.rpartition(" ")[2] for line in goals].count("MEASURED") == 3
    assert all(line.endswith(("MET", "MISSED", "NOT MEASURED")) for line in goals) and len(goals) == 10


def test_what_does_not_fit_into_the_time_is_skipped_and_said(capsys):
    gpu.main([*TINY, "--seconds", "0"])
    said = capsys.readouterr().out
    assert said.count("Skipped: no time left.") == len(gpu.SECTIONS)
    assert said.count("NOT MEASURED") == 10 and "MET" not in said.replace("NOT MEASURED", "")


def test_within_a_section_too(capsys):
    late = setting_with(measured("regen-4x"), deadline=0)
    for measure in (gpu_networks.compare, gpu_networks.measure_power, gpu_frames.measure_frames):
        measure(late)
        assert "skipped: no time left" in capsys.readouterr().out
    assert len(late.found.networks) == 1


def test_a_section_that_fails_is_said_and_the_next_follows(capsys, monkeypatch):
    def fails(setting):
        raise RuntimeError("no kernel image")

    monkeypatch.setitem(gpu.SECTIONS, "peak", ("What the device can do", fails))
    with pytest.raises(SystemExit, match=r"Failed: peak\."):
        gpu.main([*TINY, "--skip", "power", "frames", "files"])
    said = capsys.readouterr().out
    assert "no kernel image" in said and "regen-4x | 2 x 16x8 | off" in said and "### Goals" in said


def test_a_way_that_fails_is_a_line_and_the_others_follow(capsys, monkeypatch):
    made = gpu_networks.made

    def fails(setting, network, way, shape):
        if way == "winograd":
            raise RuntimeError("out of resource: shared memory")
        return made(setting, network, "off", shape)

    monkeypatch.setattr(gpu_networks.kernels, "AVAILABLE", True)
    monkeypatch.setattr(gpu_networks, "made", fails)
    setting = setting_with()
    gpu_networks.compare(setting)
    assert "winograd | RuntimeError: out of resource: shared memory" in capsys.readouterr().out
    assert {one.way for one in setting.found.networks} == {"off"}


def test_the_fastest_way_is_one_that_is_right():
    engine = ENGINES["regen-4x"]
    ways = [measured(engine.id, seconds=seconds) for seconds in (0.1, 0.2)]
    wrong = measured(engine.id, way="winograd", seconds=0.001, decibels=30.0)
    setting = setting_with(*ways, wrong, measured("regen-4x-lite", seconds=0.0001))
    assert setting.best(engine) == ways[0]
    said = list(gpu.verdicts(setting))
    assert "- winograd: at least 50 dB from fp32: 30.0 dB, MISSED" in said
    assert "- regen-4x: at least 60 % of the matrix product's rate: 70.0%, MET" in said


@pytest.mark.parametrize(
    ("script", "power"),
    [("echo 412.5, 700.00", (412.5, 700.0)), ("echo '[N/A], [N/A]'", None), ("exit 9", None), (None, None)],
)
def test_power_is_read_where_it_can_be(tmp_path, monkeypatch, script, power):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if script else str(tmp_path))
    if script:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert gpu_networks.read_power("GPU-1") == power


def test_files_count_by_their_further_frames(tmp_path, monkeypatch, capsys):
    commands = []

    def run(command, *, environment, log):
        commands.append((command, environment))
        frames = int(command[-2].name.partition("-")[0])
        return Took(wall_seconds=5 + frames * 0.02, cpu_seconds=0)

    monkeypatch.setattr(gpu_frames, "run", run)
    monkeypatch.setattr(gpu_frames, "cut", lambda clip, destination, **options: None)
    monkeypatch.setattr(gpu_frames.shutil, "which", lambda name: name)
    setting = setting_with(measured("regen-4x-lite", way="winograd"), measured("regen-4x"), weights=tmp_path)
    gpu_frames.measure_files(setting)
    assert setting.found.shares == pytest.approx({"regen-4x-lite, files": 0.5, "regen-4x, files": 0.5})
    assert [own["REGEN_FUSED_KERNELS"] for _, own in commands] == ["winograd", "winograd", "off", "off"]
    assert commands[0][0][1:5] == ["-m", "app.cli", "upscale", "--engine"]
