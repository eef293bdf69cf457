"""The compiled kernels of `kernels.c`: 3x3 convolutions in 32-bit floats, and 4:2:0 to RGB and back.

The package's installation compiles them. They are absent without a C compiler and on processors other than x86-64 with
AVX2 and 64-bit Arm.
"""

import ctypes
import hashlib
import importlib.util
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Literal

import torch

MODULE = "worker.inference.cpu._kernels"
# The layout of results, as in kernels.c.
ResultLayout = Literal[0, 1, 2]
CHANNELS_LAST: ResultLayout = 0
PLANES: ResultLayout = 1
SHUFFLED: ResultLayout = 2

# As in kernels.c: the channels of a pixel are padded to a multiple of BLOCK; a convolution has at most MOST_INPUTS.
BLOCK = 16
MOST_INPUTS = 1024
# As in kernels.c: the inputs of a direct convolution are a multiple of CHUNK.
CHUNK = 32


class ConvolutionStep(ctypes.Structure):
    """A convolution and what follows it: `struct step` of kernels.c, which explains the fields."""

    _fields_ = (
        ("input", c_void_p),
        ("more_input", c_void_p),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("slopes", c_void_p),
        ("residual", c_void_p),
        ("outer", c_void_p),
        ("base", c_void_p),
        ("output", c_void_p),
        ("input_stride", c_int64),
        ("more_input_stride", c_int64),
        ("residual_stride", c_int64),
        ("outer_stride", c_int64),
        ("output_stride", c_int64),
        ("scale", c_float),
        ("outer_scale", c_float),
        ("inputs", c_int32),
        ("inputs_of_first", c_int32),
        ("outputs", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("is_planar", c_int32),
        ("is_doubled", c_int32),
        ("layout", c_int32),
        ("planes", c_int32),
        ("group", c_int32),
        ("is_direct", c_int32),
        ("is_enlarging", c_int32),
        ("rounded", c_void_p),
        ("rounded_stride", c_int64),
    )


class Yuv420Conversion(ctypes.Structure):
    """A picture as RGB and as 4:2:0, and how to convert it: `struct yuv420` of kernels.c."""

    _fields_ = (
        ("rgb", c_void_p),
        ("planes", c_void_p),
        ("height", c_int64),
        ("width", c_int64),
        ("red_weight", c_float),
        ("green_weight", c_float),
        ("blue_weight", c_float),
        ("luma_scale", c_float),
        ("luma_offset", c_float),
        ("blue_scale", c_float),
        ("red_scale", c_float),
        ("chroma_offset", c_float),
        ("is_centred", c_int32),
    )


class Kernels:
    """The kernels for one instruction set."""

    def __init__(self, library: ctypes.CDLL, instructions: str) -> None:
        self.instructions = instructions
        self._name = instructions.encode()
        self._library = library
        self.rows = int(library.regen_rows(self._name))

    def prepare_weights(self, weights: torch.Tensor, ready: torch.Tensor) -> None:
        """Fills `ready` (1-D, `weight_floats` zeros) with the weights as these kernels read them.

        weights: outputs x inputs x 3 x 3, float32; otherwise raises ValueError.
        """
        outputs, inputs, height, width = weights.shape
        if (height, width) != (3, 3) or weights.dtype != torch.float32:
            raise ValueError(f"not weights of a 3x3 convolution in 32 bits: {weights.dtype} {weights.shape}")
        plain = weights.detach().contiguous()
        self._library.regen_prepare_weights(self._name, plain.data_ptr(), inputs, outputs, ready.data_ptr())

    def prepare_direct_weights(self, weights: torch.Tensor, ready: torch.Tensor) -> None:
        """Fills `ready` (1-D, `direct_weight_floats` zeros) with the weights in bfloat16 as direct steps read them.

        weights: outputs x inputs x 3 x 3, float32, inputs in whole chunks; otherwise raises ValueError.
        """
        outputs, inputs, height, width = weights.shape
        if (height, width) != (3, 3) or weights.dtype != torch.float32 or inputs % CHUNK:
            raise ValueError(f"not weights of a direct convolution: {weights.dtype} {weights.shape}")
        plain = weights.detach().contiguous()
        self._library.regen_prepare_direct_weights(plain.data_ptr(), inputs, outputs, ready.data_ptr())

    def split_planes(self, picture: torch.Tensor, address: int) -> None:
        """Writes a picture (3 x H x W, float32, contiguous) at `address` as a direct step reads it: CHUNK channels."""
        _, height, width = picture.shape
        self._library.regen_split_planes(picture.data_ptr(), height, width, address)

    def scratch_floats(self, steps: "ctypes.Array[ConvolutionStep]") -> int:
        """Returns the floats of scratch memory that each thread needs for these steps."""
        return int(self._library.regen_scratch_floats(steps, len(steps)))

    def run(self, steps: "ctypes.Array[ConvolutionStep]", scratch: torch.Tensor, *, threads: int) -> None:
        """Computes all steps in order. The caller keeps alive what they point to.

        scratch: `scratch_floats` for each thread, zeros at first (ValueError if smaller). Raises MemoryError.
        """
        each = scratch.numel() // threads
        if each < self.scratch_floats(steps):
            raise ValueError("too little scratch")
        if self._library.regen_run(self._name, steps, len(steps), threads, scratch.data_ptr(), each):
            raise MemoryError

    def read_yuv420(self, picture: Yuv420Conversion, *, threads: int) -> None:
        """Converts planes to RGB. The caller keeps alive what the argument points to. Raises MemoryError."""
        if self._library.regen_read_yuv420(ctypes.byref(picture), threads):
            raise MemoryError

    def write_yuv420(self, picture: Yuv420Conversion, *, threads: int) -> None:
        """Converts RGB to planes; otherwise like `read_yuv420`."""
        if self._library.regen_write_yuv420(self._name, ctypes.byref(picture), threads):
            raise MemoryError


def weight_floats(inputs: int, outputs: int) -> int:
    """Returns the floats of a convolution's weights as the kernels read them."""
    return 36 * inputs * -(-outputs // BLOCK) * BLOCK


def direct_weight_floats(inputs: int, outputs: int) -> int:
    """Returns the floats of a convolution's weights as direct steps read them, in half as many bytes each."""
    return 9 * inputs * -(-outputs // BLOCK) * BLOCK // 2


@cache
def find_matrix_unit() -> Kernels | None:
    """Returns the kernels that use the processor's matrix unit; None without one or a compiler that knew it."""
    library = _load()
    name = None if library is None else library.regen_matrix_unit()
    return None if name is None else find_kernels(name.decode())


@cache
def find_kernels(instructions: str | None = None) -> Kernels | None:
    """Returns the best kernels for this processor, without its matrix unit, or those for an instruction set that it has
    (`amx`, `avx512`, `avx2`, `neon`).

    None means that no kernels were compiled or none fit.
    """
    library = _load()
    if library is None:
        return None
    if instructions is None:
        best = library.regen_best()
        if best is None:
            return None
        instructions = best.decode()
    return Kernels(library, instructions)


@cache
def kernels_digest() -> str:
    """Returns a digest of the compiled library, empty if there is none."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


def _load() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    # A library left behind by another version would read the steps wrongly.
    step_bytes = getattr(library, "regen_step_bytes", None)
    if step_bytes is None or step_bytes() != ctypes.sizeof(ConvolutionStep):
        return None
    library.regen_best.restype = c_char_p
    library.regen_rows.argtypes = (c_char_p,)
    library.regen_prepare_weights.restype = None
    library.regen_prepare_weights.argtypes = (c_char_p, c_void_p, c_int, c_int, c_void_p)
    library.regen_matrix_unit.restype = c_char_p
    library.regen_prepare_direct_weights.restype = None
    library.regen_prepare_direct_weights.argtypes = (c_void_p, c_int, c_int, c_void_p)
    library.regen_split_planes.restype = None
    library.regen_split_planes.argtypes = (c_void_p, c_int, c_int, c_void_p)
    library.regen_scratch_floats.restype = c_size_t
    library.regen_scratch_floats.argtypes = (POINTER(ConvolutionStep), c_int)
    library.regen_run.argtypes = (c_char_p, POINTER(ConvolutionStep), c_int, c_int, c_void_p, c_size_t)
    library.regen_read_yuv420.argtypes = (POINTER(Yuv420Conversion), c_int)
    library.regen_write_yuv420.argtypes = (c_char_p, POINTER(Yuv420Conversion), c_int)
    return library
