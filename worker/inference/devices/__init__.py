"""The kinds of device that compute: one file each, behind `device.Device`.

Adding a kind is one file with a subclass and its place in `DEVICE_KINDS`.
"""

import torch

from worker.inference.devices.cpu import CpuDevice
from worker.inference.devices.cuda import UUID_PREFIXES, CudaDevice
from worker.inference.devices.device import Device
from worker.inference.devices.mps import MpsDevice
from worker.inference.errors import DeviceUnavailable

__all__ = [
    "DEVICE_KINDS",
    "CpuDevice",
    "CudaDevice",
    "Device",
    "MpsDevice",
    "choose_device",
    "find_devices",
]

# In the order in which `auto` prefers them; the last one is always there.
DEVICE_KINDS: tuple[type[Device], ...] = (CudaDevice, MpsDevice, CpuDevice)


def find_devices() -> list[Device]:
    """Returns every device of this machine, the preferred ones first."""
    return [device for kind in DEVICE_KINDS for device in kind.find_all()]


def choose_device(choice: str = "auto") -> Device:
    """Returns the device for `auto` (the preferred one), for torch's name of a device, such as `cuda:1`, or for the
    driver's name of a GPU or instance of MIG, `GPU-...` or `MIG-...`.

    Raises `DeviceUnavailable` for a device that this machine lacks or a kind that is not supported.
    """
    if choice == "auto":
        return find_devices()[0]
    if choice.startswith(UUID_PREFIXES):
        return CudaDevice.open_by_uuid(choice)
    try:
        wanted = torch.device(choice)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{choice!r} is no device.") from error
    for kind in DEVICE_KINDS:
        if kind.kind == wanted.type:
            return kind.open(wanted.index)
    raise DeviceUnavailable(f"Devices of type {wanted.type} are not supported.")
