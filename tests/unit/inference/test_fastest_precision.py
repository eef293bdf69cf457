"""`auto`: the fastest precision that is right, measured once, kept, and the same for all processes."""

import json
import threading
from dataclasses import dataclass, field

import pytest
import torch

from app.cli.doctor.compute import _check_precision
from app.platform.settings import Settings
from models.architectures import NearestNeighbour, SRVGGNetCompact
from worker.inference import fastest_precision
from worker.inference.devices import CpuDevice
from worker.inference.errors import PrecisionUnsupported
from worker.inference.fastest_precision import choose_precision, measurements, sample_picture
from worker.inference.runtime import Runtime


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SRVGGNetCompact(features=16, convolutions=0).requires_grad_(False).eval()


@dataclass(frozen=True)
class Measured(CpuDevice):
    """Its candidates take so many seconds by `clock`, and err by so much."""

    takes: dict = field(default_factory=dict)
    errs: dict = field(default_factory=dict)
    clock: list = field(default_factory=lambda: [0.0])
    runs: list = field(default_factory=list)

    def candidate_precisions(self, properties):
        return tuple(self.takes)

    def make_runtime(self, network, *, properties, precision):
        def run(x):
            self.clock[0] += self.takes[precision]
            self.runs.append(precision)
            return network(x) + self.errs.get(precision, 0.0)

        return Runtime(network=run, memory_format=torch.contiguous_format, reach_pixels=1)


@pytest.fixture
def chosen(network, monkeypatch):
    def choose(device, choice="auto", **options):
        monkeypatch.setattr(fastest_precision, "perf_counter", lambda: device.clock[0])
        monkeypatch.setattr(fastest_precision, "_SIZES", ((16, 9),))
        return choose_precision(device, choice, network, engine_id="regen-4x-lite", **options)

    return choose


@pytest.mark.parametrize(
    ("takes", "errs", "expected"),
    [
        ({"fp32": 0.2, "bf16": 0.1}, {}, "bf16"),
        ({"fp32": 0.1, "bf16": 0.2}, {}, "fp32"),
        ({"fp32": 0.2, "bf16": 0.1, "mixed": 0.05}, {}, "mixed"),
        ({"fp32": 0.2, "bf16": 0.19}, {}, "fp32"),  # about as fast: the more exact one
        ({"fp32": 0.2, "bf16": 0.1}, {"bf16": 0.002}, "fp32"),  # 54 dB
        ({"fp32": 0.2, "bf16": 0.1}, {"bf16": 0.0005}, "bf16"),  # 66 dB
        ({"fp32": 0.2, "bf16": 0.1}, {"bf16": float("nan")}, "fp32"),
        ({"fp32": 9.0, "bf16": 9.0}, {}, "fp32"),
    ],
)
def test_the_fastest_of_those_that_are_right(takes, errs, expected, chosen):
    assert chosen(Measured(takes=takes, errs=errs)) == expected


def test_a_choice_by_name_and_a_single_candidate_measure_nothing(network, chosen, tmp_path):
    device = Measured(takes={"fp32": 0.2, "bf16": 0.1})
    assert chosen(device, "mixed", kept_in=[tmp_path]) == "mixed"
    with pytest.raises(PrecisionUnsupported):
        chosen(device, "fp16")
    assert chosen(Measured(takes={"bf16": 0.1})) == "bf16"
    assert choose_precision(device, "auto", NearestNeighbour(), engine_id="regen-4x-lite") == "fp32"
    assert device.runs == [] and list(tmp_path.iterdir()) == []


def test_modules_of_torch_are_given_up_in_time(network, monkeypatch):
    device = Measured(takes={"fp32": 0.2, "bf16": 0.1})
    monkeypatch.setattr(fastest_precision, "perf_counter", lambda: device.clock[0])
    monkeypatch.setattr(fastest_precision, "_SIZES", ((16, 9),))
    network.body[1].register_forward_hook(lambda *_: device.clock.__setitem__(0, device.clock[0] + 4))
    modules = Runtime(network=network, memory_format=torch.contiguous_format, reach_pixels=1)
    make = device.make_runtime
    monkeypatch.setattr(
        Measured,
        "make_runtime",
        lambda self, *_, precision, **options: (
            modules if precision == "bf16" else make(*_, precision=precision, **options)
        ),
    )
    measured = fastest_precision.measure(device, network, ["fp32", "bf16"], engine_id="x", traits={})
    assert measured.precision == "fp32" and measured.trials[1].decibels is None
    assert "bf16 too slow" in str(measured)


