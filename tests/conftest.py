"""Servers that tests of several folders start."""

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

pytest_plugins: list[str] = [
    "tests.servers.broker",
    "tests.servers.postgres",
    "tests.servers.s3",
]

_configure = structlog.configure


def _configure_without_keeping(*arguments: Any, **options: Any) -> None:
    _configure(*arguments, **(options | {"cache_logger_on_first_use": False}))


# A logger that keeps its set-up would have that of the first test that used it, for ever.
structlog.configure = _configure_without_keeping


@pytest.fixture(autouse=True)
def logging_of_its_own() -> Iterator[None]:
    """What one test sets up for logging, mostly by a command that it runs in this process, is not the next one's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
