"""The devices behind their one interface."""

import os

import pytest
import torch

from worker.inference.devices import DEVICE_KINDS, CpuDevice, choose_device, find_devices
from worker.inference.errors import DeviceUnavailable


def test_the_cpu_is_always_there_and_preferred_last():
    devices = find_devices()
    assert devices[-1] == CpuDevice()
    assert [device.is_accelerator for device in devices[:-1]] == [True] * (len(devices) - 1)


def test_every_kind_has_a_name_of_its_own_that_torch_knows():
    names = [kind.kind for kind in DEVICE_KINDS]
    assert len(set(names)) == len(names)
    assert [torch.device(name).type for name in names] == names


@pytest.mark.parametrize("choice", ["cpu", "cpu:0"])
def test_a_device_is_called_by_torchs_name(choice):
    assert str(choose_device(choice)) == "cpu"


def test_the_cpu_tells_operators_and_speeds_what_it_is():
    device = CpuDevice()
    assert "threads" in device.details and device.model.startswith("CPU, ")
    assert device.threads == torch.get_num_threads()


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="this process uses CUDA already")
@pytest.mark.parametrize("uuid", ["GPU-5d5ba0d6-0000", "MIG-c7384736-0000"])
def test_a_uuid_chooses_among_what_the_driver_shows(monkeypatch, uuid):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceUnavailable, match=f"no device {uuid}.*nvidia-smi -L"):
        choose_device(uuid)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid
