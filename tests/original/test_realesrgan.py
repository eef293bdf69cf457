"""Our frames compared with those of the original package, from the same weights.

Needs an environment of its own: see `scripts/original`.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.loader import load_network
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import make_upscaler

PYTHON = Path(os.environ.get("REGEN_TEST_ORIGINAL", "")) / "bin" / "python"
CLIP = Path(__file__).parents[1] / "media" / "bunny-240x136-25fps.mp4"
WIDTH, HEIGHT, FRAMES = 120, 68, 2
BLOCKS = {"regen-4x-lite": 0, "regen-4x": 23, "regen-4x-anime": 6}
# Input pixels that the package's reflected border may reach.
BORDER = 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="REGEN_TEST_ORIGINAL is not set: scripts/original"),
]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """FRAMES x HEIGHT x WIDTH x 3, R'G'B' of 16 bits, of a film."""
    command = ["ffmpeg", "-v", "error", "-i", CLIP, "-frames:v", str(FRAMES), "-vf"]
    command += [f"scale={WIDTH}:{HEIGHT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(FRAMES, HEIGHT, WIDTH, 3).astype(np.uint16) * 257


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2) / 65535**2
    return -10 * math.log10(max(error, 1e-20))


@pytest.mark.parametrize("engine_id", BLOCKS)
def test_frames_are_those_of_the_original_package(
    engine_id: str, pictures: np.ndarray, weights_directory: Path, tmp_path: Path
) -> None:
    torch.save(
        {"params": load_network(engine_id, weights_directory=weights_directory).state_dict()},
        tmp_path / "weights.pth",
    )
    np.save(tmp_path / "in.npy", pictures[..., ::-1])

    def theirs(pre_pad: int) -> np.ndarray:
        files = (tmp_path / "in.npy", tmp_path / "out.npy")
        script = Path(__file__).with_name("enhance.py")
        command = [PYTHON, script, tmp_path / "weights.pth", str(BLOCKS[engine_id]), str(pre_pad), *files]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, check=True, timeout=900, env=environment)
        return np.load(files[1])[..., ::-1]

    source = FrameFormat(width=WIDTH, height=HEIGHT, layout="gbr", full_range=True, bit_depth=16)
    target = source.enlarged(4)
    upscaler = make_upscaler(
        engine_id=engine_id,
        source=source,
        target=target,
        weights_directory=weights_directory,
        device="cpu",
        precision="fp32",
    )
    frames = upscaler.upscale([source.join([one[:, :, plane] for plane in (1, 2, 0)]) for one in pictures])
    ours = np.stack([np.stack(target.split(frame), axis=-1)[:, :, [2, 0, 1]] for frame in frames])

    # As its command line runs it: without a reflected border.
    plain = psnr(ours, theirs(0))
    # As its class does by default: the border at the right and at the bottom is another picture's.
    reflected = theirs(10)
    inner = (slice(None), slice(0, -4 * BORDER), slice(0, -4 * BORDER))
    sys.stdout.write(
        f"\n{engine_id}: {plain:.1f} dB; with the package's border of 10 pixels {psnr(ours, reflected):.1f} dB, "
        f"{psnr(ours[inner], reflected[inner]):.1f} dB without the outer {BORDER} pixels\n"
    )
    assert plain >= 60
