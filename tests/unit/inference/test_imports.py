import subprocess
import sys

CODE = """
import importlib.metadata, pkgutil, re, sys
import numpy, torch

# What torch itself may load later.
allowed = {"models", "worker", "torch", "numpy", "safetensors"} | {name.split(".")[0] for name in sys.modules}
for requirement in importlib.metadata.requires("torch") or ():
    allowed.add(re.split(r"[^\\w]", requirement.replace("-", "_"))[0])
assert "httpx" not in allowed

class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not part of torch, numpy, safetensors or the standard library")

sys.meta_path.insert(0, Gate())
import models, worker.inference
for package in (models, worker.inference):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # A library for ctypes, no module; and downloading, which is imported when there is something to download.
        if not module.name.endswith("._kernels") and module.name != "models.download":
            importlib.import_module(module.name)

from pathlib import Path
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import make_upscaler
source = FrameFormat(width=16, height=16)
upscaler = make_upscaler(engine_id="regen-4x-lite", source=source, target=source.enlarged(4),
                         weights_directory=Path(sys.argv[1]), device="cpu")
assert upscaler.upscale([numpy.zeros(source.frame_bytes, "uint8")])[0].size == 16 * source.frame_bytes
assert not {"app", "httpx", "worker.video", "worker.work_units"} & set(sys.modules)
print("done")
"""

FRAMES_CODE = """
import sys
import worker.inference.frames
assert "torch" not in sys.modules
print("done")
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_networks_and_inference_need_torch_numpy_and_safetensors_alone(weights_directory):
    done = run(CODE, str(weights_directory))
    assert done.stdout.strip() == "done", done.stderr


def test_the_layout_of_frames_is_known_without_torch():
    done = run(FRAMES_CODE)
    assert done.stdout.strip() == "done", done.stderr
