import os
from pathlib import Path

import pytest

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings
from app.serving import workers


def ports(first, count):
    return workers.metrics_ports(Settings(worker_metrics_port=first), count)


def test_each_worker_has_a_port_of_its_own():
    assert ports(9100, 3) == [9100, 9101, 9102]
    assert ports(0, 2) == [0, 0]
    assert ports(None, 2) == [None, None]
    with pytest.raises(ConfigurationError):
        ports(65535, 2)


def test_workers_on_the_cpu_share_its_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert workers.child_environment(["cpu", "cpu"])["OMP_NUM_THREADS"] == "3"
    assert workers.child_environment(["cpu"] * 7)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in workers.child_environment(["cpu", "cuda:0"])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert workers.child_environment(["cpu", "cpu"])["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("found", [["cuda:0", "cuda:1", "cuda:2"], ["mps"]])
def test_every_device_that_is_no_cpu_is_one_worker(monkeypatch, found):
    monkeypatch.setattr(workers, "FIND_PROGRAM", f"print(*{found})")
    assert workers.accelerators() == found


@pytest.mark.parametrize("program", ["print()", "raise SystemExit('broken')"])
def test_without_one_a_sentence_says_so(monkeypatch, program):
    monkeypatch.setattr(workers, "FIND_PROGRAM", program)
    with pytest.raises(ConfigurationError, match="regen doctor"):
        workers.accelerators()


# As NVIDIA's MIG User Guide shows it: one GPU in two instances, one undivided.
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""
INSTANCES = [
    "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
    "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d",
    "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77",
]


@pytest.mark.parametrize(
    ("listed", "visible", "found"),
    [
        (DIVIDED, None, INSTANCES),
        (DIVIDED, ",".join(INSTANCES[:2]), INSTANCES[:2]),
        (DIVIDED, "0", ["cuda:0"]),
        ("GPU 0: NVIDIA L4 (UUID: GPU-5d5ba0d6)\n", None, ["cuda:0"]),
        ("No devices found.\n", None, ["cuda:0"]),
    ],
)
def test_instances_of_mig_are_workers_of_their_own(monkeypatch, tmp_path: Path, listed, visible, found):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(workers, "FIND_PROGRAM", "print('cuda:0')")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert workers.accelerators() == found
