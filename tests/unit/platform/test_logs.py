"""What a process writes to stderr, whoever in it writes."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Lines of ours and of libraries, and whatever Python itself would print.
PROGRAM = """
import asyncio, logging, threading, warnings
import structlog
from app.platform.logs import configure_logging
from app.platform.settings import Settings

configure_logging(Settings())
log = structlog.get_logger("app.test")

structlog.contextvars.bind_contextvars(request_id="r1")
log.info("something_happened", render_id="abc", count=3)
log.debug("not_shown")
log.warning("said_much", detail="start" + 65536 * "x" + "end")
log.warning("strange", path="/a\\n2026 [info] feigned\\x1b[2J", code="\\x1b[2J", word="ü", items=["\\n"])
library = logging.getLogger("some.package")
library.info("Two lines\\nof %s with 'a password': %s\\n", "text", "s3cret-of-the-broker")
structlog.contextvars.clear_contextvars()
try:
    raise ValueError("first\\nsecond line, s3cret-of-the-broker")
except ValueError:
    log.exception("it_failed")
    library.exception("It failed")
library.error("One %s, two %s", "argument")
logging.getLogger("botocore.auth").debug("never shown")
warnings.warn("old ways")

thread = threading.Thread(target=lambda: 1 / 0, name="worker-thread")
thread.start()
thread.join()

class Broken:
    def __del__(self):
        raise KeyError("unraisable")

Broken()

async def forgotten():
    raise OSError("in a task")

async def main():
    task = asyncio.get_running_loop().create_task(forgotten())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
raise SystemError("the end, s3cret-of-the-broker")
"""


def run(log_format: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("REGEN_")},
            "PYTHONPATH": str(ROOT),
            "REGEN_LOG_FORMAT": log_format,
            "REGEN_BROKER_PASSWORD": "s3cret-of-the-broker",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    return finished.stderr


@pytest.fixture(scope="module")
def lines() -> list[dict]:
    return [json.loads(line) for line in run("json").splitlines()]


def one(lines: list[dict], event: str, **facts: str) -> dict:
    (found,) = [line for line in lines if line["event"] == event and facts.items() <= line.items()]
    return found


def test_every_line_is_an_object_that_starts_alike(lines):
    for line in lines:
        assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
        assert line["level"] in ("info", "warning", "error", "critical")
        assert line["event"].isidentifier() and line["event"].islower()
    assert "not_shown" not in json.dumps(lines)
    assert "never shown" not in json.dumps(lines)


def test_a_line_of_ours(lines):
    line = one(lines, "something_happened")

    assert line | {"timestamp": ""} == {
        "timestamp": "", "level": "info", "event": "something_happened", "logger": "app.test",
        "render_id": "abc", "count": 3, "request_id": "r1",
    }  # fmt: skip


def test_a_long_text_is_cut_in_the_middle(lines):
    (line,) = (line for line in lines if line["event"] == "said_much")
    assert line["detail"].startswith("startxxx") and line["detail"].endswith("xxxend")
    assert "x [61,448 characters left out] x" in line["detail"] and len(line["detail"]) < 4200


def test_a_line_of_a_library(lines):
    line = one(lines, "library_line", logger="some.package", level="info")

    assert line["message"] == "Two lines\nof text with 'a password': [removed]"
    assert line["request_id"] == "r1"


def test_tracebacks_are_text_in_one_field(lines):
    for line in (
        one(lines, "it_failed"),
        one(lines, "library_line", message="It failed"),
    ):
        assert line["level"] == "error"
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("ValueError: first\nsecond line, [removed]")
        assert "request_id" not in line


def test_what_python_would_print(lines):
    assert "old ways" in one(lines, "library_line", logger="py.warnings")["message"]
    in_thread = one(lines, "uncaught_exception", thread="worker-thread")
    assert in_thread["exception"].endswith("ZeroDivisionError: division by zero")
    assert in_thread["level"] == "critical"
    unraisable = one(lines, "unraisable_exception")
    assert "Broken.__del__" in f"{unraisable['where']} {unraisable['reason']}"
    assert "KeyError" in unraisable["exception"]
    assert "OSError: in a task" in one(lines, "library_line", logger="asyncio")["exception"]
    assert one(lines, "log_line_failed", logger="some.package")["error"] == "TypeError"
    assert lines[-1]["event"] == "uncaught_exception"
    assert lines[-1]["exception"].endswith("SystemError: the end, [removed]")


def test_one_event_is_one_line_on_a_console_too():
    lines = run("console").splitlines()

    (strange,) = [line for line in lines if "strange" in line]
    assert r"'/a\n2026 [info] feigned\x1b[2J'" in strange
    assert r"code='\x1b[2J'" in strange and "word=ü" in strange and r"items=['\n']" in strange
    (library,) = [line for line in lines if "Two lines" in line]
    assert r"Two lines\nof text with" in library
    assert not any("feigned" in line for line in lines if line is not strange)
    assert "ValueError: first" in lines, "tracebacks are as they were"


def test_secrets_do_not_show_on_a_console_either():
    text = run("console")

    assert "something_happened" in text and "[removed]" in text
    # Python itself prints what ends the program; from 3.13 on also a line of a program that is an argument.
    ours, _, ends = text.rpartition("Traceback (most recent call last):")
    assert "s3cret-of-the-broker" not in ours
    assert "SystemError: the end, s3cret-of-the-broker" in ends
