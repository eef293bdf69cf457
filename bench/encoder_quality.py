"""What the encoder costs: one upscaled clip, losslessly kept, encoded at several CRFs and compared with itself.

    .venv/bin/python bench/encoder_quality.py [CLIP]

Prints PSNR and SSIM of the luma (mean over frames, and the worst frame's) and the size, for x264 and x265 at the
presets that the server uses. The setting `quality` picks from this table.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLIP = Path(__file__).parents[1] / "tests" / "media" / "bunny-240x136-25fps.mp4"
ENCODERS = {"libx264": (12, 14, 16, 18, 20, 25), "libx265": (14, 16, 18, 20, 22, 27)}
PRESET = "medium"


def ffmpeg(*arguments: str) -> str:
    done = subprocess.run(["ffmpeg", "-y", *arguments], capture_output=True, text=True, check=True)
    return done.stderr


def compare(encoded: Path, original: Path, directory: Path) -> tuple[float, float, float, float]:
    """Mean and worst luma PSNR in dB, mean and worst luma SSIM."""
    stats = {name: directory / f"{name}.log" for name in ("psnr", "ssim")}
    graph = (
        f"[0:v]split[a][b];[1:v]split[c][d];[a][c]psnr=stats_file={stats['psnr']}[e];"
        f"[b][d]ssim=stats_file={stats['ssim']}[f]"
    )
    outputs = ("-map", "[e]", "-f", "null", "-", "-map", "[f]", "-f", "null", "-")
    ffmpeg("-i", str(encoded), "-i", str(original), "-filter_complex", graph, *outputs)
    psnr = [float(value) for value in re.findall(r"psnr_y:([\d.]+)", stats["psnr"].read_text())]
    ssim = [float(value) for value in re.findall(r"Y:([\d.]+)", stats["ssim"].read_text())]
    return sum(psnr) / len(psnr), min(psnr), sum(ssim) / len(ssim), min(ssim)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the encoder costs, by CRF.")
    parser.add_argument("clip", type=Path, nargs="?", default=CLIP)
    clip: Path = parser.parse_args().clip
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        directory = Path(name)
        original = directory / "lossless.mp4"
        regen = Path(sys.executable).with_name("regen")
        subprocess.run([regen, "upscale", clip, original, "--quality", "lossless"], check=True)
        answer = subprocess.run(
            ["ffprobe", "-v", "error", "-show_format", "-of", "json", original],
            capture_output=True,
            check=True,
        )
        seconds = float(json.loads(answer.stdout)["format"]["duration"])
        print("| encoder | CRF | PSNR mean | PSNR worst | SSIM mean | SSIM worst | Mbit/s |")
        print("|---|---|---|---|---|---|---|")
        for encoder, values in ENCODERS.items():
            for crf in values:
                encoded = directory / "encoded.mp4"
                ffmpeg(
                    *("-i", str(original), "-an", "-c:v", encoder, "-preset", PRESET),
                    *("-crf", str(crf), str(encoded)),
                )
                psnr, worst_psnr, ssim, worst_ssim = compare(encoded, original, directory)
                rate = encoded.stat().st_size * 8 / seconds / 1e6
                print(
                    f"| {encoder} | {crf} | {psnr:.1f} dB | {worst_psnr:.1f} dB | {ssim:.4f} | "
                    f"{worst_ssim:.4f} | {rate:.1f} |"
                )


if __name__ == "__main__":
    main()
