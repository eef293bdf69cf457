"""Threads that work beside others."""

import threading
from collections.abc import Callable
from contextvars import copy_context


def background_thread(run: Callable[[], object], *, name: str) -> threading.Thread:
    """A thread, not started yet, with the log's context and the progress of where it is made.

    A daemon: the process must be able to end while it hangs.
    """
    return threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True)
