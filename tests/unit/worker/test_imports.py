"""What a worker process loads."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_worker_never_loads_the_web_framework() -> None:
    program = (
        "import json, sys, worker.work_units, worker.celery_app;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert {"worker", "torch", "celery"} <= loaded
    assert not {"fastapi", "starlette", "uvicorn"} & loaded
