"""Errors of upscaling.

InferenceError              base
├── DeviceUnavailable       this machine has no such device
├── PrecisionUnsupported    the device cannot compute in that precision
└── InsufficientMemory      not even the smallest tile fits
"""


class InferenceError(RuntimeError):
    """Upscaling cannot start or continue."""


class DeviceUnavailable(InferenceError):
    """The requested device does not exist or is not supported."""


class PrecisionUnsupported(InferenceError):
    """The device does not support the requested precision."""


class InsufficientMemory(InferenceError):
    """The device ran out of memory on one frame in the smallest tiles."""
