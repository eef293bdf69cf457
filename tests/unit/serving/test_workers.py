import os

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
