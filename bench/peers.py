"""Other upscalers on the same files, their networks replaced by exact enlargement: how they treat files is compared.

Neither is installed: both are run from a directory that holds their own, unchanged files.
"""

import os
import re
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.media.kind import Kind

PEER_SECONDS = 300

# What `inference_realesrgan_video.py` imports beside cv2, numpy and ffmpeg-python. The script needs a GPU to start:
# it is told of one.
REAL_ESRGAN_STAND_INS = {
    "torch.py": """
class cuda:
    device_count = staticmethod(lambda: 1)
    synchronize = staticmethod(lambda device=None: None)
""",
    "basicsr/archs/rrdbnet_arch.py": "class RRDBNet:\n    def __init__(self, **options): pass\n",
    "basicsr/utils/download_util.py": "def load_file_from_url(**options): return ''\n",
    "realesrgan/archs/srvgg_arch.py": "class SRVGGNetCompact:\n    def __init__(self, **options): pass\n",
    "realesrgan/__init__.py": """
class RealESRGANer:
    def __init__(self, **options): pass
    def enhance(self, image, outscale):
        return image.repeat(4, 0).repeat(4, 1), None
""",
    "tqdm.py": """
class tqdm:
    def __init__(self, **options): pass
    def update(self, count): pass
""",
}
FRAMELIFT_PROGRAM = """
import sys
import framelift.pipeline as pipeline

class Nearest:
    def __init__(self, *arguments, **options): pass
    def infer(self, frame): return frame.repeat(4, 0).repeat(4, 1)
    def finish(self, native, shape, scale): return native

pipeline.AIUpscaler = Nearest
pipeline.ensure_weights = lambda *arguments: ""
source, destination, rate = sys.argv[1:]
pipeline.enhance_video(source, destination, scale=4, ai_strength=1.0, device="cpu", show_progress=False,
                       output_fps=float(rate) if rate else None)
"""


class PeerFailed(Exception):
    """It gave no file, and said why."""


@dataclass(frozen=True, kw_only=True)
class Peer(ABC):
    """`files` are written beside the peer's own ones, into a directory that comes first on the module path."""

    name: str
    directory: Path
    files: Mapping[str, str] = field(default_factory=dict)

    def run(self, kind: Kind, source: Path, destination: Path) -> None:
        """Upscale `source` to the MP4 `destination`. Raises PeerFailed."""
        with TemporaryDirectory(prefix="peer-") as name:
            scratch = Path(name)
            for path, text in self.files.items():
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                (scratch / path).write_text(text)
            made = self._start(kind, source, scratch)
            if not made.is_file():
                raise PeerFailed("no file was written")
            made.rename(destination)

    @abstractmethod
    def _start(self, kind: Kind, source: Path, scratch: Path) -> Path:
        """Run it on `source`. Returns the path of what it writes."""

    def _call(self, scratch: Path, *arguments: str | Path) -> None:
        try:
            done = subprocess.run(
                [sys.executable, *map(str, arguments)],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": f"{scratch}:{self.directory}",
                    "HOME": str(scratch),
                },
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=PEER_SECONDS,
                cwd=scratch,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed("it did not end") from None
        if done.returncode:
            raised = re.findall(r"^[\w.]+Error: .*", done.stderr, re.MULTILINE)
            raise PeerFailed(raised[-1] if raised else f"exit status {done.returncode}")


class RealEsrgan(Peer):
    """The script that comes with Real-ESRGAN; `directory` is a checkout of its repository."""

    def _start(self, kind: Kind, source: Path, scratch: Path) -> Path:
        rate = kind.fields.get("target_fps")
        self._call(
            scratch,
            self.directory / "inference_realesrgan_video.py",
            *("-i", source, "-o", scratch / "results", "-n", "realesr-animevideov3", "-s", "4"),
            *(() if rate is None else ("--fps", rate)),
        )
        return scratch / "results" / f"{source.stem}_out.mp4"


class Framelift(Peer):
    """The package framelift-video; `directory` is its unpacked wheel."""

    def _start(self, kind: Kind, source: Path, scratch: Path) -> Path:
        destination = scratch / "out.mp4"
        self._call(scratch, "-c", FRAMELIFT_PROGRAM, source, destination, kind.fields.get("target_fps", ""))
        return destination


def real_esrgan(directory: Path) -> Peer:
    return RealEsrgan(name="Real-ESRGAN", directory=directory, files=REAL_ESRGAN_STAND_INS)


def framelift(directory: Path) -> Peer:
    return Framelift(name="framelift", directory=directory)
