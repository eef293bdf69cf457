"""What can go wrong while upscaling.

InferenceError              base
├── DeviceUnavailable       this machine has no such device
├── PrecisionUnsupported    the device cannot compute so
└── InsufficientMemory      not even the smallest tile fits
"""


class InferenceError(RuntimeError):
    """Upscaling cannot be set up, or cannot go on."""


class DeviceUnavailable(InferenceError):
    """The device that was asked for is not there."""


class PrecisionUnsupported(InferenceError):
    """The precision that was asked for is not to be had on this device."""


class InsufficientMemory(InferenceError):
    """The device ran out of memory on one frame in the smallest tiles."""