def test_it_ends_in_time_and_leaves_hopeless_candidates_alone(chosen):
    slow = Measured(takes={"fp32": 0.1, "bf16": 0.4})
    chosen(slow)
    assert slow.runs.count("bf16") == 1
    endless = Measured(takes={"fp32": 2.0, "bf16": 1.9})
    chosen(endless)
    assert endless.clock[0] < 6


def test_what_was_measured_stays(network, chosen, tmp_path):
    assert chosen(Measured(takes={"fp32": 0.2, "bf16": 0.1}), kept_in=[tmp_path]) == "bf16"
    again = Measured(takes={"fp32": 0.1, "bf16": 0.2})
    assert chosen(again, kept_in=[tmp_path / "empty", tmp_path]) == "bf16"
    assert again.runs == []
    (shown,) = measurements(again, [tmp_path, tmp_path / "none"])
    assert str(shown) == "bf16, of fp32 200 ms (200 dB), bf16 100 ms (200 dB)"

    # Other weights, another processor and other candidates are others' measurements.
    network.body[0].bias.add_(1)
    assert chosen(again, kept_in=[tmp_path]) == "fp32"
    assert chosen(Measured(takes={"fp32": 0.2, "mixed": 0.1}), kept_in=[tmp_path]) == "mixed"
    (file, *_) = tmp_path.glob("*/*.json")
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "traits": {**stored["traits"], "processor": "another"}}))
    assert len(measurements(again, [tmp_path])) == 2


def test_a_damaged_file_is_made_again(chosen, tmp_path):
    device = Measured(takes={"fp32": 0.2, "bf16": 0.1})
    chosen(device, kept_in=[tmp_path])
    (file,) = tmp_path.glob("*/*.json")
    for damage in ("", "[]", "{}", '{"precision": "bf16", "trials": 3}'):
        file.write_text(damage)
        assert measurements(device, [tmp_path]) == []
        assert chosen(device, kept_in=[tmp_path]) == "bf16"
        assert len(measurements(device, [tmp_path])) == 1


def test_processes_that_start_together_agree(network, monkeypatch, tmp_path):
    """Each would choose another one; the lock is not waited for."""
    monkeypatch.setattr(fastest_precision, "_PATIENCE_SECONDS", 0)
    barrier, found, current = threading.Barrier(4), [], threading.local()
    measured = fastest_precision.measure

    def measure(*arguments, **options):
        barrier.wait(20)
        return measured(*arguments, **options)

    monkeypatch.setattr(fastest_precision, "measure", measure)
    monkeypatch.setattr(fastest_precision, "perf_counter", lambda: current.device.clock[0])

    def start(number):
        takes = {"fp32": 1.0, "bf16": 0.5} if number % 2 else {"fp32": 0.5, "bf16": 1.0}
        device = current.device = Measured(takes=takes)
        found.append(choose_precision(device, "auto", network, engine_id="regen-4x-lite", kept_in=[tmp_path]))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and len(set(found)) == 1
    assert len(list(tmp_path.glob("*/*.json"))) == 1


def test_a_folder_that_cannot_be_written_falls_back_to_the_next_or_the_most_exact(chosen, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    device = Measured(takes={"fp32": 0.2, "bf16": 0.1})
    assert chosen(device, kept_in=[blocked]) == "fp32"
    assert device.runs == []
    assert chosen(device, kept_in=[blocked, tmp_path / "data"]) == "bf16"
    assert chosen(device, kept_in=[blocked, tmp_path / "data"]) == "bf16"


def test_the_picture_is_the_same_each_time_and_uses_the_range():
    picture = sample_picture(64, 36)
    assert torch.equal(picture, sample_picture(64, 36)) and picture.shape == (1, 3, 36, 64)
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.1


def test_doctor_shows_what_was_measured(chosen, monkeypatch, tmp_path):
    device = Measured(takes={"fp32": 0.2, "bf16": 0.1})
    chosen(device, kept_in=[tmp_path])
    monkeypatch.setattr("worker.inference.devices.choose_device", lambda choice: device)
    (finding,) = _check_precision(Settings(weights_dir=tmp_path))
    assert finding.subject == "precision of regen-4x-lite on cpu"
    assert finding.found.startswith("bf16, of fp32 200 ms")
    (finding,) = _check_precision(Settings(weights_dir=tmp_path, precision="mixed"))
    assert finding.found == "mixed"
    (finding,) = _check_precision(Settings(weights_dir=tmp_path, precision="fp16"))
    assert finding.state == "missing" and finding.fix
