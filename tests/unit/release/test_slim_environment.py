"""What scripts/slim_environment.py takes out of an environment, and what it leaves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "slim_environment.py"
LEFT = (
    "torch/lib/libtorch.so",
    "torch/bin/torch_shm_manager",
    "botocore/data/s3/x.json",
    "botocore/data/endpoints.json",
    "fastapi_offline/static/swagger-ui.css",
    "pygments/lexers/python.py",
)
TAKEN = ("torch/bin/upgrader_models/x.ptl", "torch/bin/test_jit", "torch/include/a/b.h", "torch/test/x")
TAKEN += ("botocore/data/ec2/x.json", "sqlalchemy/testing/x.py", "fastapi_offline/static/redoc.standalone.js")
TAKEN += ("pygments/lexers/business.py", "pygments/lexers/__pycache__/business.cpython-313.pyc")


@pytest.mark.skipif(shutil.which("strip") is None, reason="there is no strip")
def test_what_is_taken_and_what_is_left(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.13" / "site-packages"
    for name in (*LEFT, *TAKEN):
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for _again in range(2):
        subprocess.run([sys.executable, SCRIPT, tmp_path], check=True)
        assert {path for path in LEFT if (packages / path).exists()} == set(LEFT)
        assert not {path for path in TAKEN if (packages / path).exists()}
