"""Threads never read what another still writes, nor write what it still reads: watched by ThreadSanitizer.

Steps begin before the one before them has ended, so what a wrong wait does depends on luck. The sanitizer sees it in
any run in which the two places are touched without an order between them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worker.inference.cpu import kernels

pytestmark = pytest.mark.slow

SOURCE = Path(kernels.__file__).with_name("kernels.c")
FLAGS = (
    "-O1",
    "-g",
    "-fsanitize=thread",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-pthread",
    "-fPIC",
    "-shared",
)
PROGRAM = """
import importlib.util, sys
from types import SimpleNamespace

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: (
    SimpleNamespace(origin=sys.argv[1]) if name == "worker.inference.cpu._kernels" else find_spec(name, *rest)
)
import torch
from models.architectures import RRDBNet, SRVGGNetCompact
from worker.inference.cpu.direct_trial import compile_directly
from worker.inference.cpu.network import compile_network

torch.set_num_threads(1)
one = torch.get_num_threads
# Of more tiles and rows than one thread takes at a time.
cases = (
    (compile_network, SRVGGNetCompact(features=32, convolutions=4), (45, 38)),
    (compile_network, RRDBNet(features=32, blocks=2, growth=16), (29, 22)),
    (compile_directly, SRVGGNetCompact(features=32, convolutions=3), (9, 18)),
    (compile_directly, RRDBNet(features=32, blocks=1, growth=32), (9, 6)),
)
for compiled, network, size in cases:
    fast = compiled(network.eval().requires_grad_(False))
    picture = torch.rand(1, 3, *size)
    torch.get_num_threads = one
    expected = fast(picture).clone()
    for threads in (2, 4, 9):
        torch.get_num_threads = lambda: threads
        for _ in range(2):
            assert torch.equal(fast(picture), expected)
"""


@pytest.mark.skipif(kernels.find_kernels() is None, reason="the package was installed without a C compiler")
def test_no_step_begins_too_early(tmp_path):
    compiler, library = shutil.which("gcc"), tmp_path / "kernels.so"
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no gcc, or this is not Linux")
    named = subprocess.run(
        [compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
    )
    sanitizer = named.stdout.strip()
    if not Path(sanitizer).is_absolute():
        pytest.skip("gcc comes without ThreadSanitizer")
    subprocess.run([compiler, *FLAGS, "-o", library, SOURCE, "-lm"], check=True)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, library],
        env={**os.environ, "LD_PRELOAD": sanitizer, "TSAN_OPTIONS": "exitcode=66"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer cannot run under this kernel's address randomization")
    assert done.returncode == 0, done.stderr[-4000:]
